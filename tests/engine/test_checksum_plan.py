"""Which rules can be compared by digests, and why others cannot."""

from __future__ import annotations

from typing import Any

import pytest

from apps.connectors import mysql, postgresql
from apps.connectors import types as neutral
from apps.connectors.base import Connector, DatasetSchema, DigestField, DigestsRefused, FieldSchema
from apps.connectors.types import NeutralType
from apps.engine.checksum_plan import ChecksumPlan, Side, checksum_plan
from apps.engine.spec import DatasetSpec, FieldMappingSpec, MappingSpec, RuleSpec

POSTGRESQL = postgresql.PostgresqlConnector(
    postgresql.PostgresqlSettings(host="h", database="d", user="u")
)
MYSQL = mysql.MysqlConnector(mysql.MysqlSettings(host="h", database="d", user="u"))

Types = dict[str, NeutralType]


def plan_of(
    left: Types,
    right: Types,
    *,
    copies: dict[str, str],
    key: tuple[str, ...] = ("Id",),
    left_key: tuple[str, ...] = ("id",),
    platforms: tuple[Connector[Any], Connector[Any]] = (POSTGRESQL, MYSQL),
    rule: RuleSpec = RuleSpec(),  # noqa: B008 - immutable
    **extra: Any,
) -> ChecksumPlan:
    sides = [
        DatasetSchema(
            name, tuple(FieldSchema(n, t, nullable=False) for n, t in types.items()), key=keys
        )
        for name, types, keys in (("left", left, left_key), ("right", right, key))
    ]
    fields = [FieldMappingSpec(right=ours, left=theirs) for ours, theirs in copies.items()]
    if extra:
        fields[-1] = fields[-1].model_copy(update=extra)
    mapping = MappingSpec(
        left=DatasetSpec.of(sides[0]), right=DatasetSpec.of(sides[1]), fields=tuple(fields), key=key
    )
    left_side, right_side = (
        Side(dataset, connector.digest_forms)
        for dataset, connector in zip(sides, platforms, strict=True)
    )
    return checksum_plan(mapping, rule, left_side, right_side)


COPIES = {"Name": "name", "Id": "id"}
LEFT: Types = {"id": neutral.INTEGER, "name": neutral.TEXT}
RIGHT: Types = {"Id": neutral.decimal(20), "Name": neutral.TEXT}


def test_renames_and_exact_casts_are_compared_as_the_right_type() -> None:
    plan = plan_of(LEFT, RIGHT, copies=COPIES)
    assert plan.left.fields == (DigestField("id", "number"), DigestField("name", "text"))
    assert plan.right.fields == (DigestField("Id", "number"), DigestField("Name", "text"))
    assert (plan.left.key, plan.right.key) == (("id",), ("Id",))
    assert plan.keys.types == (neutral.decimal(38),)


def test_key_texts_keep_the_order_of_each_side() -> None:
    plan = plan_of(
        {"a": neutral.TEXT, "b": neutral.INTEGER},
        {"x": neutral.INTEGER, "y": neutral.TEXT},
        copies={"x": "b", "y": "a"},
        key=("x", "y"),
        left_key=("a", "b"),
    )
    assert (plan.left.key, plan.right.key) == (("b", "a"), ("x", "y"))
    assert (plan.keys.left_text, plan.keys.right_text) == ((1, 0), (0, 1))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"rule": RuleSpec(filter="id > 5")}, "the rule has a filter"),
        ({"copies": {"Id": "id", "Name": "name"}, "to_right": "upper(name)"}, "is an expression"),
        ({"copies": {"Id": "id", "Name": "name"}, "to_left": "lower(Name)"}, "is an expression"),
        ({"copies": {"Id": "id", "Name": "name"}, "default": "x"}, "has a default"),
        ({"copies": {"Id": "id", "Name": "name"}, "constant": "x"}, "is a constant"),
        ({"left_key": ("name",)}, "the keys of both sides are not copies"),
    ],
)
def test_what_the_databases_cannot_evaluate_is_read(changes: dict[str, Any], reason: str) -> None:
    given = {"copies": COPIES} | changes
    with pytest.raises(DigestsRefused, match=reason):
        plan_of(LEFT, RIGHT, **given)


@pytest.mark.parametrize("kind", [neutral.FLOAT, neutral.JSON])
def test_a_type_that_two_platforms_write_differently_is_read(kind: NeutralType) -> None:
    left, right = LEFT | {"name": kind}, RIGHT | {"Name": kind}
    with pytest.raises(DigestsRefused, match="write field 'Name'"):
        plan_of(left, right, copies=COPIES)
    for platform in (POSTGRESQL, MYSQL):
        assert plan_of(left, right, copies=COPIES, platforms=(platform, platform))


def test_a_key_of_another_kind_is_read() -> None:
    left = {"id": neutral.UUID, "name": neutral.TEXT}
    with pytest.raises(DigestsRefused, match="key field 'Id' is uuid on the left and text"):
        plan_of(left, {"Id": neutral.TEXT, "Name": neutral.TEXT}, copies=COPIES)
