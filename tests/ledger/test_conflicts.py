"""Conflicts: met, refreshed, decided, withdrawn, resolved."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pytest
from django.core.exceptions import PermissionDenied

from apps.ledger.models import Conflict
from apps.ledger.selectors import ConflictFilter, conflict_counts, conflict_page, decisions_for
from apps.ledger.services import (
    Choice,
    ConflictClosed,
    ConflictMoved,
    Decision,
    DecisionUnfit,
    WorkIdentity,
    decide,
    decide_many,
    record_conflicts,
    resolve_conflicts,
    tried_decisions,
    withdraw_all_conflicts,
    withdraw_conflicts,
)
from tests.ledger.plans import key, work
from tests.people import administrator, viewer

pytestmark = pytest.mark.django_db

SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("kind", "left_key", "right_key", "left", "right")]
    + [("fields", pa.list_(pa.string())), ("base_left", pa.string()), ("base_right", pa.string())]
    + [("candidates", pa.string())]
)


def met(*numbers: int, right: str = "R", **more: Any) -> pa.Table:
    rows = [
        {
            "kind": "fields",
            "left_key": key(number),
            "right_key": key(f"r{number}"),
            "fields": ["name", "mail"],
            "left": f'{{"name":"L{number}","mail":"l"}}',
            "right": f'{{"name":"{right}{number}","mail":"r"}}',
            "base_left": '{"name":"B","mail":"b"}',
            "base_right": '{"name":"B","mail":"b"}',
        }
        | more
        for number in numbers
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def next_run(identity: WorkIdentity) -> WorkIdentity:
    return work(identity.rule_id)


def only() -> Conflict:
    return Conflict.objects.get()


def test_a_conflict_shows_all_three_images():
    record_conflicts(work(), met(1))

    conflict = only()
    assert conflict.left == {"name": "L1", "mail": "l"}
    assert conflict.right == {"name": "R1", "mail": "r"}
    assert conflict.base == ({"name": "B", "mail": "b"}, {"name": "B", "mail": "b"})
    assert conflict.field_names == ["name", "mail"]


def test_values_that_a_side_replaced_while_the_conflict_waited_are_kept():
    first = work()
    record_conflicts(first, met(1))
    record_conflicts(next_run(first), met(1))  # the same values: nothing to keep
    assert not only().earlier.exists()
    second = next_run(first)
    record_conflicts(second, met(1, right="later "))
    withdraw_all_conflicts(first.rule_id, next_run(first).run_id)
    record_conflicts(next_run(first), met(1, right="last "))

    kept = [(e.run_id, e.left["name"], e.right["name"]) for e in only().earlier.all()]
    assert kept[0] == (second.run_id, "L1", "later 1")
    assert [right for _, _, right in kept] == ["later 1", "R1"]
    assert only().right == {"name": "last 1", "mail": "r"}


def test_meeting_it_again_refreshes_the_one_row():
    mine = work()
    record_conflicts(mine, met(1, 2))
    later = next_run(mine)

    assert record_conflicts(later, met(1, 2, right="changed ")) == 2

    assert Conflict.objects.count() == 2
    first = Conflict.objects.get(left_key=key(1))
    assert first.right["name"] == "changed 1"
    assert (first.first_run_id, first.run_id) == (mine.run_id, later.run_id)


def test_a_decision_stays_while_the_values_do():
    mine = work()
    record_conflicts(mine, met(1))
    decide(only(), Decision(record="left"), seen=only().seen, actor=None)

    assert record_conflicts(next_run(mine), met(1)) == 0
    assert only().state == "decided"
    assert record_conflicts(next_run(mine), met(1, right="other ")) == 1
    assert (only().state, only().decision) == ("open", None)


def test_a_value_that_moved_while_the_person_looked_is_caught():
    mine = work()
    record_conflicts(mine, met(1))
    looked_at = only()
    record_conflicts(next_run(mine), met(1, right="other "))

    with pytest.raises(ConflictMoved):
        decide(looked_at, Decision(record="left"), seen=looked_at.seen, actor=None)

    assert only().state == "open"


def test_deciding_asks_for_its_permission_on_the_object():
    record_conflicts(work(), met(1))
    person = administrator()

    with pytest.raises(PermissionDenied):
        decide(only(), Decision(record="left"), seen=only().seen, actor=viewer())
    decided = decide(only(), Decision(record="left"), seen=only().seen, actor=person, note="why")

    assert (decided.decided_by_id, decided.note) == (person.pk, "why")


def test_runs_are_told_what_was_decided():
    mine = work()
    record_conflicts(mine, met(1, 2))
    conflict = Conflict.objects.get(left_key=key(1))
    choice = Decision(fields={"name": Choice("right"), "mail": Choice("value", None)})
    decide(conflict, choice, seen=conflict.seen, actor=None)

    (row,) = decisions_for(mine.rule_id).to_pylist()

    assert (row["left_key"], row["right_key"], row["seen"]) == (key(1), key("r1"), conflict.seen)
    assert row["decision"] == (
        '{"fields":{"name":{"take":"right"},"mail":{"take":"value","value":null}}}'
    )
    assert decisions_for(uuid4()).num_rows == 0


@pytest.mark.parametrize(
    "choice",
    [
        Decision(),
        Decision(record="middle"),
        Decision(fields={"name": Choice("left")}),
        Decision(fields={"name": Choice("left"), "mail": Choice("up")}),
        Decision(record="left", fields={"nothing": Choice("value", "x")}),
        Decision(match="unknown"),
    ],
)
def test_a_decision_must_fit(choice):
    record_conflicts(work(), met(1))

    with pytest.raises(DecisionUnfit):
        decide(only(), choice, seen=only().seen, actor=None)


def test_a_match_is_decided_by_naming_a_candidate():
    record_conflicts(
        work(),
        met(
            1, kind="match", right_key=None, right=None, candidates=json.dumps([key("a"), key("b")])
        ),
    )

    decide(only(), Decision(match=key("b")), seen=only().seen, actor=None)

    assert only().decision["match"] == key("b")


def test_a_side_for_a_taken_value_is_that_side_for_its_field():
    record_conflicts(work(), met(1, kind="unique", fields=["mail"]))

    decide(only(), Decision(record="right"), seen=only().seen, actor=None)

    assert only().decision == {"fields": {"mail": {"take": "right"}}}


def test_a_new_record_with_a_taken_value_leaves_nothing_to_decide():
    record_conflicts(work(), met(1, kind="unique", fields=["mail"], right_key=None, right=None))

    with pytest.raises(DecisionUnfit):
        decide(only(), Decision(record="left"), seen=only().seen, actor=None)


def test_a_decision_that_did_not_help_opens_its_conflict_again():
    mine = work()
    record_conflicts(mine, met(1, kind="unique", fields=["mail"]))
    decide(only(), Decision(record="left"), seen=only().seen, actor=None)
    tried = tried_decisions(decisions_for(mine.rule_id))

    assert record_conflicts(next_run(mine), met(1, kind="unique", fields=["mail"])) == 0
    met_again = record_conflicts(
        next_run(mine), met(1, kind="unique", fields=["mail"]), tried=tried
    )

    assert (met_again, only().state, only().decision) == (1, "open", None)


def test_many_are_decided_alike_but_those_that_moved():
    mine = work()
    record_conflicts(mine, met(1, 2, 3))
    seen = dict(Conflict.objects.values_list("pk", "seen"))
    record_conflicts(next_run(mine), met(2, right="other "))
    moved = Conflict.objects.get(left_key=key(2))

    failed = decide_many(seen, Decision(record="right"), actor=administrator())

    assert list(failed) == [moved.pk]
    assert isinstance(failed[moved.pk], ConflictMoved)
    assert Conflict.objects.filter(state="decided").count() == 2


def test_what_a_run_no_longer_meets_is_withdrawn_and_may_come_back():
    mine = work()
    record_conflicts(mine, met(1, 2, 3))
    later = next_run(mine)
    record_conflicts(later, met(1))

    assert withdraw_conflicts(mine.rule_id, later.run_id, right_keys=[key("r1"), key("r2")]) == 1
    assert withdraw_all_conflicts(mine.rule_id, later.run_id) == 1
    assert list(Conflict.objects.filter(state="open").values_list("left_key", flat=True)) == [
        key(1)
    ]
    withdrawn = Conflict.objects.get(left_key=key(2))
    with pytest.raises(ConflictClosed):
        decide(withdrawn, Decision(record="left"), seen=withdrawn.seen, actor=None)
    record_conflicts(next_run(mine), met(2))
    withdrawn.refresh_from_db()
    assert (withdrawn.state, withdrawn.resolved_at) == ("open", None)


def test_a_decision_that_was_written_resolves_only_its_own():
    mine = work()
    record_conflicts(mine, met(1, 2))
    for conflict in Conflict.objects.all():
        decide(conflict, Decision(record="left"), seen=conflict.seen, actor=None)

    assert resolve_conflicts(mine.rule_id, mine.run_id, left_keys=[key(1)]) == 1

    resolved = Conflict.objects.get(left_key=key(1))
    assert (resolved.state, resolved.resolved_run_id) == ("resolved", mine.run_id)
    assert Conflict.objects.get(left_key=key(2)).state == "decided"


def test_the_inbox_counts_and_pages():
    mine = work()
    record_conflicts(mine, met(*range(5)))
    record_conflicts(work(), met(9, kind="unique"))
    person = administrator()
    ours = ConflictFilter(rule_ids=[mine.rule_id])

    assert conflict_counts(person, ConflictFilter()) == {
        ("open", "fields"): 5,
        ("open", "unique"): 1,
    }
    first = conflict_page(person, ours, limit=3)
    rest = conflict_page(person, ours, after=first[-1].pk, limit=3)
    assert len(first) == 3
    assert len({row.pk for row in [*first, *rest]}) == 5
    (found,) = conflict_page(person, ConflictFilter(search="r3"))
    assert found.left_key == key(3)
    assert conflict_page(None, ours) == []
