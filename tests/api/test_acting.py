"""Acting: runs are started, followed, decided and undone; conflicts and rejections, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.contrib.auth.models import Permission

from apps.accounts.services import create_service_account
from apps.audit.models import AuditEvent
from apps.engine.spec import CheckKind, CheckSpec
from apps.ledger.models import Conflict
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import work_until_finished
from tests.people import administrator
from tests.platforms import PLAIN_FIELDS, Pair, TwoWayPair
from tests.programs import Program, program

pytestmark = pytest.mark.django_db


def worked(answer: dict[str, str]) -> Run:
    """The run that an answer names, finished or waiting."""
    return work_until_finished(Run.objects.get(pk=answer["id"]))


def test_a_run_is_started_and_followed(root, pair):
    answer = root.post("runs", {"rule": str(pair.rule.pk), "reason": "nightly"})

    assert answer.status_code == 202
    assert answer["Location"].endswith(f"/api/v1/runs/{answer.json()['id']}")
    assert (answer.json()["status"], answer.json()["is_active"]) == ("queued", True)
    followed = root.get(answer["Location"])
    assert followed["Retry-After"] == "2"
    worked(answer.json())

    done = root.get(answer["Location"])
    assert done.json()["status"] == "succeeded"
    assert done.json()["counters"]["inserted"] == 3
    assert done.json()["progress"]["percent"] == 100
    assert "Retry-After" not in done
    assert len(pair.clients()) == 3


def test_what_a_program_does_is_on_record_with_its_credential(root, pair):
    root.post("runs", {"rule": str(pair.rule.pk), "reason": "nightly"})

    event = AuditEvent.objects.filter(action="run.requested").latest("id")
    assert (event.channel, event.reason, event.actor_label) == ("api", "nightly", "root")
    assert event.details["credential"].startswith("token ")


def test_a_dry_run_plans_and_writes_nothing(root, pair):
    answer = root.post("runs", {"rule": str(pair.rule.pk), "mode": "dry_run"}).json()
    run = worked(answer)

    assert run.status == "planned"
    assert pair.clients() == []
    assert len(root.get(f"runs/{run.pk}/changes").json()["items"]) == 3


def test_only_one_run_of_a_rule_goes_on(root, pair):
    root.post("runs", {"rule": str(pair.rule.pk)})
    second = root.post("runs", {"rule": str(pair.rule.pk)})

    assert second.status_code == 409
    assert second["Content-Type"] == "application/problem+json"
    assert second.json()["code"] == "run.refused"
    assert second.json()["remedy"].startswith("Wait for the run")


def test_a_plan_is_approved_in_parts(root, pair):
    started = root.post("runs", {"rule": str(pair.rule.pk), "asks_approval": True}).json()
    run = worked(started)
    assert root.get(f"runs/{run.pk}").json()["status"] == "waiting"
    changes = root.get(f"runs/{run.pk}/changes").json()["items"]

    chosen = {"selection": {"changes": [int(changes[0]["id"])]}, "note": "only one"}
    answer = root.post(f"runs/{run.pk}/approve", chosen)

    assert answer.status_code == 200
    assert answer.json()["decision_note"] == "only one"
    worked(started)
    assert len(pair.clients()) == 1
    again = root.post(f"runs/{run.pk}/approve", {})
    assert (again.status_code, again.json()["code"]) == (409, "run.not_waiting")


def test_four_eyes_hold_for_programs(pair):
    pair.rule.four_eyes = True
    pair.rule.save()
    first, second = program(administrator()), program(administrator("second"))
    run = worked(first.post("runs", {"rule": str(pair.rule.pk), "asks_approval": True}).json())

    refused = first.post(f"runs/{run.pk}/approve")
    assert (refused.status_code, refused.json()["code"]) == (403, "api.forbidden")
    assert AuditEvent.objects.latest("id").action == "access.refused"
    assert second.post(f"runs/{run.pk}/approve").status_code == 200


def test_nobody_is_the_second_person_by_a_service_account(pair):
    pair.rule.four_eyes = True
    pair.rule.save()
    account = create_service_account("robot", actor=None)
    rights = ("run_rule", "approve_run", "view_run", "reach_all_objects")
    account.user_permissions.set(Permission.objects.filter(codename__in=rights))
    robot, person_ = program(account), program(administrator())
    run = worked(person_.post("runs", {"rule": str(pair.rule.pk), "asks_approval": True}).json())

    refused = robot.post(f"runs/{run.pk}/approve")

    assert refused.status_code == 403
    assert "four eyes" in refused.json()["detail"]
    assert Run.objects.get(pk=run.pk).status == "waiting"


def test_what_a_service_account_asked_for_is_not_approved_by_who_changed_the_rule(pair):
    author = administrator("author")
    pair.rule.four_eyes = True
    save_rule(pair.rule, [], actor=author)
    account = create_service_account("robot", actor=None)
    rights = ("run_rule", "view_run", "reach_all_objects")
    account.user_permissions.set(Permission.objects.filter(codename__in=rights))
    robot = program(account)
    run = worked(robot.post("runs", {"rule": str(pair.rule.pk), "asks_approval": True}).json())

    assert program(author).post(f"runs/{run.pk}/approve").status_code == 403
    assert program(administrator("second")).post(f"runs/{run.pk}/approve").status_code == 200


def test_a_plan_is_rejected(root, pair):
    run = worked(root.post("runs", {"rule": str(pair.rule.pk), "asks_approval": True}).json())

    answer = root.post(f"runs/{run.pk}/reject", {"note": "not now"})

    assert answer.json()["status"] == "rejected"
    assert pair.clients() == []


def test_a_run_is_cancelled(root, pair):
    started = root.post("runs", {"rule": str(pair.rule.pk)}).json()

    assert root.post(f"runs/{started['id']}/cancel").json()["cancel_requested_at"]
    assert worked(started).status == "cancelled"


def test_a_run_is_undone_after_a_preview(root, pair):
    run = pair.run()

    preview = root.post(f"runs/{run.pk}/undo", {"reason": "wrong"}).json()
    assert (preview["kind"], preview["mode"], preview["undoes"]) == ("undo", "dry_run", str(run.pk))
    worked(preview)
    assert len(pair.clients()) == 3
    applied = root.post(f"runs/{run.pk}/undo", {"reason": "wrong", "mode": "apply"}).json()
    worked(applied)
    assert pair.clients() == []
    nothing = root.post(f"runs/{preview['id']}/undo", {"reason": "wrong"})
    assert (nothing.status_code, nothing.json()["code"]) == (409, "run.refused")


def test_single_records_are_synced(root, pair):
    body = {"rule": str(pair.rule.pk), "records": [{"left_key": '["2"]'}]}
    worked(root.post("runs", body).json())

    assert [row[0] for row in pair.clients()] == [2]
    empty = root.post("runs", {"rule": str(pair.rule.pk), "records": [{}]})
    assert empty.status_code == 400


@pytest.fixture
def disputed(tmp_path: Path) -> TwoWayPair:
    """A two-way rule with one conflict: both sides have changed one mail address."""
    pair = TwoWayPair(tmp_path, facts={"policy": "ask"})
    pair.add_customers(2)
    pair.run()
    pair.on_left("UPDATE customers SET email = 'left@x.org' WHERE id = 1")
    pair.on_right("UPDATE clients SET mail = 'right@x.org' WHERE client_id = 1")
    pair.run()
    return pair


def decided(root: Program, conflict: Conflict, **body: object) -> object:
    return root.post(f"conflicts/{conflict.pk}/decide", {"seen": conflict.seen, **body})


def test_a_conflict_is_read_and_decided(root, disputed):
    conflict = disputed.conflicts()[0]
    shown = root.get("conflicts").json()["items"][0]
    assert shown["open_fields"] == ["mail"]
    assert (shown["left"]["mail"], shown["right"]["mail"]) == ("left@x.org", "right@x.org")
    assert root.get(f"conflicts/{conflict.pk}").json() == shown

    answer = decided(root, conflict, record="right", note="asked the customer").json()

    assert answer["conflict"]["state"] == "decided"
    assert answer["written_later"] == ""
    work_until_finished(Run.objects.get(pk=answer["run"]))
    assert disputed.customers()[0][2] == "right@x.org"
    closed = decided(root, conflict, record="left")
    assert (closed.status_code, closed.json()["code"]) == (409, "conflict.closed")
    assert root.get("conflicts", state="resolved").json()["items"][0]["id"] == str(conflict.pk)


def test_a_conflict_is_decided_field_by_field(root, disputed):
    conflict = disputed.conflicts()[0]
    choices = {"mail": {"take": "value", "value": "new@x.org"}}

    answer = decided(root, conflict, choices=choices).json()

    work_until_finished(Run.objects.get(pk=answer["run"]))
    assert disputed.customers()[0][2] == "new@x.org"
    assert disputed.clients()[0][2] == "new@x.org"


def test_a_decision_holds_for_what_was_seen_only(root, disputed):
    conflict = disputed.conflicts()[0]

    moved = root.post(f"conflicts/{conflict.pk}/decide", {"seen": "x", "record": "left"})
    unfit = decided(root, conflict, choices={"nothing": {"take": "left"}})

    assert (moved.status_code, moved.json()["code"]) == (409, "conflict.moved")
    assert (unfit.status_code, unfit.json()["code"]) == (422, "conflict.decision_unfit")


@pytest.fixture
def rejecting(tmp_path: Path) -> Pair:
    check = CheckSpec(name="mail", kind=CheckKind.PATTERN, field="mail", pattern=".*[2-9]@.*")
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, checks=[check])
    pair.add_customers(2)
    pair.run()
    return pair


def test_rejections_are_read_replayed_and_dismissed(root, rejecting):
    shown = root.get("rejections", rule=str(rejecting.rule.pk)).json()["items"]
    assert [row["check"] for row in shown] == ["mail"]
    rejecting.on_left("UPDATE customers SET email = 'n9@x.org' WHERE id = 1")

    runs = root.post("rejections/replay", {"rejections": [shown[0]["id"]]})

    assert runs.status_code == 202
    assert runs.json()[0]["trigger"] == "replay"
    worked(runs.json()[0])
    assert root.get(f"rejections/{shown[0]['id']}").json()["state"] == "resolved"
    dismissed = root.post(f"rejections/{shown[0]['id']}/dismiss", {"note": "fine"}).json()
    assert (dismissed["state"], dismissed["note"]) == ("dismissed", "fine")


def test_rejections_of_others_are_not_replayed(root, rejecting):
    mine = rejecting.open_rejections()[0]
    ids = [str(mine.pk), "01900000-0000-7000-8000-000000000000"]

    answer = root.post("rejections/replay", {"rejections": ids})

    assert answer.status_code == 404
    assert Run.objects.filter(trigger="replay").count() == 0
