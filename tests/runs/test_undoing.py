"""Undo puts back exactly what was written, except where somebody has edited since."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import PermissionDenied

from apps.core.clock import now
from apps.engine.spec import FieldPolicySpec
from apps.ledger.models import Link, Segment
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import (
    UndoScope,
    apply_preview,
    approve_restore,
    approve_run,
    decline_restore,
    plan_undo,
    request_restore,
    work_until_finished,
)
from apps.runs.services.errors import RunRefused
from apps.runs.services.restoring import RequestClosed
from tests.people import person
from tests.platforms import CLIENTS, PLAIN_FIELDS, Pair, TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, facts={"max_deletes_percent": None})
    pair.add_customers(60)
    pair.run()
    return pair


def table(path: Path, name: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as database:
        return list(database.execute(f"SELECT * FROM {name} ORDER BY 1"))


def undo(pair: Pair, scope: UndoScope, mode: str = Run.Mode.APPLY) -> Run:
    run = plan_undo(pair.rule, scope, actor=None, reason="a mistake", mode=mode)
    return work_until_finished(run)


def edited(pair: Pair) -> Run:
    """A run that inserts, updates and deletes."""
    pair.add_customers(20, start=101)
    pair.on_left("UPDATE customers SET name = 'new', balance = NULL WHERE id <= 30")
    pair.on_left("DELETE FROM customers WHERE id BETWEEN 31 AND 40")
    run = pair.run()
    assert (run.inserted, run.updated, run.deleted) == (20, 30, 10), lines(run)
    return run


def test_undo_of_a_run_restores_the_exact_table_and_stays(pair: Pair) -> None:
    pair.on_right("UPDATE clients SET note = 'by hand', gone = 1 WHERE client_id = 35")
    before = table(pair.right_path, "clients")
    run = edited(pair)
    undone = undo(pair, UndoScope(run_id=run.pk))
    assert (undone.status, undone.kind, undone.undoes) == ("succeeded", "undo", run), lines(undone)
    assert (undone.deleted, undone.updated, undone.inserted) == (20, 30, 10), lines(undone)
    assert table(pair.right_path, "clients") == before
    assert {change.cause for change in pair.changes(undone)} == {"undone"}
    again = pair.run()
    assert (again.planned, again.status) == (0, "succeeded"), lines(again)
    assert table(pair.right_path, "clients") == before
    assert Link.objects.filter(state="held").count() == 60


def test_undo_of_a_run_whose_changes_are_in_segments(pair: Pair, settings: Any) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "LEDGER_ROWS_LIMIT": 10}
    before = table(pair.right_path, "clients")
    run = edited(pair)
    assert Segment.objects.filter(parts__run_id=run.pk).exists()
    undone = undo(pair, UndoScope(run_id=run.pk))
    assert (undone.deleted, undone.updated, undone.inserted) == (20, 30, 10), lines(undone)
    assert table(pair.right_path, "clients") == before


def test_what_was_edited_since_is_reported_and_the_rest_is_put_back(pair: Pair) -> None:
    run = edited(pair)
    pair.on_right("UPDATE clients SET full_name = 'by hand' WHERE client_id IN (1, 2, 101)")
    pair.on_right("UPDATE clients SET mail = 'other field' WHERE client_id = 3")
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (31, 'another one')")
    preview = undo(pair, UndoScope(run_id=run.pk), mode=Run.Mode.DRY_RUN)
    assert (preview.status, preview.stale, preview.planned) == ("planned", 4, 60), lines(preview)
    undone = undo(pair, UndoScope(run_id=run.pk))
    assert (undone.status, undone.stale, undone.written) == ("partial", 4, 56), lines(undone)
    stale = {change.right_key for change in pair.changes(undone) if change.outcome == "stale"}
    assert stale == {'["1"]', '["2"]', '["101"]', '["31"]'}
    rows = {row[0]: row[1:3] for row in pair.clients()}
    assert rows[1][0] == rows[101][0] == "by hand"
    assert rows[3] == (" Name 3 ", "other field")


def test_a_held_record_flows_again_once_it_is_edited(pair: Pair) -> None:
    run = edited(pair)
    undo(pair, UndoScope(run_id=run.pk))
    pair.on_left("UPDATE customers SET name = 'edited after the undo' WHERE id IN (1, 101)")
    again = pair.run()
    assert (again.updated, again.inserted, again.deleted) == (1, 1, 0), lines(again)
    assert Link.objects.filter(state="held").count() == 58


def test_an_undo_can_be_undone(pair: Pair) -> None:
    run = edited(pair)
    after = table(pair.right_path, "clients")
    undone = undo(pair, UndoScope(run_id=run.pk))
    redone = undo(pair, UndoScope(run_id=undone.pk))
    assert redone.status == "succeeded", lines(redone)
    assert table(pair.right_path, "clients") == after


def test_some_changes_of_a_run(pair: Pair) -> None:
    run = edited(pair)
    chosen = [change.pk for change in pair.changes(run) if change.right_key in ('["1"]', '["2"]')]
    undone = undo(pair, UndoScope(run_id=run.pk, change_ids=tuple(chosen)))
    assert undone.written == 2, lines(undone)
    assert [row[1] for row in pair.clients()][:3] == [" Name 1 ", " Name 2 ", "new"]


def test_one_record_goes_back_to_a_version_or_a_moment(pair: Pair) -> None:
    versions = []
    for name in ("one", "two", "three"):
        pair.on_left("UPDATE customers SET name = ? WHERE id IN (5, 6)", name)
        run = pair.run()
        versions.append((now(), run))
    first = next(c for c in pair.changes(versions[0][1]) if c.right_key == '["5"]')
    undone = undo(pair, UndoScope(right_key='["5"]', after_change=first.pk))
    assert undone.written == 1, lines(undone)
    undone = undo(pair, UndoScope(left_key='["6"]', as_of=versions[1][0]))
    assert undone.written == 1, lines(undone)
    rows = {row[0]: row[1] for row in pair.clients()}
    assert (rows[5], rows[6]) == ("one", "two")
    undo(pair, UndoScope(left_key='["6"]'))
    assert 6 not in {row[0] for row in pair.clients()}


def renamed(pair: Pair, name: str) -> Run:
    """A run that writes another name to the first record."""
    pair.on_left("UPDATE customers SET name = ? WHERE id = 1", name)
    return pair.run()


def test_an_undo_takes_back_what_its_preview_showed_and_nothing_written_after_it(
    pair: Pair,
) -> None:
    (first,) = pair.changes(renamed(pair, "one"))
    renamed(pair, "two")
    preview = undo(pair, UndoScope(right_key='["1"]', after_change=first.pk), Run.Mode.DRY_RUN)
    assert (preview.planned, preview.stale) == (1, 0), lines(preview)
    renamed(pair, "three, which nobody looked at")
    undone = work_until_finished(apply_preview(preview, actor=None, reason="wrong"))
    assert (undone.updated, undone.stale) == (0, 1), lines(undone)
    assert pair.clients()[0][1] == "three, which nobody looked at"


def test_a_restore_request_is_about_what_was_written_until_it_was_sent(pair: Pair) -> None:
    (first,) = pair.changes(renamed(pair, "one"))
    renamed(pair, "two")
    scope = UndoScope(right_key='["1"]', after_change=first.pk)
    request = request_restore(pair.rule, scope, actor=None, reason="wrong name")
    renamed(pair, "three, which nobody asked about")
    undone = work_until_finished(approve_restore(request, actor=None))
    assert (undone.updated, undone.stale) == (0, 1), lines(undone)
    assert pair.clients()[0][1] == "three, which nobody asked about"


def test_undo_on_both_sides(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    pair.add_customers(10)
    pair.run()
    before = (pair.customers(), pair.clients())
    pair.on_left("UPDATE customers SET name = 'left' WHERE id <= 3")
    pair.on_right("UPDATE clients SET balance = 9 WHERE client_id BETWEEN 3 AND 5")
    pair.on_right("DELETE FROM clients WHERE client_id = 6")
    edits = (pair.customers(), pair.clients())
    run = pair.run()
    assert (run.updated, run.deleted_left) == (6, 1), lines(run)
    undone = undo(pair, UndoScope(run_id=run.pk))
    assert (undone.status, undone.written) == ("succeeded", 7), lines(undone)
    assert (pair.customers(), pair.clients()) == edits != before
    again = pair.run()
    assert again.planned == 0, lines(again)
    pair.on_left("UPDATE customers SET email = 'e' WHERE id = 1")
    flows = pair.run()
    assert flows.written == 1, lines(flows)
    assert pair.clients()[0][1:3] == (" Name 1 ", "e")


def test_a_version_is_what_a_run_left_on_both_sides(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    counted = FieldPolicySpec(field="balance", policy="counter")
    save_rule(pair.rule, [], [counted], actor=None)
    pair.add_customers(1)
    pair.run()
    pair.on_left("UPDATE customers SET balance = balance + 10")
    pair.on_right("UPDATE clients SET balance = balance + 5")
    halves = pair.changes(pair.run())
    assert [half.side for half in halves] == ["right", "left"]
    merged = pair.customers()
    pair.on_left("UPDATE customers SET name = 'later'")
    pair.run()
    scope = UndoScope(left_key='["1"]', right_key='["1"]', after_change=halves[0].pk)
    work_until_finished(plan_undo(pair.rule, scope, actor=None, reason="back", mode="apply"))
    assert (pair.clients(), pair.customers()[0][3]) == (merged, merged[0][3])


def test_an_undo_leaves_edits_of_other_fields_to_the_next_run(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    pair.add_customers(4)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'left' WHERE id = 1")
    pair.on_right("UPDATE clients SET balance = 9 WHERE client_id = 2")
    run = pair.run()
    pair.on_left("UPDATE customers SET email = 'later' WHERE id = 1")
    pair.on_right("UPDATE clients SET mail = 'too' WHERE client_id = 2")

    undone = undo(pair, UndoScope(run_id=run.pk))
    assert undone.written == 2, lines(undone)
    flows = pair.run()
    assert flows.written == 2, lines(flows)
    assert pair.clients()[0][1:3] == (" Name 1 ", "later")
    assert pair.customers()[1][2:] == ("too", pair.customers()[1][3])
    assert pair.customers()[0][1] == "left"
    assert pair.run().planned == 0


def test_undo_needs_its_own_permission_and_something_to_undo(pair: Pair) -> None:
    run = edited(pair)
    runner = person("runner", "runs.view_run", "rules.view_rule", "rules.run_rule")
    with pytest.raises(PermissionDenied):
        plan_undo(pair.rule, UndoScope(run_id=run.pk), actor=runner, reason="x")
    with pytest.raises(RunRefused, match="nothing was written"):
        plan_undo(pair.rule, UndoScope(right_key='["999"]'), actor=None, reason="x")


class TestRestoreRequests:
    @pytest.fixture
    def support(self) -> Any:
        return person("support", "rules.view_rule", "runs.view_run", "runs.add_restorerequest")

    @pytest.fixture
    def approver(self) -> Any:
        rights = ("runs.decide_restorerequest", "runs.undo_run", "runs.add_restorerequest")
        return person("approver", "rules.view_rule", "runs.view_run", *rights)

    def test_an_approver_lets_the_undo_run(self, pair: Pair, support: Any, approver: Any) -> None:
        pair.on_left("UPDATE customers SET name = 'oops' WHERE id = 5")
        run = pair.run()
        scope = UndoScope(run_id=run.pk)
        request = request_restore(pair.rule, scope, actor=support, reason="customer called")
        with pytest.raises(PermissionDenied):
            approve_restore(request, actor=support)
        undone = work_until_finished(approve_restore(request, actor=approver))
        assert (undone.status, undone.reason) == ("succeeded", "customer called"), lines(undone)
        assert pair.clients()[4][1] == " Name 5 "
        request.refresh_from_db()
        assert (request.state, request.undo, request.decided_by) == ("approved", undone, approver)
        with pytest.raises(RequestClosed):
            decline_restore(request, actor=approver)

    def test_nobody_approves_their_own_request(self, pair: Pair, approver: Any) -> None:
        scope = UndoScope(left_key='["5"]')
        request = request_restore(pair.rule, scope, actor=approver, reason="why not")
        with pytest.raises(PermissionDenied, match="somebody else"):
            approve_restore(request, actor=approver)
        decline_restore(request, actor=approver, note="no")
        request.refresh_from_db()
        assert (request.state, request.note) == ("declined", "no")
        assert Run.objects.filter(kind="undo").count() == 0

    def test_a_reason_is_needed(self, pair: Pair, support: Any) -> None:
        with pytest.raises(RunRefused, match="reason"):
            request_restore(pair.rule, UndoScope(left_key='["5"]'), actor=support, reason=" ")


def test_what_was_brought_back_stays_when_single_records_are_synced(pair: Pair) -> None:
    """The record is gone on the left; only its link's state says that it stays on the right."""
    run = edited(pair)
    undo(pair, UndoScope(run_id=run.pk))
    before = table(pair.right_path, "clients")
    pairs = [(c.left_key, c.right_key) for c in pair.changes(run) if c.operation == "delete"]
    again = pair.run(keys=pairs)
    assert (again.planned, again.status) == (0, "succeeded"), lines(again)
    assert table(pair.right_path, "clients") == before


MEMO = CLIENTS.replace("note TEXT DEFAULT 'own'", "note TEXT DEFAULT 'own', memo TEXT")


def test_an_edit_of_a_field_that_the_insert_left_empty_counts_as_edited(tmp_path: Path) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, clients_sql=MEMO)
    pair.add_customers(3)
    run = pair.run()
    pair.on_right("UPDATE clients SET memo = 'a person wrote this' WHERE client_id = 2")
    preview = undo(pair, UndoScope(run_id=run.pk), mode=Run.Mode.DRY_RUN)
    assert (preview.planned, preview.stale) == (3, 1), lines(preview)
    undone = undo(pair, UndoScope(run_id=run.pk))
    assert (undone.deleted, undone.stale) == (2, 1), lines(undone)
    assert [row[0] for row in pair.clients()] == [2]


def test_what_a_person_wrote_before_us_is_not_ours_to_take_back(tmp_path: Path) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(2)
    run = pair.run(asks_approval=True)
    pair.on_right(
        "INSERT INTO clients (client_id, full_name, mail, balance) "
        "VALUES (1, ' Name 1 ', 'N1@Example.org', 1.5)"
    )
    approve_run(run, actor=None)
    run = work_until_finished(run)
    assert (run.inserted, run.stale) == (1, 1), lines(run)
    undo(pair, UndoScope(run_id=run.pk))
    assert [row[0] for row in pair.clients()] == [1]


def test_an_undo_does_not_touch_fields_that_no_mapping_names(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    pair.add_customers(4)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'left' WHERE id = 1")
    pair.on_right("UPDATE clients SET balance = 9 WHERE client_id = 2")
    run = pair.run()
    pair.on_right("UPDATE clients SET note = 'called on Monday' WHERE client_id = 1")
    pair.on_left("UPDATE customers SET changed = '2030-01-01 00:00:00' WHERE id = 2")
    undone = undo(pair, UndoScope(run_id=run.pk))
    assert (undone.written, undone.stale) == (2, 0), lines(undone)
    client, customer = table(pair.right_path, "clients")[0], table(pair.left_path, "customers")[1]
    assert (client[1], client[4]) == (" Name 1 ", "called on Monday")
    assert (customer[3], customer[4]) == (2.5, "2030-01-01 00:00:00")
    assert {change.field_names[0] for change in pair.changes(undone)} == {"full_name", "balance"}


class TestApproval:
    """A rule that asks for approval of every plan asks for that of an undo, too."""

    RIGHTS = ("runs.view_run", "runs.undo_run", "rules.view_rule", "runs.decide_restorerequest")

    def made(self, folder: Path, **facts: Any) -> tuple[Pair, UndoScope]:
        pair = Pair(folder, fields=PLAIN_FIELDS, facts={"approval": "always", **facts})
        pair.add_customers(2)
        run = pair.run()
        approve_run(run, actor=None)
        work_until_finished(run)
        return pair, UndoScope(run_id=run.pk)

    def undone_by(self, pair: Pair, scope: UndoScope, actor: Any) -> Run:
        mode = Run.Mode.APPLY
        return work_until_finished(
            plan_undo(pair.rule, scope, actor=actor, reason="a mistake", mode=mode)
        )

    def test_it_waits_for_somebody_who_may_approve(self, tmp_path: Path) -> None:
        pair, scope = self.made(tmp_path)
        run = self.undone_by(pair, scope, person("support", *self.RIGHTS))
        assert (run.status, len(pair.clients())) == ("waiting", 2), lines(run)
        approve_run(run, actor=person("boss", *self.RIGHTS, "runs.approve_run"))
        run = work_until_finished(run)
        assert (run.status, run.deleted, pair.clients()) == ("succeeded", 2, []), lines(run)

    def test_who_may_approve_has_seen_the_preview(self, tmp_path: Path) -> None:
        pair, scope = self.made(tmp_path)
        run = self.undone_by(pair, scope, person("boss", *self.RIGHTS, "runs.approve_run"))
        assert (run.status, run.deleted) == ("succeeded", 2), lines(run)

    def test_four_eyes_are_another_persons(self, tmp_path: Path) -> None:
        pair, scope = self.made(tmp_path, four_eyes=True)
        boss, other = (person(n, *self.RIGHTS, "runs.approve_run") for n in ("boss", "other"))
        run = self.undone_by(pair, scope, boss)
        assert run.status == "waiting", lines(run)
        with pytest.raises(PermissionDenied, match="asked for the run"):
            approve_run(run, actor=boss)
        approve_run(run, actor=other)
        assert work_until_finished(run).deleted == 2

    def test_who_asked_for_the_restore_was_the_other_person(self, tmp_path: Path) -> None:
        pair, scope = self.made(tmp_path, four_eyes=True)
        support = person("support", *self.RIGHTS, "runs.add_restorerequest")
        boss = person("boss", *self.RIGHTS, "runs.approve_run")
        request = request_restore(pair.rule, scope, actor=support, reason="customer called")
        run = work_until_finished(approve_restore(request, actor=boss))
        assert (run.status, run.deleted) == ("succeeded", 2), lines(run)
