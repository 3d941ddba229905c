"""Two-way plans, case by case: what is written where, why, and what the links remember."""

from __future__ import annotations

import json

import pytest

from apps.engine.spec import FieldPolicySpec, RuleSpec, TwoWaySpec
from tests.engine.specs import dataset, mapped
from tests.engine.two_sides import World

LEFT = dataset("l", id="integer", name="text", city="text", stock="integer", seen="timestamptz")
RIGHT = dataset("r", id="integer", title="text", town="text", stock="integer", at="timestamptz")
MAPPING = mapped(
    LEFT, RIGHT, "id", {"right": "title", "left": "name"}, {"right": "town", "left": "city"}, "stock"
)  # fmt: skip


def rule(**two_way):
    fields = tuple(FieldPolicySpec(field=n, **p) for n, p in two_way.pop("fields", {}).items())
    options = {name: two_way.pop(name) for name in list(two_way) if name in RuleSpec.model_fields}
    return RuleSpec(direction="two_way", two_way=TwoWaySpec(fields=fields, **two_way), **options)


def world(mapping=MAPPING, **two_way):
    return World(mapping, rule(**two_way))


def in_step(**two_way):
    """One record, on both sides and linked."""
    made = world(**two_way)
    made.put_left(id=1, name="Ann", city="Rome", stock=10)
    made.put_right(id=1, title="Ann", town="Rome", stock=10)
    made.sync()
    assert list(made.links) == [('["1"]', '["1"]')]
    return made


def quiet(made):
    """The next plan has nothing to do."""
    plan = made.plan()
    return plan.changes == [] and plan.conflicts == [] and plan.refreshes == []


def test_what_is_unchanged_stays():
    made = in_step()
    assert quiet(made)
    assert made.plan().summary.unchanged == 1


def test_new_records_go_both_ways():
    made = world()
    made.put_left(id=1, name="Ann")
    made.put_right(id=2, title="Bob")
    plan = made.sync()
    assert plan.brief() == [("left", "insert", "new"), ("right", "insert", "new")]
    assert made.left['["2"]'] == {
        "id": "2",
        "name": "Bob",
        "city": None,
        "stock": None,
        "seen": None,
    }
    assert made.right['["1"]']["title"] == "Ann"
    assert quiet(made)


def test_edits_to_different_fields_merge():
    made = in_step()
    made.edit_left('["1"]', name="Anna")
    made.edit_right('["1"]', town="Oslo")
    plan = made.sync()
    assert plan.brief() == [("left", "update", "changed"), ("right", "update", "changed")]
    assert plan.only("right")["fields"] == ["title"]
    assert plan.only("right")["before"] == {"title": "Ann"}
    assert plan.only("right")["base_left"] == {"title": "Anna"}
    assert plan.only("left")["before"] == {"city": "Rome"}
    assert plan.only("left")["base_right"] == {"town": "Oslo"}
    assert quiet(made)
