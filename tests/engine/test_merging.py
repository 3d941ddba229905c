"""What the merges of single values promise, for any values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.connectors.types import FLOAT, INTEGER, JSON, TEXT, NeutralType, array, decimal
from apps.engine.reconcile.merging import ASK, Values, merge_value
from apps.engine.spec import FieldPolicySpec

WIDE = NeutralType.parse("decimal")
LINES = st.lists(st.sampled_from(["a\n", "b\n", "c\n", "d\n"]), max_size=6).map("".join)
MEMBERS = st.lists(st.sampled_from("pqrstu"), unique=True, max_size=5)
NUMBERS = st.integers(-(10**6), 10**6)


def nullable(values):
    return st.none() | values


CASES = {
    "counter": (INTEGER, nullable(NUMBERS.map(str))),
    "counter of decimals": (decimal(12, 2), nullable(NUMBERS.map(str))),
    "counter of floats": (FLOAT, nullable(st.floats(-1e9, 1e9).map(repr))),
    "set": (TEXT, nullable(MEMBERS.map(",".join))),
    "set as JSON": (JSON, nullable(MEMBERS.map(lambda m: json.dumps(m, separators=(",", ":"))))),
    "set as array": (array(TEXT), nullable(MEMBERS.map(json.dumps))),
    "text": (TEXT, nullable(LINES)),
    "highest": (WIDE, nullable(NUMBERS.map(str))),
    "lowest": (WIDE, nullable(NUMBERS.map(str))),
}
every_policy = pytest.mark.parametrize("case", list(CASES))


def merged(case, base, left, right):
    spec = FieldPolicySpec(field="f", policy=case.split(maxsplit=1)[0])
    return merge_value(spec, CASES[case][0], Values(left=left, right=right, base=base))


@every_policy
@given(data=st.data())
def test_a_merge_is_the_same_whichever_side_is_the_left(case, data):
    base, left, right = (data.draw(CASES[case][1]) for _ in range(3))
    assert merged(case, base, left, right) == merged(case, base, right, left)


@every_policy
@given(data=st.data())
def test_merging_equal_values_changes_nothing(case, data):
    base, value = (data.draw(CASES[case][1]) for _ in range(2))
    base = value if case.startswith("counter") else base
    if value is None and case.startswith("counter"):
        return
    assert merged(case, base, value, value) == value


@every_policy
@given(data=st.data())
def test_what_was_merged_stays(case, data):
    base, left, right = (data.draw(CASES[case][1]) for _ in range(3))
    value = merged(case, base, left, right)
    if value is not ASK:
        assert merged(case, value, value, value) == value


@given(base=NUMBERS, one=NUMBERS, other=NUMBERS)
def test_a_counter_has_both_deltas(base, one, other):
    result = merged("counter", str(base), str(base + one), str(base + other))
    assert result == str(base + one + other)


def test_a_counter_that_its_type_cannot_hold_asks():
    most = 2**63 - 1
    assert merged("counter", "0", str(most), "1") is ASK
    assert merged("counter of decimals", "0", "9999999999", "1") is ASK
    assert merged("counter", "3", None, "4") is ASK


@given(base=MEMBERS, left=MEMBERS, right=MEMBERS)
def test_a_set_keeps_additions_and_drops_what_was_removed(base, left, right):
    result = merged("set", ",".join(base), ",".join(left), ",".join(right)).split(",")
    added = (set(left) | set(right)) - set(base)
    assert set(result) - {""} == added | (set(base) & set(left) & set(right))


def test_a_set_keeps_how_it_is_written():
    assert merged("set", "a, b", "a, b, c", "b, d") == "b, c, d"
    assert merged("set as JSON", '["a"]', '["a",{"b":1}]', "[]") == '[{"b":1}]'
    assert merged("set as JSON", "[]", '{"a":1}', "[]") is ASK


@given(base=LINES, new=st.lists(st.sampled_from(["x\n", "y\n"]), min_size=1, max_size=3))
def test_edits_to_different_lines_merge(base, new):
    edited = "first\n" + base + "last\n"
    left = edited.replace("first\n", "".join(new))
    right = edited.replace("last\n", "".join(new))
    if base:
        assert merged("text", edited, left, right) == "".join(new) + base + "".join(new)


@given(base=LINES, left=LINES, right=LINES)
def test_a_merged_text_has_each_line_that_a_side_added(base, left, right):
    result = merged("text", base, left, right)
    if result is not ASK:
        for side in (left, right):
            for line in set(side.splitlines()) - set(base.splitlines()):
                assert line in result.splitlines()


def test_edits_of_the_same_lines_ask():
    assert merged("text", "a\nb\nc\n", "a\nB\nc\n", "a\nbb\nc\n") is ASK
    assert merged("text", "a\n", "a\nb\n", "a\nc\n") is ASK
    assert merged("text", "a\nb\n", "x\nb\n", None) is ASK
    assert merged("text", "a\nb\n", "a\nx\nb\n", "a\ny\n") is ASK


def test_policies_that_pick_a_side_merge_nothing_but_equal_values():
    """left, right, newest, ask and expression are decided elsewhere: no value is made up."""
    for policy in ("left", "right", "newest", "ask", "expression"):
        spec = FieldPolicySpec(field="f", policy=policy, expression="left_value")
        assert merge_value(spec, TEXT, Values(left="a", right="b", base="c")) is ASK
        assert merge_value(spec, TEXT, Values(left="a", right="a", base="c")) == "a"


@pytest.mark.parametrize("policy", ["highest", "lowest"])
@given(values=st.lists(NUMBERS.map(str), min_size=3, max_size=3))
def test_an_extreme_does_not_depend_on_who_meets_first(policy, values):
    one, two, three = values
    first = merged(policy, None, merged(policy, None, one, two), three)
    second = merged(policy, None, one, merged(policy, None, two, three))
    assert first == second
    assert int(first) == {"highest": max, "lowest": min}[policy](map(int, values))


@pytest.mark.parametrize("policy", ["highest", "lowest"])
@given(base=nullable(NUMBERS.map(str)), value=NUMBERS.map(str))
def test_any_number_beats_none(policy, base, value):
    assert merged(policy, base, None, value) == merged(policy, base, value, None) == value
