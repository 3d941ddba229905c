"""Incidents follow what is wrong: one for each problem, from its beginning to its end."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.accounts.models import User
from apps.alerts import problems, services, tasks
from apps.alerts.models import EscalationPolicy, Incident, Kind, Severity
from apps.alerts.problems import CONDITIONS
from apps.alerts.selectors import Policies
from apps.alerts.services import (
    acknowledge,
    comment,
    forget_ended,
    resolve,
    snooze,
    watch,
    watching,
)
from apps.alerts.services.errors import IncidentClosed
from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.audit.services import record
from apps.core.clock import now
from apps.ledger.models import Rejection
from apps.rules.models import Rule
from apps.runs.models import DueRun, Run, RunStatus
from apps.sources.models import Drift, Source
from tests.alerts.conftest import Watched, in_minutes, policy_with

pytestmark = pytest.mark.django_db


def only() -> Incident:
    return Incident.objects.get()


def kinds() -> list[str]:
    return sorted(Incident.objects.filter(state__in=Incident.LIVE).values_list("kind", flat=True))


def test_every_kind_has_a_condition():
    assert sorted(kind for found in CONDITIONS.values() for kind in found) == sorted(Kind)


def test_a_failed_run_is_one_incident_however_often_it_fails(watched):
    watched.fails()
    watch()
    watch()
    last = watched.fails()
    watch()

    incident = only()
    assert (incident.kind, incident.state, incident.severity) == ("run_failed", "open", 3)
    assert (incident.cause_code, incident.times_seen) == ("source.unreachable", 2)
    assert incident.run_id == last.pk
    assert [line.kind for line in incident.timeline.all()] == ["opened", "seen"]


def test_another_cause_is_another_incident_and_the_first_is_over(watched):
    watched.fails("source.unreachable")
    watch()
    watched.fails("source.sign_in_refused")
    watch()

    states = dict(Incident.objects.values_list("cause_code", "state"))
    assert states == {"source.unreachable": "resolved", "source.sign_in_refused": "open"}


def test_a_success_ends_it_and_the_next_failure_is_a_regression(watched):
    watched.fails()
    watch()
    watched.succeeds()
    watch()
    assert only().state == "resolved"
    assert only().resolved_by is None

    watched.fails()
    watch()
    assert Incident.objects.order_by("created_at").last().state == "regressed"


def test_a_dry_run_says_nothing_of_a_rule(watched):
    watched.fails()
    watched.ended(RunStatus.SUCCEEDED, mode=Run.Mode.DRY_RUN)
    watch()
    assert kinds() == ["run_failed"]


def test_a_real_run_that_fails_is_told_in_its_own_words(watched):
    watched.on_left("DROP TABLE customers")
    run = watched.run()
    watch()

    assert run.status == RunStatus.FAILED
    assert only().cause_code == run.cause_code
    assert only().text == run.cause
    assert only().remedy == run.remedy


def test_what_a_person_has_resolved_comes_back_only_when_it_happens_anew(watched, ada):
    watched.fails()
    watch()
    resolve(only(), actor=ada, cause="the disk was full", fix="more disk")
    watch()
    assert only().state == "resolved"

    watched.fails()
    watch()
    again = Incident.objects.order_by("created_at").last()
    assert again.state == "regressed"
    with pytest.raises(IncidentClosed):
        acknowledge(Incident.objects.order_by("created_at").first(), actor=ada)


def test_a_snoozed_one_sleeps_until_it_is_twice_as_much(watched, ada):
    policy_with(most_rejections=2)
    reject(watched, 3)
    watch()
    snooze(only(), actor=ada)
    reject(watched, 2)
    watch()
    assert (only().state, only().size) == ("snoozed", 5)

    reject(watched, 1)
    watch()
    assert (only().state, only().size) == ("open", 6)
    assert "woken" in [line.kind for line in only().timeline.all()]


def test_a_snooze_ends_with_its_hours(watched, ada):
    watched.fails()
    watch()
    snooze(only(), actor=ada, hours=2)
    watch(in_minutes(119))
    assert only().state == "snoozed"
    watch(in_minutes(121))
    assert only().state == "open"


def reject(watched: Watched, count: int) -> None:
    run = watched.ended(RunStatus.PARTIAL)
    before = Rejection.objects.count()
    for number in range(before, before + count):
        Rejection.objects.create(
            rule_id=watched.rule.pk,
            run_id=run.pk,
            first_run_id=run.pk,
            identity_hash=number.to_bytes(16, "big"),
            code="check.failed",
            state=Rejection.State.OPEN,
        )


def test_a_rule_is_stale_when_its_last_success_is_older_than_promised(watched):
    policy_with(fresh_minutes=60)
    Rule.objects.update(enabled=True, schedule_since=now())
    watch(in_minutes(59))
    assert kinds() == []
    watched.succeeds()
    watch(in_minutes(61))
    assert kinds() == ["stale"]


def test_each_rule_has_the_policy_that_names_it_or_its_tag_or_the_default(watched, tmp_path):
    other = Watched(tmp_path, name="other", fields=watched.fields)
    Rule.objects.update(enabled=True, schedule_since=now())
    policy_with(fresh_minutes=60)
    named = EscalationPolicy.objects.create(name="Slow", fresh_minutes=600)
    named.rules.add(other.rule)

    watch(in_minutes(90))

    assert only().rule == watched.rule


def test_what_else_is_wrong(watched):
    Rule.objects.update(enabled=True)
    source = watched.rule.mapping.left.source
    Source.objects.filter(pk=source.pk).update(health=Source.Health.FAILING)
    Drift.objects.create(
        source=source, dataset_name="customers", kind="field_missing", breaking=True
    )
    DueRun.objects.create(rule=watched.rule, due_at=now(), skipped="the source is paused")
    watched.ended(RunStatus.WAITING, waits_for="the rule asks for it")
    for _ in range(problems.SIGN_IN_FAILURES):
        record(Act.SIGN_IN_FAILED, actor=None)
    watch()

    assert kinds() == ["drift", "plan_waits", "sign_ins", "source_failing"]
    Run.objects.all().delete()
    watch()
    assert kinds() == ["drift", "not_started", "sign_ins", "source_failing"]

    Source.objects.update(health=Source.Health.OK)
    Drift.objects.update(acknowledged_at=now())
    watched.succeeds()
    watch(now() + timedelta(hours=2))
    assert kinds() == []


def test_a_condition_that_fails_ends_no_incident(watched, monkeypatch):
    watched.fails()
    watch()

    def broken(moment, policies):
        raise RuntimeError("on purpose")

    conditions = {broken if c is problems.failed_runs else c: k for c, k in CONDITIONS.items()}
    monkeypatch.setattr("apps.alerts.services.watching.CONDITIONS", conditions)
    watched.succeeds()
    watch()

    assert only().state == "open"


@pytest.mark.django_db(transaction=True)
def test_watchers_that_look_at_once_open_one_incident(watched):
    watched.fails()
    begin = threading.Barrier(4)

    def look() -> None:
        begin.wait()
        watch()
        connection.close()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert only().timeline.count() == 1


def test_handling_needs_its_permission_and_reach_and_is_on_record(watched, ada):
    watched.fails()
    watch()
    stranger = User.objects.create_user("eve", is_staff=True)
    for act in (acknowledge, snooze):
        with pytest.raises(Exception, match="may not handle"):
            act(only(), actor=stranger)

    acknowledge(only(), actor=ada, text="on it")
    comment(only(), actor=ada, text="the host is back")
    assert (only().state, only().acknowledged_by) == ("acknowledged", ada)
    assert [line.text for line in only().timeline.all()][1:] == ["on it", "the host is back"]
    assert AuditEvent.objects.get(action="incident.acknowledged").actor_label == "ada"


def test_what_stays_as_it_is_costs_one_question_for_all(watched, tmp_path):
    def asked() -> int:
        with CaptureQueriesContext(connection) as captured:
            watch()
        return len(captured)

    watched.fails()
    watch()
    alone = asked()
    for name in ("b", "c"):
        Watched(tmp_path, name=name, fields=watched.fields).fails()
    watch()

    assert asked() == alone


def test_severities_are_words():
    assert [severity.label for severity in Severity] == ["Notice", "Warning", "Critical"]


def only_live() -> Incident:
    return Incident.objects.get(state__in=Incident.LIVE)


def test_what_was_resolved_by_a_person_and_over_since_comes_back(watched, ada):
    source = Source.objects.filter(pk=watched.rule.mapping.left.source_id)
    source.update(health=Source.Health.FAILING)
    watch()
    resolve(only(), actor=ada, cause="", fix="")
    watch()
    assert kinds() == []

    source.update(health=Source.Health.OK)
    watch()
    source.update(health=Source.Health.FAILING)
    watch()
    assert (only_live().kind, only_live().state) == ("source_failing", "regressed")


def test_what_was_resolved_by_a_person_comes_back_when_it_is_twice_as_much(watched, ada):
    policy_with(most_rejections=2)
    reject(watched, 3)
    watch()
    resolve(only(), actor=ada, cause="", fix="")
    reject(watched, 2)
    watch()
    assert kinds() == []
    reject(watched, 1)
    watch()
    watch()
    assert (only_live().state, only_live().size) == ("regressed", 6)


def test_what_ended_while_somebody_looks_is_not_opened_again(watched, monkeypatch):
    watched.fails()
    watch()
    condition = problems.failed_runs

    def slow(moment, policies):
        found = list(condition(moment, policies))
        if Incident.objects.filter(state="open").exists():
            watched.succeeds()
            monkeypatch.undo()
            watch()
        return iter(found)

    conditions = {slow if c is condition else c: k for c, k in CONDITIONS.items()}
    monkeypatch.setattr("apps.alerts.services.watching.CONDITIONS", conditions)
    watch()
    assert only().state == "resolved"


def test_one_incident_that_cannot_be_opened_does_not_keep_the_others(watched, monkeypatch):
    watched.fails()
    Source.objects.filter(pk=watched.rule.mapping.left.source_id).update(health="failing")
    describe = watching._describe

    def broken(incident, problem, moment):
        if problem.kind == Kind.RUN_FAILED:
            raise RuntimeError("on purpose")
        describe(incident, problem, moment)

    monkeypatch.setattr(watching, "_describe", broken)
    watch()
    assert kinds() == ["source_failing"]


def test_a_watcher_that_fails_does_not_keep_people_from_being_told(monkeypatch):
    done = []

    def broken():
        raise RuntimeError("on purpose")

    monkeypatch.setattr(services, "watch", broken)
    for name in ("escalate", "deliver_due"):
        step = partial(done.append, name)
        step.__name__ = name
        monkeypatch.setattr(services, name, step)
    tasks.watch()
    assert done == ["escalate", "deliver_due"]


def test_a_verification_that_went_well_does_not_end_the_failure_of_a_run(watched):
    watched.fails()
    watched.ended(RunStatus.SUCCEEDED, mode=Run.Mode.VERIFY)
    watch()
    assert kinds() == ["run_failed"]
    watched.succeeds()
    watched.ended(RunStatus.FAILED, mode=Run.Mode.VERIFY, cause_code="source.unreachable")
    watched.succeeds()
    watch()
    assert only().title == "pair: verification failed"


def test_numbers_that_change_cost_one_question_for_all(watched, tmp_path):
    policy_with(fresh_minutes=60)
    others = [Watched(tmp_path, name=name, fields=watched.fields) for name in ("b", "c")]
    Rule.objects.update(enabled=True, schedule_since=now())

    def asked(minutes: int) -> int:
        watch(in_minutes(minutes))
        with CaptureQueriesContext(connection) as captured:
            watch(in_minutes(minutes + 5))
        return len(captured)

    many = asked(90)
    Rule.objects.filter(pk__in=[other.rule.pk for other in others]).update(enabled=False)
    assert asked(100) == many
    assert only_live().size == 105


@pytest.mark.skipif(connection.vendor != "sqlite", reason="plans are read as SQLite says them")
def test_no_table_that_grows_is_read_as_a_whole(watched):
    Rule.objects.update(enabled=True)
    policy_with(fresh_minutes=60)
    with CaptureQueriesContext(connection) as captured:
        for condition in CONDITIONS:
            list(condition(now(), Policies.read()))
    read = []
    for query in captured.captured_queries:
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {query['sql']}")
            read += [row[3].split() for row in cursor.fetchall()]
    scanned = {words[1] for words in read if words[0] == "SCAN"}
    assert "rules_rule" in scanned
    grows = ("runs_", "ledger_", "audit_auditevent", "U")  # U: of an inner question
    assert not {name for name in scanned if name.startswith(grows)}


def test_what_ended_long_ago_is_forgotten(watched, settings):
    watched.fails()
    watch()
    watched.succeeds()
    watch()
    assert forget_ended() == 0
    Incident.objects.update(resolved_at=now() - timedelta(days=401))
    assert forget_ended() == 1
    assert not Incident.objects.exists()
