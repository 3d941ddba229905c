"""Every room puts its acts on record, with the person, and never a secret or a record's value."""

from __future__ import annotations

import io
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from apps.accounts.models import User
from apps.accounts.services import create_administrator
from apps.audit.actions import Act
from apps.audit.admin.exports import event_facts
from apps.audit.models import AuditEvent
from apps.console import services as console
from apps.console.command_line import Output, execute
from apps.core.admin import BaseAdmin, ReadOnlyAdmin
from apps.engine.spec import CheckKind, CheckSpec
from apps.ledger.models import Rejection
from apps.ledger.services import Choice, Decision, decide, dismiss_rejection, edit_rejection
from apps.mappings.models import LookupTable
from apps.mappings.services import save_lookup, save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule, set_enabled, set_rule_paused
from apps.runs.services import (
    UndoScope,
    approve_restore,
    approve_run,
    cancel_run,
    decline_restore,
    plan_undo,
    reject_run,
    replay_rejections,
    request_restore,
    request_run,
    start_due_runs,
    withdraw_restore,
    work_until_finished,
)
from apps.sources.models import Drift, Field, Source
from apps.sources.services import acknowledge_drift, save_source, set_source_paused
from tests.people import (
    PASSWORD,
    administrator,
    code_of,
    enrolled,
    log_in,
    person,
    prove,
    signed_in,
)
from tests.platforms import FIELDS, Pair
from tests.two_way import TwoWay

pytestmark = pytest.mark.django_db(transaction=True)
SECRET = "canary-secret-4711"


def told(skip: int = 0) -> list[tuple[str, str, str]]:
    """Who did what to what, oldest first."""
    rows = AuditEvent.objects.order_by("id")[skip:]
    return [(e.actor_label, e.action, e.object_label) for e in rows]


def last() -> AuditEvent:
    return AuditEvent.objects.order_by("-id")[0]


def acts() -> set[str]:
    return set(AuditEvent.objects.values_list("action", flat=True))


def everything() -> str:
    return "\n".join(str(event_facts(event)) for event in AuditEvent.objects.all())


@pytest.fixture
def boss() -> User:
    return administrator("boss")


# Sign-in and people


def enter(client: Client, user: User) -> Any:
    """Both steps of the sign-in."""
    app = enrolled(user)
    log_in(client, user.username)
    return prove(client, code_of(app))


def test_signing_in_failing_and_signing_out(boss: User):
    client = Client(REMOTE_ADDR="192.0.2.9", HTTP_USER_AGENT="Test browser")
    log_in(client, "boss", "wrong")
    enter(client, boss)
    client.post(reverse("admin:logout"))

    assert told() == [
        ("nobody", "session.sign_in_failed", "boss"),
        ("boss", "session.signed_in", "boss"),
        ("boss", "session.signed_out", "boss"),
    ]
    failed, entered, _ = AuditEvent.objects.order_by("id")
    assert (failed.outcome, failed.actor_kind) == ("failed", "stranger")
    assert (entered.address, entered.user_agent) == ("192.0.2.9", "Test browser")
    assert len(entered.request_id) == 32


def test_what_was_typed_as_an_unknown_name_is_not_kept(boss: User):
    for _ in range(2):
        log_in(Client(), SECRET, "x")

    one, two = AuditEvent.objects.order_by("id")
    assert one.details == two.details
    assert one.details["unknown name"]
    assert SECRET not in everything()


def test_the_answer_names_the_request_and_takes_no_id_from_outside(boss: User):
    client = Client(headers={"X-Request-ID": "mine"})
    answer = enter(client, boss)
    assert answer["X-Request-ID"] == last().request_id != "mine"


def test_who_tries_what_is_not_allowed_leaves_a_trace():
    client = signed_in(person("nosy"))
    address = reverse("admin:rules_rule_changelist")
    assert client.get(address).status_code == 403

    event = last()
    assert (event.actor_label, event.action, event.outcome) == (
        "nosy",
        "access.refused",
        "refused",
    )
    assert event.details == {"method": "GET", "path": address}


def person_form(**changes: Any) -> dict[str, Any]:
    return {"username": "ada", "is_active": "on", "time_zone": "", **changes}


def test_people_and_what_they_may_do(boss: User):
    client = signed_in(boss)
    role = Group.objects.create(name="Operators")
    client.post(reverse("admin:accounts_user_add"), {"username": "ada", "is_staff": "on"})
    ada = User.objects.get(username="ada")
    address = reverse("admin:accounts_user_change", args=(ada.pk,))
    form = person_form(is_staff="on", groups=[role.pk])
    assert client.post(address, form).status_code == 302
    gained = AuditEvent.objects.filter(action=Act.PERSON_RIGHTS_CHANGED).first()
    assert gained.details == {"gained": ["role Operators"], "lost": []}
    assert client.post(address, person_form()).status_code == 302
    lost = AuditEvent.objects.filter(action=Act.PERSON_RIGHTS_CHANGED).first()
    assert lost.details == {"gained": [], "lost": ["role Operators", "staff"]}
    delete = reverse("admin:accounts_user_delete", args=(ada.pk,))
    assert client.post(delete, {"post": "yes"}).status_code == 302

    assert {("boss", "person.created", "ada"), ("boss", "person.deleted", "ada")} <= set(told())


def test_a_password_that_somebody_sets_for_another(boss: User):
    ada = person("ada")
    address = reverse("admin:auth_user_password_change", args=(ada.pk,))
    typed = {"password1": SECRET, "password2": SECRET, "usable_password": "true"}
    assert signed_in(boss).post(address, typed).status_code == 302

    assert (last().actor_label, last().action) == ("boss", "person.changed")
    assert "password" in str(last().details["changed"]).lower()
    assert SECRET not in everything()


def test_roles_and_what_they_may_do(boss: User):
    client = signed_in(boss)
    run = Permission.objects.get(codename="run_rule")
    add = reverse("admin:auth_group_add")
    assert client.post(add, {"name": "Operators", "permissions": [run.pk]}).status_code == 302
    given = AuditEvent.objects.get(action=Act.ROLE_RIGHTS_CHANGED)
    assert given.details == {"gained": ["rules.run_rule"], "lost": []}
    role = Group.objects.get(name="Operators")
    change = reverse("admin:auth_group_change", args=(role.pk,))
    assert client.post(change, {"name": "Operators"}).status_code == 302
    chosen = {"action": "delete_selected", "_selected_action": [role.pk], "post": "yes"}
    client.post(reverse("admin:auth_group_changelist"), chosen)

    found = [act for _, act, _ in told() if act.startswith("role.")]
    assert sorted(set(found)) == [
        "role.changed",
        "role.created",
        "role.deleted",
        "role.rights_changed",
    ]


def test_one_time_passwords_and_their_replacement():
    user, password = create_administrator()
    call_command("one_time_password", "admin", stdout=io.StringIO())
    user.refresh_from_db()
    user.set_password(PASSWORD)
    user.save()
    new = "a much better phrase"
    typed = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
    client = signed_in(user)
    assert client.post(reverse("admin:password_change"), typed).status_code == 302

    assert [act for _, act, _ in told()] == [
        "person.created",
        "person.one_time_password",
        "session.signed_in",
        "session.password_changed",
    ]
    issued = AuditEvent.objects.order_by("id")[1]
    assert issued.actor_label.startswith("command line (")
    assert str(password) not in everything()


# Configuration


def test_sources_and_their_secrets(boss: User):
    source = Source(name="Shop", connector="postgresql")
    values = {"host": "db", "database": "shop", "user": "u", "password": SECRET}
    save_source(source, values, actor=boss)
    save_source(source, {**values, "database": "shop2", "password": ""}, actor=boss)
    save_source(source, {**values, "database": "shop2", "password": f"{SECRET}2"}, actor=boss)
    set_source_paused(source, True, "moving house", actor=boss)
    set_source_paused(source, False, actor=boss)
    drift = Drift.objects.create(source=source, dataset_name="d", kind=Drift.Kind.DATASET_ADDED)
    acknowledge_drift(drift, actor=boss)
    delete = reverse("admin:sources_source_delete", args=(source.pk,))
    assert signed_in(boss).post(delete, {"post": "yes"}).status_code == 302

    found = [act for _, act, label in told() if act.startswith(("source.", "drift."))]
    assert found == [
        "source.secrets_replaced",
        "source.created",
        "source.changed",
        "source.secrets_replaced",
        "source.changed",
        "source.paused",
        "source.resumed",
        "drift.seen",
        "source.deleted",
    ]
    replaced = AuditEvent.objects.filter(action=Act.SECRETS_REPLACED).first()
    assert replaced.details == {"secrets": ["password"]}
    changed = AuditEvent.objects.filter(action=Act.SOURCE_CHANGED).last()
    assert changed.details == {"changed": ["settings"]}
    assert AuditEvent.objects.get(action=Act.SOURCE_PAUSED).reason == "moving house"
    assert SECRET not in everything()


def test_mappings_lookups_and_rules(boss: User, tmp_path: Path):
    pair = Pair(tmp_path)
    before = AuditEvent.objects.count()
    save_mapping(pair.mapping, FIELDS, ["client_id"], actor=boss)
    save_rule(pair.rule, [], actor=boss)
    assert AuditEvent.objects.count() == before, "saving what is there already changes nothing"
    save_mapping(pair.mapping, FIELDS[:3], ["client_id"], actor=boss)
    pair.rule.description = "new words"
    save_rule(pair.rule, [], actor=boss)
    pair.rule.schedule_kind, pair.rule.every_minutes = Rule.ScheduleKind.EVERY, 5
    set_enabled(pair.rule, True, actor=boss)
    set_enabled(pair.rule, False, actor=boss)
    set_rule_paused(pair.rule, True, "a fair", actor=boss)
    set_rule_paused(pair.rule, False, actor=boss)
    save_lookup("iso", {"Germany": "DE"}, actor=boss)
    save_lookup("iso", {"Spain": "ES"}, actor=boss)
    client = signed_in(boss)
    table = LookupTable.objects.get()
    for name, pk in (
        ("rules_rule", pair.rule.pk),
        ("mappings_mapping", pair.mapping.pk),
        ("mappings_lookuptable", table.pk),
    ):
        address = reverse(f"admin:{name}_delete", args=(pk,))
        assert client.post(address, {"post": "yes"}).status_code == 302, name

    assert [(act, label) for who, act, label in told(before) if act != "session.signed_in"] == [
        ("mapping.changed", "pair"),
        ("rule.changed", "pair"),
        ("rule.enabled", "pair"),
        ("rule.disabled", "pair"),
        ("rule.paused", "pair"),
        ("rule.resumed", "pair"),
        ("lookup.created", "iso"),
        ("lookup.changed", "iso"),
        ("rule.deleted", "pair"),
        ("mapping.deleted", "pair"),
        ("lookup.deleted", "iso"),
    ]
    assert AuditEvent.objects.filter(action=Act.MAPPING_CHANGED).first().details["version"] == 2
    changed = AuditEvent.objects.filter(action=Act.RULE_CHANGED).first()
    assert "description" in changed.details["changed"]
    assert "new words" not in everything()


def test_the_inventory_and_lookups_saved_by_form(boss: User, tmp_path: Path):
    pair = Pair(tmp_path)
    client = signed_in(boss)
    field = Field.objects.get(name="email")
    address = reverse("admin:sources_field_change", args=(field.pk,))
    assert client.post(address, {"personal_data": "contact"}).status_code == 302
    assert (last().action, last().object_label) == ("field.changed", "email")
    table = save_lookup("iso", {"Germany": "DE"}, actor=None)
    entry = table.entries.get()
    inline = {
        "entries-TOTAL_FORMS": 1,
        "entries-INITIAL_FORMS": 1,
        "entries-0-id": entry.pk,
        "entries-0-table": table.pk,
        "entries-0-key": "Germany",
        "entries-0-value": SECRET,
    }
    address = reverse("admin:mappings_lookuptable_change", args=(table.pk,))
    answer = client.post(address, {"name": "iso", "description": "", **inline})
    assert answer.status_code == 302
    assert last().action == "lookup.changed"
    assert SECRET not in everything()
    assert pair.rule.pk


def test_configuration_files_applied_and_exported(tmp_path: Path):
    file = tmp_path / "lockstep.yaml"
    file.write_text(
        f"sources:\n  Files:\n    connector: files\n    settings:\n      folder: {tmp_path}\n"
    )
    out = Output(io.StringIO(), io.StringIO())
    for dry in (True, False):
        arguments = Namespace(verb="configuration:apply", file=file, dry_run=dry)
        assert execute(arguments, out) == 0, out.stderr.getvalue()
    assert execute(Namespace(verb="configuration:export", output=None), out) == 0

    found = [act for _, act, _ in told()]
    assert found == ["source.created", "configuration.applied", "configuration.exported"]
    assert last().user_agent == "lockstep export"
    assert last().channel == "command"


# Runs


def test_runs_requested_cancelled_approved_and_rejected(boss: User, tmp_path: Path):
    pair = Pair(tmp_path, facts={"approval": "always"})
    pair.add_customers(3)
    before = AuditEvent.objects.count()
    cancel_run(request_run(pair.rule, actor=boss, reason="try"), actor=boss)
    waiting = work_until_finished(request_run(pair.rule, actor=boss))
    reject_run(waiting, actor=boss, note="too many")
    run = work_until_finished(request_run(pair.rule, actor=boss))
    approve_run(run, actor=boss, note="fine")

    assert [act for _, act, _ in told(before)] == [
        "run.requested",
        "run.cancelled",
        "run.requested",
        "run.rejected",
        "run.requested",
        "run.approved",
    ]
    assert {(who, label) for who, _, label in told(before)} == {("boss", "pair")}
    assert last().reason == "fine"
    assert last().details["changes"] == 3
    assert last().object_id == str(run.pk)


def test_an_approval_that_four_eyes_refuse(boss: User, tmp_path: Path):
    pair = Pair(tmp_path, facts={"approval": "always", "four_eyes": True})
    pair.add_customers(3)
    run = work_until_finished(request_run(pair.rule, actor=boss))
    address = reverse("admin:runs_run_decide", args=(run.pk,))
    signed_in(boss).post(address, {"what": "all", "approve": "1"})

    assert (last().action, last().outcome) == ("access.refused", "refused")
    assert "somebody else" in last().reason


def test_a_run_that_is_refused_leaves_no_event(boss: User, tmp_path: Path):
    pair = Pair(tmp_path)
    set_rule_paused(pair.rule, True, actor=None)
    before = AuditEvent.objects.count()
    with pytest.raises(Exception, match="paused"):
        request_run(pair.rule, actor=boss)
    assert AuditEvent.objects.count() == before


def test_runs_of_a_schedule_are_no_acts_of_anybody(tmp_path: Path):
    pair = Pair(tmp_path)
    Rule.objects.filter(pk=pair.rule.pk).update(schedule_kind="every", every_minutes=1)
    pair.rule.refresh_from_db()
    set_enabled(pair.rule, True, actor=None)
    Rule.objects.filter(pk=pair.rule.pk).update(schedule_since="2026-01-01T00:00:00Z")
    before = AuditEvent.objects.count()
    assert len(start_due_runs()) == 1
    assert AuditEvent.objects.count() == before


def test_undo_and_restore_requests(boss: User, tmp_path: Path):
    pair = Pair(tmp_path)
    pair.add_customers(2)
    scope = UndoScope(run_id=pair.run().pk)
    support = administrator("support")
    before = AuditEvent.objects.count()
    first, second, third = (
        request_restore(pair.rule, scope, actor=support, reason="please") for _ in range(3)
    )
    decline_restore(first, actor=boss, note="no")
    withdraw_restore(second, actor=support)
    work_until_finished(plan_undo(pair.rule, scope, actor=boss, reason="wrong file"))
    approve_restore(third, actor=boss)

    assert [(who, act) for who, act, _ in told(before)] == [
        *[("support", "restore.requested")] * 3,
        ("boss", "restore.declined"),
        ("support", "restore.withdrawn"),
        ("boss", "undo.previewed"),
        ("boss", "undo.requested"),
        ("boss", "restore.approved"),
    ]


def test_rejections_corrected_replayed_and_dismissed(boss: User, tmp_path: Path):
    check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern="n[1-8]@.*")
    pair = Pair(tmp_path, checks=[check])
    pair.add_customers(9)
    pair.run()
    rejection = Rejection.objects.get()
    before = AuditEvent.objects.count()
    edit_rejection(rejection, {"id": "9", "email": SECRET}, actor=boss)
    work_until_finished(replay_rejections([rejection], actor=boss)[0])
    dismiss_rejection(Rejection.objects.get(), actor=boss, note="known")

    assert [act for _, act, _ in told(before)] == [
        "rejection.edited",
        "run.requested",
        "rejection.dismissed",
    ]
    assert SECRET not in everything()
    assert "@example.org" not in everything().lower()


def test_decisions_about_conflicts_without_any_value(boss: User, tmp_path: Path):
    pair = TwoWay(tmp_path)
    [conflict] = pair.meet(
        pair.disagreement(1, {"display_name": "Maria"}, {"display_name": "Mario"})
    )
    decision = Decision(fields={"display_name": Choice("value", SECRET)})
    decide(conflict, decision, seen=conflict.seen, actor=boss, note="asked her")

    event = last()
    assert (event.actor_label, event.action) == ("boss", "conflict.decided")
    assert event.details["fields"] == {"display_name": "value"}
    assert event.reason == "asked her"
    for value in (SECRET, "Maria", "Mario", conflict.left_key):
        assert value not in str(event_facts(event)), value


def test_the_whole_platform_paused_and_the_demo_removed(boss: User):
    client = signed_in(boss)
    client.post(reverse("admin:pause_everything"), {"reason": "a storm"})
    assert (last().action, last().reason) == ("platform.paused", "a storm")
    client.post(reverse("admin:resume_everything"))
    assert last().action == "platform.resumed"
    console.load_demo()
    client.post(reverse("admin:remove_demo"))
    removed = AuditEvent.objects.get(action=Act.DEMO_REMOVED)
    assert "Demo customers" in removed.details["rules"]


# What holds for whoever adds a page


def test_every_page_that_saves_or_deletes_is_on_record():
    from django.contrib import admin

    for page in admin.site._registry.values():
        assert isinstance(page, BaseAdmin)
        if isinstance(page, ReadOnlyAdmin):
            continue
        assert page.audited_as, f"{type(page).__name__} says not how it is put on record"
        assert f"{page.audited_as}.changed" in Act.values
