"""Two-way runs end to end, on SQLite: both sides converge, nothing echoes, nothing is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from apps.engine.spec import CheckSpec
from apps.engine.types_sql import key_text
from apps.ledger.models import Conflict, Link
from apps.ledger.services import Choice, Decision, decide
from apps.runs.models import Run
from apps.runs.services import decide_and_sync, request_run, work, work_until_finished
from tests.platforms import CLIENTS, TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> TwoWayPair:
    return started(tmp_path)


def started(folder: Path, **facts: Any) -> TwoWayPair:
    """Five customers on both sides, in step."""
    pair = TwoWayPair(folder, facts=facts)
    pair.add_customers(5)
    run = pair.run()
    assert (run.status, run.inserted) == ("succeeded", 5), lines(run)
    return pair


def assert_in_step(pair: TwoWayPair) -> None:
    """Both sides are equal, and the next run has nothing to do."""
    assert pair.customers() == pair.clients()
    again = pair.run()
    assert (again.status, again.planned, again.conflicts) == ("succeeded", 0, 0), lines(again)


def test_what_is_new_on_either_side_goes_to_the_other(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    pair.add_customers(3)
    pair.on_right("INSERT INTO clients (client_id, full_name, balance) VALUES (7, 'Right', 2)")
    pair.on_right("INSERT INTO clients (client_id, full_name, balance) VALUES (3, 'Met', 3.5)")
    run = pair.run()
    assert run.status == "succeeded", lines(run)
    assert (run.inserted, run.inserted_left, run.updated) == (3, 1, 1), lines(run)
    assert [row[0] for row in pair.customers()] == [1, 2, 3, 7]
    assert_in_step(pair)


def test_edits_of_different_fields_merge(pair: TwoWayPair) -> None:
    pair.on_left("UPDATE customers SET name = 'from left' WHERE id = 2")
    pair.on_right("UPDATE clients SET balance = 99 WHERE client_id = 2")
    run = pair.run()
    assert (run.updated, run.updated_left, run.status) == (2, 1, "succeeded"), lines(run)
    assert pair.customers()[1][1::2] == ("from left", 99)
    assert_in_step(pair)


def test_deletes_go_both_ways(pair: TwoWayPair) -> None:
    pair.on_left("DELETE FROM customers WHERE id = 1")
    pair.on_right("DELETE FROM clients WHERE client_id = 2")
    run = pair.run()
    assert (run.deleted, run.deleted_left) == (2, 1), lines(run)
    assert [row[0] for row in pair.clients()] == [3, 4, 5]
    (left,) = [change for change in pair.changes(run) if change.side == "left"]
    before, _ = left.images()
    assert before is not None
    assert before["changed"] is not None  # the whole record, also what is not mapped
    assert_in_step(pair)
    assert Link.objects.count() == 3


def test_an_edit_brings_a_deleted_record_back(pair: TwoWayPair) -> None:
    pair.on_left("UPDATE customers SET name = 'edited' WHERE id = 1")
    pair.on_right("DELETE FROM clients WHERE client_id = 1")
    run = pair.run()
    assert (run.inserted, run.deleted) == (1, 0), lines(run)
    assert pair.clients()[0][1] == "edited"
    assert_in_step(pair)


def conflict_on_name(pair: TwoWayPair) -> Conflict:
    pair.on_left("UPDATE customers SET name = 'left', balance = 7 WHERE id = 2")
    pair.on_right("UPDATE clients SET full_name = 'right', mail = 'm' WHERE client_id = 2")
    run = pair.run()
    assert (run.conflicts, run.updated, run.status) == (1, 2, "succeeded"), lines(run)
    (conflict,) = pair.conflicts()
    assert conflict.field_names == ["full_name"]
    assert (pair.customers()[1][1:], pair.clients()[1][1:]) == (
        ("left", "m", 7),
        ("right", "m", 7),
    )
    return conflict


@pytest.mark.parametrize(
    ("decision", "name"),
    [
        (Decision(record="left"), "left"),
        (Decision(fields={"full_name": Choice("right")}), "right"),
        (Decision(fields={"full_name": Choice("value", "third")}), "third"),
    ],
)
def test_a_conflict_parks_its_field_until_a_person_decides(
    pair: TwoWayPair, decision: Decision, name: str
) -> None:
    conflict = conflict_on_name(pair)
    again = pair.run()
    assert (again.planned, again.conflicts) == (0, 1), lines(again)
    conflict.refresh_from_db()
    decided = decide_and_sync({conflict.pk: conflict.seen}, decision, actor=None)
    assert (decided.failed, decided.later) == ({}, {})
    (run,) = decided.runs
    run = work_until_finished(run)
    assert (run.trigger, run.read) == (Run.Trigger.DECISION, 1), lines(run)
    assert run.status == "succeeded", lines(run)
    assert pair.customers()[1][1] == pair.clients()[1][1] == name
    conflict.refresh_from_db()
    assert (conflict.state, conflict.resolved_run_id) == ("resolved", run.pk)
    assert_in_step(pair)


def test_a_decision_about_other_values_asks_again(pair: TwoWayPair) -> None:
    conflict = conflict_on_name(pair)
    decide(conflict, Decision(record="left"), seen=conflict.seen, actor=None)
    pair.on_right("UPDATE clients SET full_name = 'moved' WHERE client_id = 2")
    run = pair.run()
    assert (run.planned, run.conflicts) == (0, 1), lines(run)
    assert pair.clients()[1][1] == "moved"
    assert len(pair.conflicts()) == 1


def test_a_decision_that_a_side_refuses_stays_until_it_is_written(pair: TwoWayPair) -> None:
    conflict = conflict_on_name(pair)
    pair.on_right(
        "CREATE TRIGGER refuse BEFORE UPDATE ON clients BEGIN SELECT RAISE(ABORT, 'no'); END"
    )
    decide(conflict, Decision(record="left"), seen=conflict.seen, actor=None)
    assert pair.run().rejected == 1
    conflict.refresh_from_db()
    assert conflict.state == "decided"
    pair.on_right("DROP TRIGGER refuse")
    pair.run()
    conflict.refresh_from_db()
    assert conflict.state == "resolved"
    assert_in_step(pair)


def test_a_taken_value_is_decided_for_a_side_or_asked_about_again(tmp_path: Path) -> None:
    unique = CheckSpec(name="one name", kind="unique", field="full_name")
    pair = TwoWayPair(tmp_path, checks=[unique])
    pair.add_customers(3)
    pair.run()
    pair.on_left("UPDATE customers SET name = ' Name 1 ' WHERE id = 2")
    pair.run()
    (conflict,) = pair.conflicts()
    decide(conflict, Decision(record="left"), seen=conflict.seen, actor=None)
    pair.run()
    (conflict,) = pair.conflicts()
    decide(conflict, Decision(record="right"), seen=conflict.seen, actor=None)
    pair.run()
    conflict.refresh_from_db()
    assert conflict.state == "resolved"
    assert pair.customers()[1][1] == " Name 2 "
    assert_in_step(pair)


def test_a_conflict_that_people_settle_at_the_sides_is_withdrawn(pair: TwoWayPair) -> None:
    conflict = conflict_on_name(pair)
    pair.on_right("UPDATE clients SET full_name = 'left' WHERE client_id = 2")
    assert_in_step(pair)
    conflict.refresh_from_db()
    assert conflict.state == "withdrawn"


def test_what_a_trigger_makes_of_a_record_is_no_edit(pair: TwoWayPair) -> None:
    pair.on_right(
        "CREATE TRIGGER tidy AFTER UPDATE ON clients WHEN new.full_name <> upper(new.full_name) "
        "BEGIN UPDATE clients SET full_name = upper(full_name) "
        "WHERE client_id = new.client_id; END"
    )
    pair.on_left("UPDATE customers SET name = 'quiet' WHERE id = 1")
    run = pair.run()
    assert (run.updated, run.status) == (1, "succeeded"), lines(run)
    again = pair.run()
    assert again.planned == 0, lines(again)
    assert (pair.customers()[0][1], pair.clients()[0][1]) == ("quiet", "QUIET")
    pair.on_right("UPDATE clients SET balance = 5 WHERE client_id = 1")
    run = pair.run()
    assert run.updated_left == 1, lines(run)
    assert pair.customers()[0][1::2] == ("quiet", 5)


def test_what_moves_while_a_plan_is_applied_is_planned_again(pair: TwoWayPair) -> None:
    pair.on_left("UPDATE customers SET name = 'ours' WHERE id IN (1, 2)")
    run = request_run(pair.rule, actor=None)
    while run.status != "applying":
        for part in run.partitions.filter(state="to_plan"):
            work(part.pk)
        run.refresh_from_db()
    pair.on_right("UPDATE clients SET balance = 1000 WHERE client_id = 1")
    pair.on_right("UPDATE clients SET full_name = 'theirs' WHERE client_id = 2")
    run = work_until_finished(run)
    assert (run.replanned, run.stale, run.conflicts) == (1, 0, 1), lines(run)
    assert len(pair.conflicts()) == 1
    assert pair.clients()[0][1::2] == ("ours", 1000)  # another field: it goes with the next run
    assert pair.run().updated_left == 1
    assert pair.customers()[0] == pair.clients()[0]


def test_a_record_that_the_left_cannot_hold_is_rejected_and_others_flow(pair: TwoWayPair) -> None:
    pair.on_left("CREATE UNIQUE INDEX one_mail ON customers (email)")
    pair.on_left("INSERT INTO customers (id, name, email) VALUES (50, 'Own', 'taken')")
    pair.on_right("UPDATE clients SET mail = 'taken' WHERE client_id = 1")
    pair.on_right("UPDATE clients SET full_name = 'fine' WHERE client_id = 2")
    run = pair.run()
    assert (run.updated_left, run.rejected > 0, run.status) == (1, True, "partial"), lines(run)
    assert pair.customers()[1][1] == "fine"


def cursor_pair(folder: Path, **options: Any) -> TwoWayPair:
    """Both sides are read by their modification time."""
    stamp = "gone BOOLEAN DEFAULT 0, changed TIMESTAMP DEFAULT '2026-01-01 00:00:00'"
    clients_sql = CLIENTS.replace("gone BOOLEAN DEFAULT 0", stamp)
    facts = {"delta": "cursor", "cursor_field": "changed", "right_cursor_field": "changed"}
    return TwoWayPair(folder, facts=facts, clients_sql=clients_sql, **options)


class TestCursor:
    @pytest.fixture
    def pair(self, tmp_path: Path) -> TwoWayPair:
        pair = cursor_pair(tmp_path)
        pair.add_customers(20)
        assert pair.run().inserted == 20
        pair.on_right("UPDATE clients SET changed = '2025-01-01 00:00:00' WHERE client_id < 20")
        assert pair.run().right_cursor_to  # the right side had no cursor to begin with
        return pair

    def test_reads_only_what_changed_on_either_side(self, pair: TwoWayPair) -> None:
        later = "changed = '2026-02-02 00:00:00'"
        pair.on_left(f"UPDATE customers SET name = 'l', {later} WHERE id = 5")
        pair.on_right(f"UPDATE clients SET full_name = 'r', {later} WHERE client_id = 6")
        run = pair.run()
        assert (run.updated, run.updated_left, run.status) == (2, 1, "succeeded"), lines(run)
        assert run.cursor_from
        assert run.right_cursor_from
        assert pair.customers() == pair.clients()

    def test_what_the_left_refused_of_the_right_is_tried_again(self, pair: TwoWayPair) -> None:
        pair.on_left(
            "CREATE TRIGGER refuse BEFORE INSERT ON customers WHEN NEW.balance > 100 "
            "BEGIN SELECT RAISE(ABORT, 'too much'); END"
        )
        values = "VALUES (71, 'r', 500, '2026-02-02 00:00:00')"
        pair.on_right(f"INSERT INTO clients (client_id, full_name, balance, changed) {values}")
        assert pair.run().rejected == 1
        pair.on_right("UPDATE clients SET changed = '2026-03-03 00:00:00' WHERE client_id = 6")
        assert pair.run().rejected == 1
        (rejection,) = pair.open_rejections()
        assert rejection.right_key == key_text(["71"])
        pair.on_left("DROP TRIGGER refuse")
        assert pair.run().inserted_left == 1
        assert pair.open_rejections() == []

    def test_a_value_that_another_record_sets_free_is_noticed(self, tmp_path: Path) -> None:
        unique = CheckSpec(name="one name", kind="unique", field="full_name")
        pair = cursor_pair(tmp_path, checks=[unique])
        pair.add_customers(4)
        pair.on_left("UPDATE customers SET name = 'same' WHERE id IN (1, 2)")
        assert pair.run().conflicts == 2
        pair.run()
        later = "changed = '2026-02-02 00:00:00'"
        pair.on_left(f"UPDATE customers SET name = 'free', {later} WHERE id = 1")
        run = pair.run()
        assert run.cursor_from
        assert run.inserted == 2, lines(run)
        assert pair.conflicts() == []

    def test_the_sweep_finds_deletes_and_late_commits_of_both_sides(self, pair: TwoWayPair) -> None:
        pair.on_left("DELETE FROM customers WHERE id = 5")
        pair.on_right("DELETE FROM clients WHERE client_id = 6")
        pair.on_left("INSERT INTO customers VALUES (70, 'l', 'l', 1, '2020-01-01 00:00:00')")
        pair.on_right(
            "INSERT INTO clients (client_id, full_name, balance, changed) "
            "VALUES (71, 'r', 1, '2020-01-01 00:00:00')"
        )
        assert pair.run().planned == 0
        run = pair.run(sweep=True)
        assert (run.deleted, run.inserted) == (2, 2), lines(run)
        assert pair.customers() == pair.clients()
