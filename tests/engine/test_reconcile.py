"""Two-way plans, case by case: what is written where, why, and what the links remember."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from apps.engine.execution import Runner
from apps.engine.reconcile import Reconciler, compile_two_way
from apps.engine.spec import FieldMappingSpec, FieldPolicySpec, MatchFieldSpec, RuleSpec, TwoWaySpec
from tests.engine.specs import dataset, mapped
from tests.engine.two_sides import NOW, World

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
@pytest.mark.parametrize(("policy", "kinds"), [("mark", []), ("approve", ["delete"])])
def test_a_deletion_that_wins_over_an_edit_is_still_marked_or_approved(gone, policy, kinds):
    made = in_step(
        edit_delete="delete", on_delete=policy, on_right_delete=policy,
        mark_field="town", mark_value="gone", left_mark_field="city", left_mark_value="gone",
    )  # fmt: skip
    other = {"left": "right", "right": "left"}[gone]
    getattr(made, f"edit_{other}")('["1"]', stock=99)
    getattr(made, gone).clear()
    plan = made.sync()
    assert [c["operation"] for c in plan.changes] == ([] if kinds else ["update"])
    assert [c["kind"] for c in plan.conflicts] == kinds
    assert getattr(made, other)['["1"]']["stock"] == "99"
    assert made.plan().changes == []


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_field_that_the_mapping_gained_is_no_edit_of_a_record_deleted_elsewhere(gone):
    made = in_step(edit_delete="edit")
    link = made.links['["1"]', '["1"]']
    for image in (link.left, link.right):
        del image["stock"]
    getattr(made, gone).clear()
    other = {"left": "right", "right": "left"}[gone]
    assert made.plan().brief() == [(other, "delete", "deleted")]
    getattr(made, f"edit_{other}")('["1"]', **{{"left": "name", "right": "title"}[other]: "Eve"})
    assert made.plan().brief() == [(gone, "insert", "revived")]


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


def test_a_parked_key_is_told_by_the_right_fields_that_it_is_written_from():
    named = mapped(dataset("l", ("name",), name="text"), RIGHT, {"right": "title", "left": "name"})
    made = world(matched(assigned(named, right=("id",)), ("title", ())))
    made.put_left(name="Ann")
    made.put_left(name="Bob")
    made.sync()
    made.edit_right(next(right for left, right in made.links if "Bob" in left), title="Ann")
    (conflict,) = made.plan().conflicts
    assert (conflict["kind"], conflict["fields"]) == ("unique", ["title"])


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


FULL_LEFT = dataset(
    "l", id="integer", first="text", last="text", price="decimal(10,4)", gone="boolean", city="text"
)
FULL_RIGHT = dataset(
    "r", id="integer", full="text", last="text", first="text", price="decimal(10,2)",
    origin="text", gone="boolean", city="text",
)  # fmt: skip
FULL = mapped(
    FULL_LEFT,
    FULL_RIGHT,
    "id",
    "first",
    {"right": "last", "left": "last", "to_right": "upper(last)", "to_left": "lower(last)"},
    {"right": "full", "to_right": "first || ' ' || last"},
    {"right": "price", "left": "price", "to_right": "round(price, 2)", "to_left": "price"},
    {"right": "origin", "constant": "shop"},
    "city",
)


def full(**options):
    made = world(FULL, **options)
    made.put_left(id=1, first="Ann", last="lee", price="1.2345", city="Rome")
    made.sync()
    assert made.right['["1"]'] == {
        "id": "1", "full": "Ann lee", "last": "LEE", "first": "Ann", "price": "1.23",
        "origin": "shop", "gone": None, "city": "Rome",
    }  # fmt: skip
    return made


def test_lossy_expressions_do_not_echo():
    made = full()
    assert quiet(made)
    made.edit_right('["1"]', price="2")
    assert made.sync().only("left")["after"] == {"price": "2"}
    assert quiet(made)
    made.edit_left('["1"]', price="2.0001")
    assert made.sync().changes == []
    assert quiet(made)


def test_an_edit_on_the_right_moves_what_derives_from_it_in_the_same_run():
    made = full()
    made.edit_right('["1"]', last="KIM")
    plan = made.sync()
    assert plan.only("left")["after"] == {"last": "kim"}
    assert plan.only("right")["after"] == {"full": "Ann kim"}
    assert quiet(made)


def test_an_edit_of_a_derived_field_on_the_right_is_overruled_and_kept():
    made = full()
    made.edit_right('["1"]', full="Nobody", origin="web")
    plan = made.sync()
    assert plan.brief() == [("right", "update", "overruled")]
    assert plan.only("right")["before"] == {"full": "Nobody", "origin": "web"}
    assert made.right['["1"]']["full"] == "Ann lee"
    assert quiet(made)


def test_a_record_from_the_right_gets_its_derived_fields_in_the_same_run():
    made = full()
    made.put_right(id=2, first="Bob", last="RAY", full="?", price="3", origin="web")
    plan = made.sync()
    assert plan.brief() == [("left", "insert", "new"), ("right", "update", "overruled")]
    assert made.left['["2"]'] == {
        "id": "2", "first": "Bob", "last": "ray", "price": "3", "gone": None, "city": None,
    }  # fmt: skip
    assert (made.right['["2"]']["full"], made.right['["2"]']["origin"]) == ("Bob ray", "shop")
    assert quiet(made)


def test_a_side_that_stores_less_than_was_written_does_not_echo():
    made = full(first_contact="left")
    made.store_right = lambda record: {**record, "city": (record["city"] or "")[:3]}
    made.edit_left('["1"]', city="Lisbon")
    made.sync()
    assert made.right['["1"]']["city"] == "Lis"
    assert quiet(made)
    made.edit_right('["1"]', city="Rio")
    made.sync()
    assert made.left['["1"]']["city"] == "Rio"
    assert quiet(made)


MARKS = {
    "on_delete": "mark", "mark_field": "gone",
    "on_right_delete": "mark", "left_mark_field": "gone",
}  # fmt: skip


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_deletion_marks_the_other_record_once(gone):
    made = full(**MARKS)
    getattr(made, gone).clear()
    other = {"left": "right", "right": "left"}[gone]
    plan = made.sync()
    assert plan.brief() == [(other, "update", "marked")]
    assert plan.only(other)["after"] == {"gone": "true"}
    assert next(iter(made.links.values())).state == "marked"
    assert quiet(made)


def test_a_mark_that_is_mapped_is_not_taken_for_an_edit():
    made = World(FULL.model_copy(update={"fields": (*FULL.fields, FIELD_GONE)}), rule(**MARKS))
    made.put_left(id=1, first="Ann", last="lee", gone="false")
    made.put_left(id=2, first="Bob", last="ray", gone="false")
    made.sync()
    del made.left['["1"]'], made.right['["2"]']
    assert made.sync().brief() == [("left", "update", "marked"), ("right", "update", "marked")]
    assert quiet(made)


FIELD_GONE = FieldMappingSpec(right="gone", left="gone")


@pytest.mark.parametrize(
    ("policy", "brief"),
    [("delete", ("delete", "left_filter")), ("mark", ("update", "left_filter")), ("keep", None)],
)
def test_a_record_that_leaves_the_filter(policy, brief):
    made = full(filter="city <> 'Oslo'", on_leave=policy, mark_field="gone")
    made.edit_left('["1"]', city="Oslo")
    plan = made.sync()
    assert plan.brief() == ([("right", *brief)] if brief else [])
    assert made.left['["1"]']["city"] == "Oslo"


def test_what_the_filter_would_leave_out_is_not_written_to_the_left():
    made = full(filter="city <> 'Oslo'")
    made.edit_right('["1"]', city="Oslo", first="Anna")
    made.put_right(id=2, first="Bob", city="Oslo")
    plan = made.sync()
    assert (plan.changes, plan.summary.left_alone) == ([], 2)
    assert made.plan().changes == []


def test_what_a_check_refuses_is_rejected_and_the_rest_flows():
    made = full(checks=({"name": "short", "kind": "range", "field": "price", "maximum": "9"},))
    made.edit_right('["1"]', price="10")
    made.put_right(id=2, first="Bob", last="RAY", full="Bob ray", price="11", origin="shop")
    made.put_right(id=3, first="Cid", last="RAY", full="Cid ray", price="3", origin="shop")
    plan = made.sync()
    assert plan.brief() == [("left", "insert", "new")]
    rejected = {(r.left_key, r.right_key, r.code, r.check) for r in plan.rejections}
    assert rejected == {
        ('["1"]', '["1"]', "record.check_failed", "short"),
        (None, '["2"]', "record.check_failed", "short"),
    }
    assert plan.summary.rejected == 2


def test_a_rejected_left_record_is_present_and_unknown():
    made = full(checks=({"name": "short", "kind": "range", "field": "price", "maximum": "9"},))
    made.edit_left('["1"]', price="10")
    made.edit_right('["1"]', city="Oslo")
    made.put_left(id=2, first="Bob", last="ray", price="11")
    made.put_right(id=2, first="Bob", last="RAY", price="3")
    plan = made.plan()
    assert (plan.changes, plan.conflicts, plan.gone) == ([], [], [])
    assert plan.summary.unknown == 1


def test_a_new_field_of_the_mapping_has_an_unknown_base():
    made = full(first_contact="right")
    for link in made.links.values():
        del link.left["city"], link.right["city"]
    made.edit_right('["1"]', city="Oslo")
    made.put_left(id=2, first="Bob", last="ray")
    made.sync()
    for link in made.links.values():
        link.left.pop("city")
        link.right.pop("city")
    made.edit_left('["1"]', city="Bonn")
    plan = made.sync()
    assert plan.brief() == [("left", "update", "overruled")]
    assert plan.summary.agreed == 1
    assert made.left['["1"]']["city"] == "Oslo"
    assert quiet(made)


def test_a_held_link_stays_until_a_side_is_edited():
    made = in_step()
    made.edit_left('["1"]', stock=12)
    made.sync()
    made.edit_right('["1"]', stock=10)
    link = made.links['["1"]', '["1"]']
    link.state, link.right = "held", {**link.right, "stock": "10"}
    assert quiet(made)
    made.edit_right('["1"]', town="Oslo")
    assert made.sync().only("left")["after"] == {"city": "Oslo"}
    assert made.left['["1"]']["stock"] == "12"
    assert made.right['["1"]']["stock"] == "10"
    assert quiet(made)


@pytest.mark.parametrize("gone", ["left", "right"])
def test_a_held_link_remembers_a_side_that_is_absent_on_purpose(gone):
    made = in_step()
    link = made.links['["1"]', '["1"]']
    link.state = "held"
    setattr(link, gone, {})
    getattr(made, gone).clear()
    assert quiet(made)
    other = {"left": "right", "right": "left"}[gone]
    getattr(made, f"edit_{other}")('["1"]', stock=11)
    assert made.sync().brief() == [(gone, "insert", "new")]
    assert quiet(made)


def test_a_held_link_whose_absent_side_is_back_is_a_first_contact():
    made = in_step(first_contact="left")
    link = made.links['["1"]', '["1"]']
    link.state, link.right = "held", {}
    made.edit_right('["1"]', town="Oslo")
    plan = made.sync()
    assert plan.brief() == [("right", "update", "overruled")]
    assert quiet(made)


NUMBERED = assigned(
    mapped(
        dataset("l", id="integer", name="text"),
        dataset("r", id="integer", ref="integer", name="text"),
        {"right": "ref", "left": "id"},
        "name",
    ),
    left=("id",),
    right=("id",),
)


def test_a_key_that_the_left_side_assigns_comes_back_to_the_right():
    made = world(matched(NUMBERED, ("name", ())))
    made.put_right(id=7, name="Ann")
    insert = made.sync().only("left")
    assert (insert["left_key"], insert["fields"]) == (None, ["name"])
    assert made.left == {'["1001"]': {"id": "1001", "name": "Ann"}}
    made.sync()
    assert made.right == {'["7"]': {"id": "7", "ref": "1001", "name": "Ann"}}
    assert quiet(made)


def test_links_of_records_out_of_scope_keep_others_from_matching(tmp_path):
    programs = compile_two_way(BY_CODE, rule())
    with (
        Runner(programs.forward) as forward,
        Runner(programs.backward) as backward,
        Reconciler(
            BY_CODE, rule(), complete=True, forward=forward.run, backward=backward.run,
            memory_limit_mb=128, spill_directory=tmp_path, now=NOW,
        ) as reconciler,
    ):  # fmt: skip
        left = pa.RecordBatch.from_pydict({"code": ["a"], "name": ["Ann"]})
        reconciler.add_left(forward.run(left).records)
        right = {"code": ["a"], "name": ["Ann"], "id": pa.array([7], pa.int64())}
        reconciler.add_right(pa.table(right))
        reconciler.add_other_links(pa.table({"left_key": ['["z"]'], "right_key": ['["7"]']}))
        summary = reconciler.plan()
    assert (summary.matched, summary.right.inserts, summary.left.inserts) == (0, 1, 0)


def test_records_that_share_a_key_are_left_alone():
    made = in_step()
    copy = made.left['["1"]']
    made.left["copy"] = {**copy, "stock": "11"}
    made.right.clear()
    plan = made.plan()
    assert (plan.changes, plan.gone, plan.summary.unknown) == ([], [], 1)
    assert [r.code for r in plan.rejections] == ["record.duplicate_key"]
