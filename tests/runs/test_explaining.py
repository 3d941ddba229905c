"""Why a record did not sync: each reason is found, for the key as people write it."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.core.exceptions import PermissionDenied

from apps.engine.spec import CheckSpec, MatchFieldSpec
from apps.engine.types_sql import key_text
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.runs.services import (
    UndoScope,
    cancel_run,
    explain_record,
    plan_undo,
    record_now,
    work_until_finished,
)
from tests.people import person
from tests.platforms import PLAIN_FIELDS, Pair, TwoWayPair
from tests.runs.test_two_way_references import Staff

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    facts = {"filter": "balance < 50", "max_deletes_percent": None}
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, facts=facts)
    pair.add_customers(5)
    pair.run()
    return pair


def reasons(pair: Pair, key: str) -> list[str]:
    rule = Rule.objects.get(pk=pair.rule.pk)
    return [finding.reason.value for finding in explain_record(rule, key, actor=None)]


def test_in_step_since_a_run(pair: Pair) -> None:
    (finding,) = explain_record(pair.rule, "2", actor=None)
    assert finding.reason == "in_step"
    assert finding.run_id == pair.rule.runs.get().pk
    assert reasons(pair, '["2"]') == ["in_step"]


def test_never_seen_and_filtered_out(pair: Pair) -> None:
    assert reasons(pair, "99") == ["never_seen"]
    pair.on_left("INSERT INTO customers (id, name, balance) VALUES (7, 'rich', 90)")
    assert reasons(pair, "7") == ["filtered_out"]
    assert reasons(pair, "no number") == ["never_seen"]


def test_rejected_by_a_check_now_and_in_a_run(pair: Pair) -> None:
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 2")
    assert reasons(pair, "2") == ["rejected"]
    run = pair.run()
    now, then = explain_record(pair.rule, "2", actor=None)
    assert (now.run_id, then.run_id) == (None, run.pk)
    assert then.rejection_id is not None


def test_not_due_paused_and_waiting_for_approval(pair: Pair) -> None:
    pair.on_left("UPDATE customers SET name = 'later' WHERE id = 2")
    assert reasons(pair, "2") == ["differs"]
    rule = pair.rule
    rule.enabled, rule.schedule_kind, rule.every_minutes = True, "every", 60
    rule.save()
    assert reasons(pair, "2") == ["not_due"]
    rule.paused = True
    rule.save()
    assert reasons(pair, "2") == ["paused"]
    rule.paused, rule.approval = False, "always"
    rule.save()
    run = pair.run()
    assert reasons(pair, "2") == ["waiting", "running"]
    assert reasons(pair, "3") == ["in_step"]
    cancel_run(run, actor=None)


def test_held_after_an_undo(pair: Pair) -> None:
    pair.on_left("UPDATE customers SET name = 'oops' WHERE id = 2")
    run = pair.run()
    scope = UndoScope(run_id=run.pk)
    undo = plan_undo(pair.rule, scope, actor=None, reason="oops", mode="apply")
    work_until_finished(undo)
    assert reasons(pair, "2")[0] == "held"


def test_deleted_on_one_side_and_kept_or_marked_on_the_other(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path, facts={"on_delete": "ignore"})
    pair.add_customers(2)
    pair.run()
    pair.on_left("DELETE FROM customers WHERE id = 1")
    pair.run()
    assert reasons(pair, "1") == ["deleted"]
    pair.on_right("DELETE FROM clients WHERE client_id = 2")
    assert reasons(pair, "2") == ["differs"]

    facts = {"on_delete": "mark", "mark_field": "gone", "max_deletes_percent": None}
    marking = Pair(tmp_path, "marking", fields=PLAIN_FIELDS, facts=facts)
    marking.add_customers(2)
    marking.run()
    marking.on_left("DELETE FROM customers WHERE id = 1")
    marking.run()
    assert reasons(marking, "1")[0] == "deleted"
    marking.on_right("INSERT INTO clients (client_id, full_name) VALUES (50, 'Own')")
    assert reasons(marking, "50") == ["never_seen"]


def test_parked_in_a_conflict(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    pair.add_customers(3)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'l' WHERE id = 2")
    pair.on_right("UPDATE clients SET full_name = 'r' WHERE client_id = 2")
    pair.run()
    found = explain_record(pair.rule, "2", actor=None)
    assert found[0].reason == "conflict"
    assert "full_name" in found[0].sentence
    assert found[0].conflict_id == pair.conflicts()[0].pk


def test_a_record_that_comes_from_the_right_is_rejected_by_a_check(tmp_path: Path) -> None:
    most = CheckSpec(name="not too much", kind="range", field="balance", maximum="100")
    pair = TwoWayPair(tmp_path, checks=[most])
    pair.on_right("INSERT INTO clients (client_id, full_name, balance) VALUES (7, 'Rich', 500)")
    pair.run()
    finding = explain_record(pair.rule, "7", actor=None)[0]
    assert (finding.reason, "not too much" in finding.sentence) == ("rejected", True)
    assert finding.rejection_id == pair.open_rejections()[0].pk


def test_a_key_that_is_another_record_on_the_other_side_is_told_by_its_side(
    tmp_path: Path,
) -> None:
    staff = Staff(tmp_path)
    staff.query(staff.left, "INSERT INTO people VALUES (1, 'One', NULL)")
    staff.run()
    (number,) = staff.query(staff.right, "SELECT sid FROM staff WHERE name = 'One'")[0]
    staff.query(staff.left, "INSERT INTO people VALUES (?, 'Other', NULL)", number)
    staff.run()
    rule = Rule.objects.get()
    by_side = [
        record_now(rule, keys, actor=None).left
        for keys in ((key_text([str(number)]), ""), ("", key_text([str(number)])))
    ]
    assert [left["name"] if left else None for left in by_side] == ["Other", "One"]


def test_a_record_that_another_one_may_be_is_parked_with_it(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    save_mapping(
        pair.mapping,
        PLAIN_FIELDS,
        ["client_id"],
        match=[MatchFieldSpec(field="full_name")],
        actor=None,
    )
    pair.on_left("INSERT INTO customers (id, name) VALUES (1, 'Same')")
    for number in (7, 8):
        values = f"({number}, 'Same')"
        pair.on_right(f"INSERT INTO clients (client_id, full_name) VALUES {values}")
    pair.run()
    (conflict,) = pair.conflicts()
    finding = explain_record(pair.rule, ("", key_text(["8"])), actor=None)[0]
    assert (finding.reason, finding.conflict_id) == ("conflict", conflict.pk)


def test_the_record_as_it_is_on_both_sides_now(pair: Pair) -> None:
    pair.on_left("UPDATE customers SET name = 'new' WHERE id = 2")
    record = record_now(pair.rule, "2", actor=None)
    assert record.left is not None
    assert record.left_view is not None
    assert record.right is not None
    assert (record.left["name"], record.left_view["full_name"]) == ("new", "new")
    assert record.right["full_name"] == " Name 2 "
    assert not record.is_equal


def test_only_who_may_see_the_rule_is_told(pair: Pair) -> None:
    with pytest.raises(PermissionDenied):
        explain_record(pair.rule, "2", actor=person("nobody"))
