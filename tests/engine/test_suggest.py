"""Suggestions: exact before alike before near, one-to-one, by type."""

from __future__ import annotations

import pytest

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.types import NeutralType
from apps.engine.suggest import camel_case, propose_right, snake_case, suggest_pairs


def schema(key=(), /, **types):
    fields = tuple(FieldSchema(field, NeutralType.parse(text)) for field, text in types.items())
    return DatasetSchema("d", fields, key=key)


def pairs(left, right):
    return {(s.left, s.right) for s in suggest_pairs(left, right)}


def test_exact_names_come_before_alike_ones():
    left = schema(MediaTypeId="integer", media_type_id="integer")
    assert pairs(left, schema(media_type_id="integer")) == {("media_type_id", "media_type_id")}


def test_names_match_across_conventions():
    left = schema(MediaTypeId="integer", UnitPrice="decimal(10,2)", EMail="text")
    right = schema(media_type_id="integer", unitPrice="decimal(10,2)", email="text")
    assert pairs(left, right) == {
        ("MediaTypeId", "media_type_id"),
        ("UnitPrice", "unitPrice"),
        ("EMail", "email"),
    }


def test_near_names_need_types_that_go_together():
    assert pairs(schema(customer_name="text"), schema(customers_name="text"))
    assert not pairs(schema(customer_date="date"), schema(customers_date="boolean"))
    assert not pairs(schema(name="text"), schema(price="text"))


def test_pairs_are_one_to_one_with_score_and_reason():
    left = schema(name="text", Name2="text")
    right = schema(name="text", name_2="text")
    found = suggest_pairs(left, right)
    assert [s.right for s in found] == ["name", "name_2"]
    assert len({s.left for s in found}) == 2
    assert all(0 < s.score <= 1 and s.reason for s in found)


def test_another_type_lowers_the_score_and_is_said():
    (found,) = suggest_pairs(schema(a="date"), schema(a="boolean"))
    assert found.score < 1
    assert "date is not boolean" in found.reason


@pytest.mark.parametrize(
    ("name", "snake", "camel"),
    [
        ("MediaTypeId", "media_type_id", "mediaTypeId"),
        ("HTTPServer", "http_server", "httpServer"),
        ("already_snake", "already_snake", "alreadySnake"),
        ("Full Name", "full_name", "fullName"),
        ("line2", "line_2", "line2"),
        ("größeCm", "größe_cm", "größeCm"),
    ],
)
def test_naming(name, snake, camel):
    assert snake_case(name) == snake
    assert camel_case(name) == camel


@pytest.mark.parametrize(
    ("naming", "names"),
    [
        ("same", ("Id", "UnitPrice")),
        ("snake_case", ("id", "unit_price")),
        ("camelCase", ("id", "unitPrice")),
    ],
)
def test_propose_right(naming, names):
    left = schema(("Id",), Id="integer", UnitPrice="decimal(10,2)")
    right = propose_right(left, "new", naming)
    assert right.name == "new"
    assert right.field_names == names
    assert right.key == names[:1]
    assert [f.type for f in right.fields] == [f.type for f in left.fields]


def test_an_unknown_naming_is_refused():
    with pytest.raises(ValueError, match="kebab"):
        propose_right(schema(a="text"), "new", "kebab")


def test_two_fields_never_get_one_name():
    left = schema(UserId="integer", user_id="integer")
    names = propose_right(left, "new", "snake_case").field_names
    assert len(set(names)) == 2
