"""What each field policy promises, through whole plans: many records at once, one per pair.

The values of a record are any; `base` is what both sides held when they last agreed. For every
policy: both sides are equal afterwards (where nobody is asked), the next plan is empty, and where
only one side has changed a field its value counts. Who is left and who is right is no matter to the
policies that promise it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.engine.spec import FieldPolicySpec, RuleSpec, TwoWaySpec
from tests.engine.specs import dataset, mapped
from tests.engine.two_sides import NOW, World

SIDE = dataset("s", id="integer", f="integer", edited="timestamp")
MAPPING = mapped(SIDE, SIDE, "id", "f")
NUMBERS = st.none() | st.integers(-50, 50)
SECONDS = st.integers(-200_000, 200_000)  # a clock may be two days off
RECORDS = st.lists(st.tuples(NUMBERS, NUMBERS, NUMBERS, SECONDS, SECONDS), min_size=5, max_size=40)
POLICIES = ("left", "right", "newest", "highest", "lowest", "counter", "expression", "ask")
SYMMETRIC = ("newest", "highest", "lowest", "counter", "expression")
FEW = settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MIDNIGHT = datetime.fromisoformat("2025-12-31T00:00:00")
GREATER = "greatest(left_value, right_value)"


def rule(policy):
    spec = FieldPolicySpec(field="f", policy=policy, expression=GREATER)
    times = {"left_modified": "edited", "right_modified": "edited"}
    return RuleSpec(direction="two_way", two_way=TwoWaySpec(fields=(spec,), **times))


def time(seconds):
    return (MIDNIGHT + timedelta(seconds=seconds)).isoformat()


def world(policy, records, *, swapped=False):
    """Both sides in step at their bases, then each edited."""
    made = World(MAPPING, rule(policy))
    for key, (base, *_) in enumerate(records):
        made.put_left(id=key, f=base)
    made.sync()
    for key, (_, *edits) in enumerate(records):
        left, right, left_time, right_time = edits
        if swapped:
            left, right, left_time, right_time = right, left, right_time, left_time
        made.edit_left(f'["{key}"]', f=left, edited=time(left_time))
        made.edit_right(f'["{key}"]', f=right, edited=time(right_time))
    return made


def values(side):
    return {key: record["f"] for key, record in side.items()}


def expected(records, place):
    """The values at this place of the records, as texts by key."""
    chosen = enumerate(item[place] for item in records)
    return {f'["{key}"]': None if value is None else str(value) for key, value in chosen}


@pytest.mark.parametrize("policy", POLICIES)
@FEW
@given(RECORDS)
def test_both_sides_are_equal_afterwards_and_stay(policy, records):
    made = world(policy, records)
    asked = {conflict["left_key"] for conflict in made.sync().conflicts}
    left, right = values(made.left), values(made.right)
    assert {k: v for k, v in left.items() if k not in asked} == {
        k: v for k, v in right.items() if k not in asked
    }
    for key in asked:
        before = records[int(key[2:-2])]
        assert (left[key], right[key]) == tuple(
            None if value is None else str(value) for value in before[1:3]
        )
    again = made.plan()
    assert (again.changes, again.refreshes) == ([], [])


@pytest.mark.parametrize("policy", SYMMETRIC)
@FEW
@given(RECORDS)
def test_it_is_no_matter_who_is_left(policy, records):
    one, other = world(policy, records), world(policy, records, swapped=True)
    one.sync()
    other.sync()
    assert values(one.left) == values(other.right)
    assert values(one.right) == values(other.left)


@pytest.mark.parametrize("policy", POLICIES)
@FEW
@given(RECORDS)
def test_who_alone_has_changed_a_field_wins_by_every_policy(policy, records):
    lone = [(base, left, base, *times) for base, left, _, *times in records]
    made = world(policy, lone)
    assert made.sync().conflicts == []
    assert values(made.right) == expected(lone, 1)


@FEW
@given(RECORDS)
def test_left_and_right_win_where_both_have_changed(records):
    for policy, place in (("left", 1), ("right", 2)):
        both = [item for item in records if len(set(item[:3])) == 3]
        made = world(policy, both)
        made.sync()
        assert values(made.left) == values(made.right) == expected(both, place)


@FEW
@given(RECORDS)
def test_the_newest_wins_and_no_time_is_later_than_now(records):
    both = [item for item in records if len(set(item[:3])) == 3]
    made = world("newest", both)
    asked = {conflict["left_key"] for conflict in made.sync().conflicts}
    now = NOW.replace(tzinfo=None)
    for key, (_, left, right, *seconds) in enumerate(both):
        ahead, behind = (min(datetime.fromisoformat(time(s)), now) for s in seconds)
        text = f'["{key}"]'
        assert (text in asked) == (ahead == behind)
        if text not in asked:
            winner = left if ahead > behind else right
            assert made.left[text]["f"] == (None if winner is None else str(winner))
