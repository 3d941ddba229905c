"""Two-way plans, case by case: what is written where, why, and what the links remember."""

from __future__ import annotations

import json

import pytest

from apps.engine.spec import FieldPolicySpec, MatchFieldSpec, RuleSpec, TwoWaySpec
from tests.engine.specs import dataset, mapped
from tests.engine.two_sides import World

LEFT = dataset("l", id="integer", name="text", city="text", stock="integer", seen="timestamptz")
RIGHT = dataset("r", id="integer", title="text", town="text", stock="integer", at="timestamptz")
MAPPING = mapped(
    LEFT,
    RIGHT,
    "id",
    {"right": "title", "left": "name"},
    {"right": "town", "left": "city"},
    "stock",
)


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


@pytest.mark.parametrize(
    ("policy", "expected", "sides"),
    [("left", "12", ["right"]), ("right", "7", ["left"]), ("highest", "12", ["right"]),
     ("lowest", "7", ["left"]), ("counter", "9", ["left", "right"])],
)  # fmt: skip
def test_a_policy_decides_where_both_sides_changed_a_field(policy, expected, sides):
    made = in_step(fields={"stock": {"policy": policy}})
    made.edit_left('["1"]', stock=12)
    made.edit_right('["1"]', stock=7)
    plan = made.sync()
    cause = "merged" if policy == "counter" else "overruled"
    assert plan.brief() == [(side, "update", cause) for side in sides]
    assert made.left['["1"]']["stock"] == made.right['["1"]']["stock"] == expected
    made.sync()
    assert quiet(made)


def test_both_sides_changed_to_the_same_value_only_moves_the_base():
    made = in_step()
    made.edit_left('["1"]', stock=12)
    made.edit_right('["1"]', stock=12)
    plan = made.sync()
    assert (plan.changes, plan.conflicts, plan.summary.agreed) == ([], [], 1)
    assert quiet(made)


def test_asking_parks_the_field_and_lets_the_others_flow():
    made = in_step()
    made.edit_left('["1"]', stock=12, name="Anna")
    made.edit_right('["1"]', stock=7, town="Oslo")
    plan = made.sync()
    assert plan.brief() == [("left", "update", "changed"), ("right", "update", "changed")]
    (conflict,) = plan.conflicts
    assert (conflict["kind"], conflict["fields"]) == ("fields", ["stock"])
    assert json.loads(conflict["left"])["stock"] == "12"
    assert json.loads(conflict["right"])["stock"] == "7"
    assert json.loads(conflict["base_left"])["stock"] == "10"
    again = made.plan()
    assert again.changes == []
    assert [c["seen"] for c in again.conflicts] == [conflict["seen"]]


@pytest.mark.parametrize(
    ("decision", "expected"),
    [({"record": "left"}, "12"), ({"record": "right"}, "7"),
     ({"fields": {"stock": {"take": "base"}}}, "10"),
     ({"fields": {"stock": {"take": "value", "value": "8"}}}, "8"),
     ({"fields": {"stock": {"take": "value", "value": None}}}, None)],
)  # fmt: skip
def test_a_decision_is_carried_out(decision, expected):
    made = in_step()
    made.edit_left('["1"]', stock=12)
    made.edit_right('["1"]', stock=7)
    made.decide(made.sync().conflicts[0], **decision)
    plan = made.sync()
    assert {change["cause"] for change in plan.changes} == {"decided"}
    assert plan.conflicts == []
    assert made.left['["1"]']["stock"] == made.right['["1"]']["stock"] == expected
    made.sync()
    assert quiet(made)


def test_a_decision_holds_for_just_the_values_that_were_seen():
    made = in_step()
    made.edit_left('["1"]', stock=12)
    made.edit_right('["1"]', stock=7)
    made.decide(made.sync().conflicts[0], record="left")
    made.edit_right('["1"]', stock=6)
    plan = made.plan()
    assert plan.changes == []
    assert len(plan.conflicts) == 1


def test_a_decided_value_that_is_none_of_the_type_stays_open():
    made = in_step()
    made.edit_left('["1"]', stock=12)
    made.edit_right('["1"]', stock=7)
    made.decide(made.sync().conflicts[0], fields={"stock": {"take": "value", "value": "many"}})
    plan = made.plan()
    assert (plan.changes, len(plan.conflicts)) == ([], 1)


TIMES = {"left_modified": "seen", "right_modified": "at"}


@pytest.mark.parametrize(
    ("left", "right", "tie", "winner"),
    [("2025-01-01T00:00:02.000000Z", "2025-01-01T00:00:00.000000Z", "ask", "left"),
     ("2025-01-01T00:00:00.000000Z", "2025-01-01T00:00:02.000000Z", "ask", "right"),
     ("2025-01-01T00:00:00.500000Z", "2025-01-01T00:00:00.000000Z", "right", "right"),
     (None, "2025-01-01T00:00:00.000000Z", "left", "left"),
     ("2026-01-02T00:00:00.000000Z", "2026-01-03T00:00:00.000000Z", "left", "left"),
     ("2026-01-02T00:00:00.000000Z", "2025-12-31T00:00:00.000000Z", "right", "left")],
)  # fmt: skip
def test_the_newest_wins_by_clocks_that_are_not_trusted_blindly(left, right, tie, winner):
    made = in_step(policy="newest", tie=tie, **TIMES)
    made.edit_left('["1"]', stock=12, seen=left)
    made.edit_right('["1"]', stock=7, at=right)
    made.sync()
    assert made.right['["1"]']["stock"] == {"left": "12", "right": "7"}[winner]
    assert quiet(made)


def test_times_that_are_too_near_are_for_a_person():
    made = in_step(policy="newest", **TIMES)
    made.edit_left('["1"]', stock=12, seen="2025-01-01T00:00:00.000000Z")
    made.edit_right('["1"]', stock=7, at="2025-01-01T00:00:00.900000Z")
    (conflict,) = made.sync().conflicts
    assert conflict["right_changed_at"].isoformat() == "2025-01-01T00:00:00.900000+00:00"


def test_an_expression_decides():
    made = in_step(
        fields={"stock": {"policy": "expression", "expression": "left_value * 100 + right_value"}}
    )
    made.edit_left('["1"]', stock=12)
    made.edit_right('["1"]', stock=7)
    made.sync()
    assert made.left['["1"]']["stock"] == made.right['["1"]']["stock"] == "1207"


def test_an_expression_that_fails_asks():
    expression = "left_value / (right_value - 7)"
    made = in_step(fields={"stock": {"policy": "expression", "expression": expression}})
    made.edit_left('["1"]', stock=2**62)
    made.edit_right('["1"]', stock=7)
    plan = made.sync()
    assert (plan.changes, [c["fields"] for c in plan.conflicts]) == ([], [["stock"]])


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_deletion_is_propagated(gone):
    made = in_step()
    getattr(made, gone).clear()
    other = {"left": "right", "right": "left"}[gone]
    plan = made.sync()
    assert plan.brief() == [(other, "delete", "deleted")]
    whole = plan.only(other)["before"]
    assert whole["stock"] == "10"
    assert (made.left, made.right, made.links) == ({}, {}, {})


@pytest.mark.parametrize("gone", ["left", "right"])
@pytest.mark.parametrize(
    ("policy", "brief"),
    [("edit", ("insert", "revived")), ("delete", ("delete", "deleted")), ("ask", None)],
)
def test_edited_here_and_deleted_there(gone, policy, brief):
    made = in_step(edit_delete=policy)
    other = {"left": "right", "right": "left"}[gone]
    getattr(made, f"edit_{other}")('["1"]', stock=99)
    getattr(made, gone).clear()
    plan = made.sync()
    side = gone if policy == "edit" else other
    assert plan.brief() == ([(side, *brief)] if brief else [])
    if policy == "ask":
        (conflict,) = plan.conflicts
        assert (conflict["kind"], conflict[gone]) == ("edit_delete", None)
        made.decide(conflict, record=other)
        assert made.sync().brief() == [(gone, "insert", "decided")]
    assert quiet(made)


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_deletion_waits_for_approval_and_is_withdrawn_when_the_record_is_back(gone):
    made = in_step(on_delete="approve", on_right_delete="approve")
    records = getattr(made, gone)
    kept = dict(records)
    records.clear()
    plan = made.sync()
    assert (plan.changes, [c["kind"] for c in plan.conflicts]) == ([], ["delete"])
    records.update(kept)
    assert quiet(made)
    records.clear()
    made.decide(made.sync().conflicts[0], record="delete")
    made.sync()
    assert (made.left, made.right) == ({}, {})


def test_a_deletion_that_is_not_approved_brings_the_record_back():
    made = in_step(on_delete="approve")
    made.left.clear()
    made.decide(made.sync().conflicts[0], record="keep")
    assert made.sync().brief() == [("left", "insert", "decided")]
    assert quiet(made)


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_deletion_is_ignored(gone):
    made = in_step(on_delete="ignore", on_right_delete="ignore")
    getattr(made, gone).clear()
    assert quiet(made)
    assert len(made.links) == 1


def test_nothing_is_deleted_where_absence_means_nothing():
    made = in_step()
    made.left.clear()
    plan = made.plan(complete=False)
    assert (plan.changes, plan.summary.unknown) == ([], 1)


def test_gone_on_both_sides_is_forgotten():
    made = in_step()
    made.left.clear()
    made.right.clear()
    plan = made.sync()
    assert (plan.changes, len(plan.gone), made.links) == ([], 1, {})


UNIQUE = {"checks": ({"name": "one town", "kind": "unique", "field": "town"},)}


def test_an_insert_that_would_take_a_unique_value_is_parked_and_nothing_else():
    made = in_step(**UNIQUE)
    made.put_left(id=2, name="Bob", city="Rome")
    made.put_left(id=3, name="Cid", city="Oslo")
    plan = made.sync()
    assert plan.brief() == [("right", "insert", "new")]
    (conflict,) = plan.conflicts
    assert (conflict["kind"], conflict["left_key"], conflict["right_key"]) == (
        "unique",
        '["2"]',
        None,
    )
    assert (conflict["fields"], json.loads(conflict["candidates"])) == (["town"], ['["1"]'])
    assert made.right['["1"]']["title"] == "Ann"


def test_two_writes_of_one_unique_value_are_both_parked():
    made = in_step(**UNIQUE)
    made.put_left(id=2, name="Bob", city="Oslo")
    made.put_right(id=3, title="Cid", town="Oslo")
    plan = made.sync()
    assert plan.changes == []
    assert sorted(c["left_key"] or c["right_key"] for c in plan.conflicts) == ['["2"]', '["3"]']


def test_an_edit_that_would_take_a_unique_value_is_parked_until_it_is_decided():
    made = in_step(**UNIQUE)
    made.put_left(id=2, name="Bob", city="Oslo")
    made.sync()
    made.edit_right('["2"]', town="Rome", stock=5)
    plan = made.sync()
    assert plan.changes == []
    (conflict,) = plan.conflicts
    made.decide(conflict, fields={"town": {"take": "value", "value": "Bonn"}})
    made.sync()
    assert made.left['["2"]'] == {
        "id": "2",
        "name": "Bob",
        "city": "Bonn",
        "stock": "5",
        "seen": None,
    }
    assert made.right['["2"]']["town"] == "Bonn"
    made.sync()
    assert quiet(made)


def test_a_parked_write_leaves_its_old_value_in_use():
    made = in_step(**UNIQUE)
    made.put_left(id=2, name="Bob", city="Oslo")
    made.sync()
    made.edit_left('["1"]', city="Oslo")
    made.put_left(id=3, name="Cid", city="Rome")
    plan = made.sync()
    assert plan.changes == []
    assert sorted(c["left_key"] for c in plan.conflicts) == ['["1"]', '["3"]']


CODED_LEFT = dataset("l", ("code",), code="text", name="text")
CODED_RIGHT = dataset("r", id="integer", code="text", name="text")
CODED = mapped(CODED_LEFT, CODED_RIGHT, "code", "name", key=("id",))


def assigned(mapping, *, left=(), right=()):
    """The mapping with fields that their side assigns."""
    sides = {"left": left, "right": right}
    return mapping.model_copy(
        update={
            side: getattr(mapping, side).model_copy(
                update={
                    "fields": tuple(
                        f.model_copy(update={"server_assigned": f.name in names})
                        for f in getattr(mapping, side).fields
                    )
                }
            )
            for side, names in sides.items()
        }
    )


def matched(mapping, *fields):
    specs = tuple(MatchFieldSpec(field=f, normalise=n) for f, n in fields)
    return mapping.model_copy(update={"match": specs})


BY_CODE = matched(assigned(CODED, right=("id",)), ("code", ("trim", "case")))


def coded(**options):
    made = world(BY_CODE, **options)
    made.put_left(code="a", name="Ann")
    made.put_right(id=7, code=" A", name="Ann")
    return made


def test_records_find_each_other_by_normalised_fields():
    made = coded(first_contact="left")
    plan = made.sync()
    assert plan.summary.matched == 1
    assert plan.only("right")["after"] == {"code": "a"}
    assert list(made.links) == [('["a"]', '["7"]')]
    assert quiet(made)


def test_first_contact_asks():
    made = coded()
    made.edit_right('["7"]', name="Anna")
    plan = made.sync()
    (conflict,) = plan.conflicts
    assert (conflict["kind"], conflict["fields"]) == ("first_contact", ["code", "name"])
    assert (plan.changes, made.links) == ([], {})
    made.decide(conflict, record="right", fields={"code": {"take": "left"}})
    made.sync()
    assert made.left == {'["a"]': {"code": "a", "name": "Anna"}}
    assert made.right['["7"]'] == {"id": "7", "code": "a", "name": "Anna"}
    assert quiet(made)


def test_a_key_that_the_right_side_assigns_is_in_the_link():
    made = world(BY_CODE)
    made.put_left(code="x", name="New")
    plan = made.sync()
    insert = plan.only("right")
    assert (insert["right_key"], insert["fields"]) == (None, ["code", "name"])
    assert list(made.links) == [('["x"]', '["1001"]')]
    assert quiet(made)


def test_a_key_edit_on_one_side_moves_the_key_of_the_other():
    made = coded(first_contact="left")
    made.sync()
    made.edit_right('["7"]', code="b")
    plan = made.sync()
    assert (plan.only("left")["left_key"], plan.only("left")["key_after"]) == ('["a"]', '["b"]')
    assert made.left == {'["b"]': {"code": "b", "name": "Ann"}}
    assert list(made.links) == [('["b"]', '["7"]')]
    assert quiet(made)


def test_a_key_edit_onto_a_taken_key_is_parked():
    made = coded(first_contact="left")
    made.put_left(code="b", name="Bob")
    made.sync()
    made.edit_right('["7"]', code="b", name="Anna")
    plan = made.sync()
    assert plan.changes == []
    (conflict,) = plan.conflicts
    assert (conflict["kind"], json.loads(conflict["candidates"])) == ("unique", ['["b"]'])


def test_ambiguous_matches_are_listed_before_anything_is_written():
    made = coded()
    made.put_right(id=8, code="A", name="Ada")
    plan = made.sync()
    (conflict,) = plan.conflicts
    assert (conflict["kind"], conflict["left_key"]) == ("match", '["a"]')
    assert json.loads(conflict["candidates"]) == ['["7"]', '["8"]']
    assert plan.changes == []
    made.decide(conflict, match='["8"]')
    plan = made.sync()
    assert [(c["kind"], c["right_key"]) for c in plan.conflicts] == [("first_contact", '["8"]')]
    assert plan.brief() == [("left", "insert", "new")]


def test_duplicates_on_one_side_are_listed():
    made = world(BY_CODE)
    made.put_right(id=7, code="a")
    made.put_right(id=8, code="A")
    plan = made.sync()
    assert plan.changes == []
    assert [(c["kind"], c["right_key"]) for c in plan.conflicts] == [
        ("match", '["7"]'), ("match", '["8"]'),
    ]  # fmt: skip
    for conflict in plan.conflicts:
        made.decide(conflict, record="insert")
    assert made.sync().brief() == [("left", "insert", "new")] * 2
    assert quiet(made)
