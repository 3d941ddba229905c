"""What is true of a field because of its values is true of all fields that share them."""

from __future__ import annotations

from itertools import permutations
from uuid import UUID

import pytest

from apps.engine.spec import FieldMappingSpec
from apps.mappings.marking import Sides, flowing

LEFT, RIGHT = UUID(int=1), UUID(int=2)


def field(right: str, left: str = "", to_right: str = "", to_left: str = "") -> FieldMappingSpec:
    return FieldMappingSpec(right=right, left=left, to_right=to_right, to_left=to_left)


def marked(*rows: FieldMappingSpec, left: str = "", right: str = "") -> tuple[set[str], set[str]]:
    """Which fields are marked with these; the order of the field mappings says nothing."""
    own = {LEFT: frozenset({left} - {""}), RIGHT: frozenset({right} - {""})}
    found = {flowing(LEFT, RIGHT, order, own) for order in permutations(rows)}
    assert len(found) == 1
    sides = found.pop()
    return set(sides.left), set(sides.right)


@pytest.mark.parametrize(
    "expression",
    [
        "lower(email)",
        'trim("email")',
        "CASE WHEN vip THEN upper(email) ELSE 'none' END",
        "lookup('domains', email)",  # by a table of which nothing is known here
        "upper(Email)",
        "soundex(EMAIL)",  # a function that there is not
        'trim("Email") ~',  # cannot be understood
    ],
)
def test_a_mark_flows_through_an_expression_however_it_names_the_field(expression):
    assert marked(field("mail", to_right=expression), left="email") == ({"email"}, {"mail"})


def test_a_word_in_a_text_is_no_field():
    row = field("label", to_right="concat('email', code)")
    assert marked(row, left="email") == ({"email"}, set())


def test_a_mark_flows_along_the_expression_back():
    row = field("code", left="name", to_right="'x'", to_left="split_part(\"Full name\", ' ', 1)")
    assert marked(row, right="Full name") == ({"name"}, {"Full name"})
    assert marked(row, left="name") == ({"name"}, {"Full name"})


def test_an_expression_counts_beside_the_left_field_that_gets_its_value_back():
    row = field("label", left="code", to_right="code || name", to_left="substr(label, 1, 3)")
    assert marked(row, left="name") == ({"code", "name"}, {"label"})


def test_marks_flow_over_any_number_of_steps_in_any_order_of_the_field_mappings():
    rows = (
        field("full", to_right="first || ' ' || last"),
        field("greeting", to_right="'Dear ' || last"),
        field("sort", left="initial", to_right="left(last, 1)", to_left="left(greeting, 6)"),
    )
    everything = ({"first", "last", "initial"}, {"full", "greeting", "sort"})
    assert marked(*rows, right="full") == everything


def test_what_is_only_joined_with_a_marked_field_is_not_marked():
    row = field("label", to_right="code || name")
    assert marked(row, left="name") == ({"name"}, {"label"})
    assert marked(row, right="label") == ({"code", "name"}, {"label"})


def test_nothing_flows_from_a_constant():
    row = FieldMappingSpec(right="origin", constant="email")
    assert flowing(LEFT, RIGHT, [row], {LEFT: frozenset({"email"})}) == Sides(frozenset({"email"}))
