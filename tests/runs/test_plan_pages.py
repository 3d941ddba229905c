"""Pages of plans: approving them, undoing what they wrote, asking for it; two-way run pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from apps.ledger.models import Change
from apps.rules.services import save_rule
from apps.runs.admin import undo as undo_page
from apps.runs.models import RestoreRequest, Run
from apps.runs.services import UndoScope, request_run, work_until_finished
from tests.people import administrator, person, signed_in, viewer
from tests.two_way import TwoWay

pytestmark = pytest.mark.django_db(transaction=True)
LOOKS = ("runs.view_run", "rules.view_rule", "ledger.view_change")


@pytest.fixture
def pair(tmp_path: Path) -> TwoWay:
    pair = TwoWay(tmp_path)
    pair.add_contacts(4)
    pair.run()
    return pair


def url(name: str, *args: Any) -> str:
    return reverse(f"admin:runs_{name}", args=args)


def waiting(pair: TwoWay, **facts: Any) -> Run:
    """A plan of two changes to Billing and one to the CRM that waits."""
    for name, value in {"approval": "always", **facts}.items():
        setattr(pair.rule, name, value)
    save_rule(pair.rule, [], actor=None)
    pair.on_left("UPDATE contacts SET name = 'Renamed' WHERE id = 1")
    pair.on_left("DELETE FROM contacts WHERE id = 2")
    pair.on_right("UPDATE accounts SET phone = '+49 30 1' WHERE account_id = 3")
    run = pair.run()
    assert run.status == "waiting", run.cause
    return run


def answer(client: Client, run: Run, **data: Any) -> Any:
    return client.post(url("run_decide", run.pk), data)


def names(pair: TwoWay) -> dict[int, str]:
    return {row[0]: row[1] for row in pair.accounts()}


def change_of(run: Run, key: str) -> Change:
    return Change.objects.get(run_id=run.pk, right_key=f'["{key}"]')


# Approval


def test_a_waiting_plan_says_why_how_much_and_where(pair):
    run = waiting(pair)
    page = signed_in(administrator()).get(url("run_change", run.pk))
    plan = page.context["plan"]
    assert (plan.total, plan.summary) == (3, "2 updates, 1 delete")
    assert plan.question_all == "Write 3 changes to CRM and Billing? 1 of them delete a record."
    shown = page.content.decode()
    assert "the rule asks for approval of every plan" in shown
    assert "Apply exactly these 3" in shown
    assert "data-ls-poll" not in shown


def test_exactly_the_plan_is_applied(pair):
    run = waiting(pair)
    pair.on_left("UPDATE contacts SET name = 'Later' WHERE id = 4")
    boss = administrator()
    answer(signed_in(boss), run, what="all", note="looked at it")
    run.refresh_from_db()
    assert (run.decided_by, run.decision_note) == (boss, "looked at it")
    work_until_finished(run)
    assert names(pair) == {1: "Renamed", 3: "Maria Lopez 3", 4: "Maria Lopez 4"}


def test_the_chosen_changes_are_applied_and_the_rest_is_shown_as_not_approved(pair):
    run = waiting(pair)
    client = signed_in(administrator())
    page = client.get(url("run_changes", run.pk))
    assert 'name="change"' in page.content.decode()
    answer(client, run, what="chosen", chosen=str(change_of(run, "1").pk))
    work_until_finished(run)
    assert names(pair)[1] == "Renamed"
    assert 2 in names(pair)
    shown = client.get(url("run_changes", run.pk) + "?outcome=skipped")
    assert {change.right_key for change, _ in shown.context["changes"]} == {'["2"]', '["3"]'}


def test_what_the_filter_shows_is_applied(pair):
    run = waiting(pair)
    client = signed_in(administrator())
    page = client.get(url("run_changes", run.pk) + "?side=left")
    assert (page.context["passing"], page.context["total"]) == (1, 3)
    assert "Write 1 changes to CRM and Billing?" in page.context["filter_question"]
    answer(client, run, what="filter", side="left")
    work_until_finished(run)
    assert pair.contacts()[1][3] == "+49 30 1"
    assert names(pair)[1] == "Maria Lopez 1"


@pytest.mark.parametrize("data", [{"what": "chosen"}, {"what": "nonsense"}, {}])
def test_an_answer_that_names_nothing_decides_nothing(pair, data):
    run = waiting(pair)
    answer(signed_in(administrator()), run, **data)
    run.refresh_from_db()
    assert run.status == "waiting"


def test_a_rejected_plan_says_who_and_why(pair):
    run = waiting(pair)
    client = signed_in(administrator())
    answer(client, run, what="reject", note="wrong list")
    run.refresh_from_db()
    assert run.status == "rejected"
    shown = client.get(url("run_change", run.pk)).content.decode()
    assert "Rejected by root" in shown
    assert "wrong list" in shown


def test_approving_needs_its_permission_and_no_get_decides(pair):
    run = waiting(pair)
    looker = signed_in(person("looker", *LOOKS))
    assert answer(looker, run, what="all").status_code == 403
    page = looker.get(url("run_changes", run.pk)).content.decode()
    assert 'name="change"' not in page
    assert "Apply exactly" not in page
    assert signed_in(administrator()).get(url("run_decide", run.pk)).status_code == 405
    run.refresh_from_db()
    assert run.status == "waiting"


def test_four_eyes_are_explained_to_who_asked(pair):
    waiting(pair, four_eyes=True)
    Run.objects.filter(status="waiting").update(status="cancelled")
    asker = person("asker", *LOOKS, "runs.approve_run", "rules.run_rule")
    run = work_until_finished(request_run(pair.rule, actor=asker))
    page = signed_in(asker).get(url("run_change", run.pk)).content.decode()
    assert "four eyes" in page
    assert "Apply exactly" not in page
    answer(signed_in(asker), run, what="all")
    run.refresh_from_db()
    assert run.status == "waiting"


def test_waiting_plans_stand_in_the_list_and_on_the_overview(pair):
    run = waiting(pair)
    client = signed_in(administrator())
    page = client.get(url("run_changelist"))
    queries = {chip.label: chip.query for chip in page.context["chips"]}
    found = client.get(f"{url('run_changelist')}?{queries['Waiting for approval']}")
    assert list(found.context["cl"].result_list) == [run]
    overview = client.get(reverse("admin:index"))
    line = next(a for a in overview.context["attention"] if "wait for approval" in a.text)
    assert line.url == url("run_change", run.pk)
    assert overview.context["running"] == []


# Two-way run pages


def test_the_counters_name_both_sides(pair):
    pair.on_left("UPDATE contacts SET name = 'L' WHERE id = 1")
    pair.on_right("UPDATE accounts SET phone = 'R' WHERE account_id = 2")
    pair.on_left("UPDATE contacts SET credit = 1 WHERE id = 3")
    pair.on_right("UPDATE accounts SET credit = 2 WHERE account_id = 3")
    run = pair.run()
    client = signed_in(administrator())
    page = client.get(url("run_change", run.pk))
    found = {counter.label: counter for counter in page.context["counters"]}
    assert [(s.side, s.value) for s in found["Updated"].shares] == [("Billing", 1), ("CRM", 1)]
    assert found["Conflicts"].value == 1
    inbox = client.get(found["Conflicts"].url)
    assert [c.field_names for c in inbox.context["page"].shown] == [["credit"]]
    left = client.get(url("run_changes", run.pk) + "?side=left")
    assert [change.left_key for change, _ in left.context["changes"]] == ['["2"]']
    assert "in CRM" in left.content.decode()


# Undo


def test_an_undo_is_previewed_then_done_with_a_reason(pair):
    pair.on_left("UPDATE contacts SET name = 'Wrong' WHERE id < 4")
    run = pair.run()
    pair.on_right("UPDATE accounts SET display_name = 'Since' WHERE account_id = 3")
    client = signed_in(administrator())
    assert "Undo…" in client.get(url("run_change", run.pk)).content.decode()
    to_preview = client.post(url("run_undo"), {"run": run.pk})
    preview = Run.objects.get(kind="undo")
    assert to_preview["Location"] == url("run_change", preview.pk)
    work_until_finished(preview)
    shown = client.get(url("run_change", preview.pk))
    undo = shown.context["undo"]
    assert (undo.to_write, undo.edited, undo.target, undo.can_apply) == (2, 1, "Billing", True)
    assert names(pair)[1] == "Wrong"

    client.post(url("run_undo_apply", preview.pk), {"reason": " "})
    assert Run.objects.filter(kind="undo").count() == 1
    client.post(url("run_undo_apply", preview.pk), {"reason": "ticket 7"})
    done = work_until_finished(Run.objects.get(kind="undo", mode="apply"))
    assert done.reason == "ticket 7"
    assert names(pair) == {
        1: "Maria Lopez 1",
        2: "Maria Lopez 2",
        3: "Since",
        4: "Maria Lopez 4",
    }
    assert "Undone" in client.get(url("run_change", run.pk)).content.decode()
    result = client.get(url("run_change", done.pk)).content.decode()
    assert "1 record had been edited since" in result
    assert url("run_change", run.pk) in result


def test_a_large_undo_asks_for_the_number(pair, monkeypatch):
    monkeypatch.setattr(undo_page, "TYPED_FROM", 2)
    pair.on_left("UPDATE contacts SET name = 'Wrong'")
    run = pair.run()
    client = signed_in(administrator())
    client.post(url("run_undo"), {"run": run.pk})
    preview = work_until_finished(Run.objects.get(kind="undo"))
    assert "Type 4 to confirm" in client.get(url("run_change", preview.pk)).content.decode()
    for typed in ("", "3"):
        client.post(url("run_undo_apply", preview.pk), {"reason": "x", "count": typed})
    assert not Run.objects.filter(kind="undo", mode="apply").exists()
    client.post(url("run_undo_apply", preview.pk), {"reason": "x", "count": "4"})
    assert Run.objects.filter(kind="undo", mode="apply").exists()


def test_chosen_changes_are_undone(pair):
    pair.on_left("UPDATE contacts SET name = 'Wrong' WHERE id < 4")
    run = pair.run()
    client = signed_in(administrator())
    chosen = [change_of(run, "1").pk, change_of(run, "2").pk]
    client.post(url("run_undo"), {"run": run.pk, "what": "chosen", "change": chosen})
    preview = Run.objects.get(kind="undo")
    assert UndoScope.from_json(preview.undo_scope).change_ids == tuple(chosen)
    nothing = client.post(url("run_undo"), {"run": run.pk, "what": "chosen"}, follow=True)
    assert "Nothing was chosen" in nothing.content.decode()
    assert Run.objects.filter(kind="undo").count() == 1


def test_an_undo_that_makes_no_sense_is_refused_with_a_reason(pair):
    client = signed_in(administrator())
    assert client.post(url("run_undo"), {"run": "x"}).status_code == 404
    dry = pair.run(mode="dry_run")
    page = client.post(url("run_undo"), {"run": dry.pk}, follow=True).content.decode()
    assert "othing was written that could be taken back" in page
    answer = client.post(url("run_undo_apply", dry.pk), {"reason": "x"}, follow=True)
    assert "no preview of an undo" in answer.content.decode()
    assert client.get(url("run_undo")).status_code == 405


def test_who_may_only_look_can_undo_nothing(pair):
    run = pair.run()
    pair.on_left("UPDATE contacts SET name = 'Wrong'")
    run = pair.run()
    client = signed_in(viewer())
    assert "Undo…" not in client.get(url("run_change", run.pk)).content.decode()
    assert client.post(url("run_undo"), {"run": run.pk}).status_code == 403
    assert client.post(url("run_undo_apply", run.pk), {"reason": "x"}).status_code == 403
    assert not Run.objects.filter(kind="undo").exists()


# Restore requests


def supporter() -> Client:
    rights = (*LOOKS, "runs.add_restorerequest", "runs.view_restorerequest")
    return signed_in(person("support", *rights))


def asked(pair: TwoWay) -> tuple[Run, RestoreRequest]:
    pair.on_left("UPDATE contacts SET name = 'Wrong' WHERE id = 1")
    run = pair.run()
    supporter().post(url("run_undo"), {"run": run.pk, "reason": "the customer complains"})
    return run, RestoreRequest.objects.get()


def test_who_may_not_write_sends_a_request_with_a_reason(pair):
    pair.on_left("UPDATE contacts SET name = 'Wrong' WHERE id = 1")
    run = pair.run()
    client = supporter()
    assert "Ask for an undo…" in client.get(url("run_change", run.pk)).content.decode()
    page = client.post(url("run_undo"), {"run": run.pk})
    assert "Send the request" in page.content.decode()
    assert not RestoreRequest.objects.exists()
    chosen = {"run": run.pk, "what": "chosen", "change": change_of(run, "1").pk}
    page = client.post(url("run_undo"), chosen)
    carried = dict(page.context["carried"])
    client.post(url("run_undo"), {**carried, "ask": "1", "reason": "wrong name"})
    request = RestoreRequest.objects.get()
    assert request.reason == "wrong name"
    assert UndoScope.from_json(request.scope).change_ids == (change_of(run, "1").pk,)
    assert not Run.objects.filter(kind="undo").exists()


def test_an_approved_request_is_carried_out(pair):
    run, request = asked(pair)
    client = signed_in(administrator())
    page = client.get(url("restorerequest_change", request.pk)).content.decode()
    assert "the customer complains" in page
    client.post(url("restorerequest_decide", request.pk), {"approve": "1", "note": "ok"})
    work_until_finished(Run.objects.get(kind="undo"))
    assert names(pair)[1] == "Maria Lopez 1"
    request.refresh_from_db()
    assert (request.state, request.undo.undoes) == ("approved", run)
    assert client.get(url("restorerequest_changelist")).status_code == 200


def test_a_request_is_declined_with_an_answer_or_withdrawn(pair):
    _, request = asked(pair)
    address = url("restorerequest_decide", request.pk)
    client = signed_in(administrator())
    client.post(address, {"withdraw": "1"})
    request.refresh_from_db()
    assert request.state == "open"
    client.post(address, {"decline": "1", "note": "it is right"})
    request.refresh_from_db()
    assert (request.state, request.note) == ("declined", "it is right")
    again = client.post(address, {"approve": "1"}, follow=True).content.decode()
    assert "already" in again


def test_answering_a_request_needs_its_permission(pair):
    _, request = asked(pair)
    client = signed_in(viewer("looks only"))
    page = client.get(url("restorerequest_change", request.pk)).content.decode()
    assert 'name="approve"' not in page
    for what in ("approve", "decline", "withdraw"):
        address = url("restorerequest_decide", request.pk)
        assert client.post(address, {what: "1"}).status_code == 403
    request.refresh_from_db()
    assert request.state == "open"


def test_an_approver_may_look_at_the_preview_of_a_request(pair):
    run, request = asked(pair)
    client = signed_in(administrator())
    client.post(url("run_undo"), {"run": run.pk, "rule": request.rule_id, "preview": "1"})
    assert Run.objects.get(kind="undo").mode == "dry_run"
    request.refresh_from_db()
    assert request.state == "open"


# Verification


def test_a_verification_shows_accuracy_by_field_and_proposes_a_repair(pair):
    pair.on_right("UPDATE accounts SET phone = 'x' WHERE account_id = 1")
    client = signed_in(administrator())
    client.post(reverse("admin:rules_rule_do", args=(pair.rule.pk, "verify")))
    run = work_until_finished(Run.objects.get(mode="verify"))
    page = client.get(url("run_change", run.pk))
    found = page.context["verification"]
    assert (found.compared, found.equal, found.percent) == (4, 3, 75.0)
    assert [(f.name, f.different, f.percent) for f in found.fields] == [("phone", 1, 75.0)]
    looker = signed_in(person("looker", *LOOKS))
    assert "Propose repair" not in looker.get(url("run_change", run.pk)).content.decode()
    assert looker.post(url("run_repair", run.pk)).status_code == 403
    client.post(url("run_repair", run.pk))
    repair = work_until_finished(Run.objects.get(trigger="repair"))
    assert repair.status == "waiting"
    assert client.get(url("run_repair", run.pk)).status_code == 405
