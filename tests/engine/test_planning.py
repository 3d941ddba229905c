"""One-way planning: against a naive reference, case by case, and within its memory."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.engine.codec import image_hashes
from apps.engine.planning import Planner
from apps.engine.spec import CheckSpec, DeletePolicy, RuleSpec
from apps.engine.types_sql import key_text
from tests.engine.specs import dataset, mapped

LEFT = dataset("l", id="integer", code="text", name="text", x="float")
RIGHT = dataset("r", ("code",), code="text", name="text", x="float", gone="boolean")
MAPPING = mapped(LEFT, RIGHT, "code", "name", "x", key=("code",))
TYPES = {name: RIGHT.field(name).neutral_type for name in ("code", "name", "x")}
MARK = RuleSpec(on_delete="mark", on_leave="mark", mark_field="gone", mark_value="TRUE")


def lk(number: int) -> str:
    return key_text([str(number)])


def rk(code: str) -> str:
    return key_text([code])


def left(*rows):
    """Rows (id, code, name, x) as `Transformed.records`."""
    columns = list(zip(*rows, strict=True)) if rows else [[]] * 4
    return pa.table(
        {
            "code": pa.array(columns[1], pa.string()),
            "name": pa.array(columns[2], pa.string()),
            "x": pa.array(columns[3], pa.float64()),
            "__left_key": pa.array([lk(number) for number in columns[0]], pa.string()),
            "__right_key": pa.array([rk(code) for code in columns[1]], pa.string()),
        }
    )


def right(*rows):
    """Rows (code, name, x[, gone])."""
    padded = [(*row, None)[:4] for row in rows]
    columns = list(zip(*padded, strict=True)) if rows else [[]] * 4
    kinds = [
        ("code", pa.string()),
        ("name", pa.string()),
        ("x", pa.float64()),
        ("gone", pa.bool_()),
    ]
    return pa.table(
        {name: pa.array(column, kind) for (name, kind), column in zip(kinds, columns, strict=True)}
    )


def keys(*pairs):
    return pa.table(
        {
            "__left_key": pa.array([lk(number) for number, _ in pairs], pa.string()),
            "__right_key": pa.array([rk(code) for _, code in pairs], pa.string()),
        }
    )


def links(*pairs):
    return pa.table(
        {
            "left_key": pa.array([lk(number) for number, _ in pairs], pa.string()),
            "right_key": pa.array([rk(code) for _, code in pairs], pa.string()),
        }
    )


@pytest.fixture
def planner(tmp_path):
    opened = []

    def open_planner(rule=None, *, complete=True, **options):
        made = Planner(
            MAPPING, rule or RuleSpec(), complete=complete, memory_limit_mb=128,
            spill_directory=tmp_path, **options,
        )  # fmt: skip
        opened.append(made)
        return made

    yield open_planner
    for made in opened:
        made.close()


def rows_of(tables):
    return [row for table in tables for row in table.to_pylist()]


def brief(plan):
    """(operation, left key, right key, cause) of each change, sorted."""
    return sorted(
        (c["operation"], c["left_key"], c["right_key"], c["cause"]) for c in rows_of(plan.changes())
    )


def test_insert_update_delete_and_unchanged(planner):
    plan = planner()
    plan.add_left(left((1, "a", "A", 1.0), (2, "b", "B", None), (3, "c", None, float("nan"))))
    plan.add_right(
        right(("b", "old", 2.0), ("c", None, float("nan")), ("d", "D", 4.0), ("e", "E", 5.0))
    )
    plan.add_links(links((2, "b"), (4, "d")))
    summary = plan.plan()
    assert (summary.inserts, summary.updates, summary.deletes, summary.unchanged) == (1, 1, 1, 1)
    assert (summary.read_left, summary.read_right, summary.linked) == (3, 4, 2)
    delete, update, insert = rows_of(plan.changes())
    assert (delete["operation"], delete["left_key"], delete["right_key"]) == (
        "delete",
        lk(4),
        rk("d"),
    )
    assert json.loads(delete["before"]) == {"code": "d", "name": "D", "x": "4.0"}
    assert delete["after"] is None
    assert delete["image"] is None
    assert delete["fields"] == []
    assert update["fields"] == ["name", "x"]
    assert json.loads(update["before"]) == {"name": "old", "x": "2.0"}
    assert json.loads(update["after"]) == {"name": "B", "x": None}
    assert insert["fields"] == ["code", "name", "x"]
    assert insert["before"] is None
    assert json.loads(insert["after"]) == {"code": "a", "name": "A", "x": "1.0"}
    assert [c["cause"] for c in (delete, update, insert)] == ["deleted", "changed", "new"]
    assert insert["image"] == image_hashes(left((1, "a", "A", 1.0)), TYPES)[0]
    assert rows_of(plan.unchanged()) == [
        {
            "left_key": lk(3),
            "right_key": rk("c"),
            "image": image_hashes(right(("c", None, float("nan"))), TYPES)[0],
        }
    ]


def test_what_was_never_linked_is_never_deleted(planner):
    plan = planner()
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    assert plan.plan().changes == 0


def test_zero_of_either_sign_is_equal(planner):
    plan = planner()
    plan.add_left(left((1, "a", "A", 0.0)))
    plan.add_right(right(("a", "A", -0.0)))
    assert plan.plan().unchanged == 1


@pytest.mark.parametrize(("policy", "expected"), [("propagate", 1), ("ignore", 0)])
def test_delete_policy(planner, policy, expected):
    plan = planner(RuleSpec(on_delete=policy))
    plan.add_right(right(("a", "A", 1.0)))
    plan.add_links(links((1, "a")))
    assert plan.plan().deletes == expected


def test_mark_sets_the_mark_once(planner):
    plan = planner(MARK)
    assert plan.right_fields == ("code", "name", "x", "gone")
    plan.add_right(right(("a", "A", 1.0, None), ("b", "B", 1.0, False), ("c", "C", 1.0, True)))
    plan.add_links(links((1, "a"), (2, "b"), (3, "c")))
    summary = plan.plan()
    assert (summary.marks, summary.deletes, summary.updates) == (2, 0, 0)
    changes = sorted(rows_of(plan.changes()), key=lambda c: c["right_key"])
    assert [(c["operation"], c["cause"], c["fields"]) for c in changes] == [
        ("update", "marked", ["gone"])
    ] * 2
    assert [json.loads(c["before"])["gone"] for c in changes] == [None, "false"]
    assert [json.loads(c["after"])["gone"] for c in changes] == ["true", "true"]


def test_a_marked_record_that_reappears_is_updated_and_keeps_an_unmapped_mark(planner):
    plan = planner(MARK)
    plan.add_left(left((1, "a", "new", 1.0)))
    plan.add_right(right(("a", "A", 1.0, True)))
    plan.add_links(links((1, "a")))
    plan.plan()
    (change,) = rows_of(plan.changes())
    assert change["fields"] == ["name"]


def test_a_mapped_mark_is_set_back_when_the_record_reappears(tmp_path):
    mapping = mapped(LEFT, RIGHT, "code", {"right": "gone", "constant": "false"}, key=("code",))
    with Planner(
        mapping, MARK, complete=True, memory_limit_mb=128, spill_directory=tmp_path
    ) as plan:
        plan.add_left(
            left((1, "a", "A", 1.0)).append_column("gone", pa.array([False])).drop(["name", "x"])
        )
        plan.add_right(pa.table({"code": ["a", "b"], "gone": [True, False]}))
        plan.add_links(links((1, "a"), (2, "b")))
        plan.plan()
        changes = {c["right_key"]: c for c in rows_of(plan.changes())}
    assert json.loads(changes[rk("a")]["after"]) == {"gone": "false"}
    assert json.loads(changes[rk("b")]["after"]) == {"gone": "true"}
    marked = pa.table({"code": ["b"], "gone": [True]})
    types = {name: RIGHT.field(name).neutral_type for name in ("code", "gone")}
    assert changes[rk("b")]["image"] == image_hashes(marked, types)[0]


@pytest.mark.parametrize(
    ("policy", "deletes", "marks"), [("delete", 1, 0), ("mark", 0, 1), ("keep", 0, 0)]
)
@pytest.mark.parametrize("complete", [True, False])
def test_leaving_the_filter(planner, policy, deletes, marks, complete):
    plan = planner(RuleSpec(on_leave=policy, mark_field="gone"), complete=complete)
    plan.add_left_out(keys((1, "a"), (2, "b")))
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(links((1, "a")))
    summary = plan.plan()
    assert (summary.deletes, summary.marks) == (deletes, marks)
    assert {c[3] for c in brief(plan)} <= {"left_filter"}


def test_duplicates_are_all_rejected_and_their_target_is_untouched(planner):
    plan = planner()
    plan.add_left(
        left((1, "a", "A", 1.0), (2, "a", "B", 2.0), (3, "c", "C", 3.0), (3, "d", "D", 4.0))
    )
    plan.add_right(right(("a", "old", 0.0), ("c", "old", 0.0)))
    plan.add_links(links((1, "a"), (3, "c")))
    summary = plan.plan()
    assert summary.changes == 0
    assert summary.rejected == 4
    found = list(plan.rejections())
    assert {r.code for r in found} == {"record.duplicate_key"}
    assert {r.left_key for r in found} == {lk(1), lk(2), lk(3)}
    assert {r.right_key for r in found} == {rk(code) for code in "acd"}
    assert {r.message for r in found} == {"several left records have the same key"}
    assert all(r.record == {} for r in found)  # right values would be of no use to a replay


def test_several_right_records_of_one_key_are_ambiguous(planner):
    plan = planner()
    plan.add_left(left((1, "a", "A", 1.0)))
    plan.add_right(right(("a", "x", 1.0), ("a", "y", 1.0), ("b", "x", 1.0), ("b", "y", 1.0)))
    plan.add_links(links((2, "b")))
    assert plan.plan().changes == 0
    assert [r.code for r in plan.rejections()] == ["record.ambiguous"]
    assert rows_of(plan.gone()) == []


def test_a_right_record_linked_to_another_living_left_record_is_ambiguous(planner):
    plan = planner()
    plan.add_left(left((1, "b", "A", 1.0), (2, "a", "B", 1.0)))
    plan.add_right(right(("a", "A", 1.0)))
    plan.add_links(links((1, "a")))
    plan.plan()
    assert brief(plan) == [("update", lk(1), rk("a"), "changed")]
    assert [(r.left_key, r.code) for r in plan.rejections()] == [(lk(2), "record.ambiguous")]


@pytest.mark.parametrize("complete", [True, False])
def test_a_right_record_linked_to_a_left_record_that_is_not_given_is_ambiguous(planner, complete):
    plan = planner(RuleSpec(on_leave="delete"), complete=complete)
    plan.add_left(left((2, "a", "B", 1.0), (3, "c", "C", 1.0), (4, "d", "D", 1.0)))
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0), ("c", "old", 1.0), ("d", "old", 1.0)))
    plan.add_links(links((3, "c")))
    plan.add_other_links(links((1, "a"), (7, "b"), (8, "z")))
    summary = plan.plan()
    assert brief(plan) == [
        ("update", lk(3), rk("c"), "changed"),
        ("update", lk(4), rk("d"), "changed"),
    ]
    assert [(r.left_key, r.code) for r in plan.rejections()] == [(lk(2), "record.ambiguous")]
    assert rows_of(plan.gone()) == []
    assert summary.linked == 1


def test_a_link_given_twice_may_be_dead_all_the_same(planner):
    plan = planner()
    plan.add_left(left((9, "a", "new", 1.0)))
    plan.add_right(right(("a", "A", 1.0)))
    plan.add_links(links((1, "a")))
    plan.add_other_links(links((1, "a")))
    plan.plan()
    assert brief(plan) == [("update", lk(9), rk("a"), "changed")]


def test_a_record_created_anew_on_the_left_takes_its_right_record_over(planner):
    plan = planner()
    plan.add_left(left((9, "a", "new", 1.0)))
    plan.add_right(right(("a", "A", 1.0)))
    plan.add_links(links((1, "a")))
    plan.plan()
    assert brief(plan) == [("update", lk(9), rk("a"), "changed")]
    assert rows_of(plan.gone()) == [{"left_key": lk(1), "right_key": rk("a")}]


def test_a_changed_key_moves_the_linked_record(planner):
    plan = planner()
    plan.add_left(left((1, "b", "A", 1.0)))
    plan.add_right(right(("a", "A", 1.0)))
    plan.add_links(links((1, "a")))
    plan.plan()
    (change,) = rows_of(plan.changes())
    assert (change["right_key"], change["key_after"]) == (rk("a"), rk("b"))
    assert json.loads(change["after"]) == {"code": "b"}


def test_a_changed_key_that_is_taken_is_refused(planner):
    plan = planner()
    plan.add_left(left((1, "b", "A", 1.0)))
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(links((1, "a")))
    assert plan.plan().changes == 0
    assert [r.code for r in plan.rejections()] == ["record.key_taken"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_key_freed_by_a_deleted_record_is_taken_in_the_next_plan(planner, complete):
    rule = RuleSpec(on_leave="delete")
    plan = planner(rule, complete=complete)
    plan.add_left(left((2, "a", "B", 1.0)))
    if not complete:
        plan.add_left_out(keys((1, "a")))
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(links((1, "a"), (2, "b")))
    plan.plan()
    assert [r.code for r in plan.rejections()] == ["record.key_taken"]
    assert brief(plan) == [
        ("delete", lk(1), rk("a"), "deleted" if complete else "left_filter"),
    ]
    following = planner(rule, complete=complete)
    following.add_left(left((2, "a", "B", 1.0)))
    following.add_right(right(("b", "B", 1.0)))
    following.add_links(links((2, "b")))
    following.plan()
    (change,) = rows_of(following.changes())
    assert (change["operation"], change["key_after"]) == ("update", rk("a"))


def test_a_linked_record_that_vanished_is_inserted_again(planner):
    plan = planner(complete=False)
    plan.add_left(left((1, "a", "A", 1.0), (2, "c", "C", 1.0)))
    plan.add_right(right(("c", "old", 1.0)))
    plan.add_links(links((1, "a"), (2, "b")))
    plan.plan()
    assert brief(plan) == [
        ("insert", lk(1), rk("a"), "new"),
        ("update", lk(2), rk("c"), "changed"),
    ]


def test_candidates_alone_never_lead_to_deletes(planner):
    plan = planner(complete=False)
    plan.add_left(left((1, "a", "A", 1.0)))
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(links((1, "a"), (2, "b")))
    assert plan.plan().changes == 0
    assert rows_of(plan.gone()) == []


def test_a_rejected_record_is_not_taken_for_deleted(planner):
    plan = planner()
    plan.add_rejected([(lk(1), None), (lk(7), rk("b"))])
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0), ("c", "C", 1.0)))
    plan.add_links(links((1, "a"), (2, "b"), (3, "c")))
    summary = plan.plan()
    assert brief(plan) == [("delete", lk(3), rk("c"), "deleted")]
    assert not summary.deletes_held_back


def test_a_rejected_record_without_a_key_holds_all_deletes_back(planner):
    plan = planner(RuleSpec(on_leave="delete"))
    plan.add_rejected([(None, None)])
    plan.add_left_out(keys((2, "b")))
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(links((1, "a"), (2, "b"), (3, "z")))
    summary = plan.plan()
    assert brief(plan) == [("delete", lk(2), rk("b"), "left_filter")]
    assert summary.deletes_held_back
    assert summary.held_back == 1
    assert "1 left records" in summary.reason
    assert rows_of(plan.gone()) == []


@pytest.mark.parametrize("keys_only", [False, True])
def test_a_rejected_record_whose_primary_key_changed_holds_deletes_back(planner, keys_only):
    plan = planner(keys_only=keys_only)
    plan.add_rejected([(lk(9), None), (lk(2), None)])
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(links((1, "a"), (2, "b")))
    summary = plan.plan()
    assert summary.changes == 0
    assert summary.deletes_held_back
    assert summary.held_back == 1
    assert "1 left records" in summary.reason


def test_a_rejected_record_whose_right_key_is_known_holds_nothing_back(planner):
    plan = planner()
    plan.add_rejected([(lk(9), rk("a"))])
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(links((1, "a"), (2, "b")))
    assert not plan.plan().deletes_held_back
    assert brief(plan) == [("delete", lk(2), rk("b"), "deleted")]


def test_links_whose_both_sides_are_gone_are_told(planner):
    plan = planner()
    plan.add_left(left((1, "a", "A", 1.0)))
    plan.add_left_out(keys((2, "b")))
    plan.add_right(right(("a", "A", 1.0), ("d", "D", 1.0)))
    plan.add_links(links((1, "a"), (2, "b"), (3, "c"), (4, "d")))
    assert sorted(row["right_key"] for row in rows_of(plan.gone())) == [rk("b"), rk("c")]


@pytest.mark.parametrize("severity", ["reject", "warn", "stop"])
def test_unique_checks_see_the_whole_run(planner, severity):
    check = CheckSpec(name="u", kind="unique", field="name", severity=severity)
    plan = planner(RuleSpec(checks=(check,)))
    for number, name in ((1, "A"), (2, "B"), (3, "A"), (4, None), (5, None)):
        plan.add_left(left((number, str(number), name, 1.0)))
    summary = plan.plan()
    assert summary.inserts == (5 if severity == "warn" else 3)
    assert summary.warnings == ({"u": 2} if severity == "warn" else {})
    found = {"reject": plan.rejections, "stop": plan.stops, "warn": list}[severity]
    assert sorted((r.left_key, r.code, r.check) for r in found()) == (
        [] if severity == "warn" else [(lk(n), "record.check_failed", "u") for n in (1, 3)]
    )
    assert summary.stops == (2 if severity == "stop" else 0)


def unique_names(severity="reject", **policies):
    check = CheckSpec(name="u", kind="unique", field="name", severity=severity)
    return RuleSpec(checks=(check,), **policies)


@pytest.mark.parametrize("severity", ["reject", "warn", "stop"])
@pytest.mark.parametrize("complete", [True, False])
def test_unique_checks_see_right_records_that_stay(planner, severity, complete):
    plan = planner(unique_names(severity), complete=complete)
    plan.add_left(
        left((1, "a", "Z", 1.0), (2, "b", "B", 1.0), (3, "c", "A", 1.0), (4, "d", None, 1.0))
    )
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0), ("z", "Z", 1.0), ("y", None, 1.0)))
    plan.add_links(links((2, "b")))
    summary = plan.plan()
    if severity == "warn":
        assert (summary.warnings, summary.changes) == ({"u": 1}, 3)
        return
    found = {"reject": plan.rejections, "stop": plan.stops}[severity]
    failed = sorted((r.left_key, r.code, r.check) for r in found())
    # z keeps "Z", so a keeps "A", so c cannot have it.
    assert failed == [(lk(n), "record.check_failed", "u") for n in (1, 3)]
    assert brief(plan) == [("insert", lk(4), rk("d"), "new")]
    assert summary.unchanged == 1


@pytest.mark.parametrize(("policy", "fails"), [("propagate", False), ("ignore", True)])
def test_the_value_of_a_right_record_that_is_deleted_is_free(planner, policy, fails):
    plan = planner(unique_names(on_delete=policy))
    plan.add_left(left((2, "b", "A", 1.0)))
    plan.add_right(right(("a", "A", 1.0)))
    plan.add_links(links((1, "a")))
    summary = plan.plan()
    assert (summary.rejected, summary.inserts) == ((1, 0) if fails else (0, 1))
    assert summary.deletes == (not fails)


def test_a_right_record_is_not_taken_over_by_a_record_that_fails_a_unique_check(planner):
    plan = planner(unique_names())
    plan.add_left(left((9, "a", "Z", 1.0)))
    plan.add_right(right(("a", "A", 1.0), ("z", "Z", 1.0), ("d", "D", 1.0)))
    plan.add_links(links((0, "x"), (1, "a"), (2, "d")))
    plan.plan()
    assert brief(plan) == [("delete", lk(2), rk("d"), "deleted")]
    assert [r.left_key for r in plan.rejections()] == [lk(9)]
    assert rows_of(plan.gone()) == [{"left_key": lk(0), "right_key": rk("x")}]


def test_records_may_swap_unique_values(planner):
    plan = planner(unique_names())
    plan.add_left(left((1, "a", "B", 1.0), (2, "b", "A", 1.0)))
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    assert plan.plan().updates == 2


def test_the_key_sweep(planner):
    plan = planner(keys_only=True, complete=True)
    plan.add_left(pa.table({"__left_key": [lk(1), lk(2), lk(5)]}))
    plan.add_rejected([(lk(6), None)])  # linked: nothing is held back for it
    plan.add_links(links((1, "a"), (3, "c"), (4, "d"), (6, "f")))
    assert sorted(row["left_key"] for row in rows_of(plan.missing_keys())) == [lk(2), lk(5)]
    absent = sorted(row["right_key"] for row in rows_of(plan.absent()))
    assert absent == [rk("c"), rk("d")]
    plan.add_right(right(("c", "C", 1.0)))
    plan.plan()
    assert brief(plan) == [("delete", lk(3), rk("c"), "deleted")]
    assert rows_of(plan.gone()) == [{"left_key": lk(4), "right_key": rk("d")}]


def test_a_record_with_two_links_is_rejected(planner):
    plan = planner()
    plan.add_left(left((1, "a", "new", 1.0), (2, "b", "new", 1.0)))
    plan.add_right(right(("a", "A", 1.0), ("c", "C", 1.0)))
    plan.add_links(links((1, "a"), (1, "c"), (2, "a")))
    plan.plan()
    assert brief(plan) == [("update", lk(2), rk("a"), "changed")]
    assert {r.left_key for r in plan.rejections()} == {lk(1)}


def test_names_of_fields_may_be_anything(tmp_path):
    odd = {'a"b': "text", "a'b": "text", "A B": "integer", "a b": "integer", "é/~": "text"}
    side = dataset("s", ("A B",), **odd)
    values = {**dict(zip(odd, ["x", "y", 1, 2, None], strict=True))}
    schema = pa.schema([(name, side.field(name).neutral_type.arrow) for name in odd])
    table = pa.Table.from_pylist([values], schema=schema)
    key = pa.array([lk(1)])
    with Planner(
        mapped(side, side, *odd, key=("A B",)), RuleSpec(), complete=True,
        memory_limit_mb=64, spill_directory=tmp_path,
    ) as plan:  # fmt: skip
        plan.add_left(table.append_column("__left_key", key).append_column("__right_key", key))
        plan.add_right(table.set_column(0, schema.field(0), pa.array(["old"])))
        plan.plan()
        (change,) = rows_of(plan.changes())
    assert change["fields"] == ['a"b']
    assert json.loads(change["after"]) == {'a"b': "x"}


def test_the_spill_directory_is_private_and_removed(tmp_path):
    with Planner(MAPPING, RuleSpec(), complete=True, memory_limit_mb=64, spill_directory=tmp_path):
        (private,) = tmp_path.iterdir()
        assert private.stat().st_mode & 0o777 == 0o700
    assert list(tmp_path.iterdir()) == []


def test_spill_files_do_not_hold_values_in_clear(tmp_path):
    with Planner(
        MAPPING, RuleSpec(), complete=True, memory_limit_mb=48, spill_directory=tmp_path, threads=1
    ) as plan:
        for start in range(0, 200_000, 20_000):
            rows = range(start, start + 20_000)
            secrets = [f"SECRET-VALUE-{hashlib.sha256(b'%d' % n).hexdigest() * 4}" for n in rows]
            plan.add_left(left(*((n, f"c{n}", secrets[n - start], 1.0) for n in rows)))
        assert plan.plan().inserts == 200_000
        (private,) = tmp_path.iterdir()
        data = b"".join(path.read_bytes() for path in private.iterdir())
    assert len(data) > 1_000_000
    assert b"SECRET-VALUE" not in data


# Against a naive reference.

codes = st.sampled_from(["a", "b", "c", "d", "e", "f"])
names = st.sampled_from([None, "", "A", "B"])
floats = st.sampled_from([None, 0.0, 1.5, float("nan")])
numbers = st.integers(1, 7)


@st.composite
def worlds(draw):
    lefts = draw(st.lists(st.tuples(numbers, codes, names, floats), max_size=7))
    rights = draw(st.lists(st.tuples(codes, names, floats), max_size=6, unique_by=lambda r: r[0]))
    pairs = draw(
        st.lists(st.tuples(numbers, codes), max_size=6, unique_by=(lambda p: p[0], lambda p: p[1]))
    )
    out = draw(st.lists(st.tuples(numbers, codes), max_size=2))
    known = {row[0] for row in lefts}
    out = [pair for pair in out if pair[0] not in known]
    rejected = draw(st.lists(st.tuples(st.none() | numbers, st.none() | codes), max_size=2))
    return lefts, rights, pairs, out, rejected


def expected_plan(lefts, rights, pairs, out, rejected, rule, complete):
    """The plan, record by record: {right code: (operation, left id)}, and rejected left rows."""
    target = {row[0]: row for row in rights}
    linked = dict(pairs)
    living = {row[0] for row in lefts} | {number for number, _ in rejected if number}
    bad = {
        i
        for i, one in enumerate(lefts)
        for j, two in enumerate(lefts)
        if i != j and (one[0] == two[0] or one[1] == two[1])
    }
    twice = set(bad)
    wanted = {}
    for place, row in enumerate(lefts):
        if place not in bad:
            code, fine = expected_pair(row, pairs, target, living, complete)
            if fine:
                wanted[place] = code
            else:
                bad.add(place)
    claimed = [code for code in wanted.values() if code is not None]
    shared = {place for place, code in wanted.items() if claimed.count(code) > 1}
    bad |= shared
    plan = {}
    for place in wanted.keys() - shared:
        number, *values = lefts[place]
        code = wanted[place]
        if code is None:
            plan[values[0]] = ("insert", number)
        elif not same(values, target[code]):
            plan[code] = ("update", number)
    # A record that cannot move because its key is taken does not claim that key.
    stuck = {
        p for p in bad - twice - shared if linked.get(lefts[p][0]) in target.keys() - {lefts[p][1]}
    }
    claims = {row[1] for place, row in enumerate(lefts) if place not in stuck}
    taken = claims | {code for _, code in rejected} | {*wanted.values()}
    absent = [p for p in pairs if p[0] not in living and p[1] in target and p[1] not in taken]
    known = {number for number, _ in pairs}
    unknown = any(n is None or (c is None and n not in known) for n, c in rejected)
    plan.update(expected_deletes(absent, out, rule, complete and not unknown))
    return plan, bad


def expected_pair(row, pairs, target, living, complete):
    """(code of the right record or None, whether the pair is fine)."""
    number, code = row[:2]
    linked = dict(pairs).get(number)
    if linked in target:
        return linked, code == linked or code not in target
    if code not in target:
        return None, True
    others = [n for n, c in pairs if c == code and n != number]
    return code, not any(n in living or not complete for n in others)


def expected_deletes(absent, out, rule, certain):
    outs = {number for number, _ in out}
    by_filter = {c: ("delete", n) for n, c in absent if n in outs}
    by_absence = {c: ("delete", n) for n, c in absent if n not in outs}
    plan = by_filter if rule.on_leave.value == "delete" else {}
    if certain and rule.on_delete.value == "propagate":
        plan = {**plan, **by_absence}
    return plan


def same(one, other):
    return all(a == b or (a != a and b != b) for a, b in zip(one, other, strict=True))


RULES = [RuleSpec(), RuleSpec(on_delete="ignore"), RuleSpec(on_leave="delete")]


def run_plan(directory, lefts, rights, pairs, out, rejected, rule, complete):
    with Planner(
        MAPPING, rule, complete=complete, memory_limit_mb=128, spill_directory=directory, threads=1
    ) as plan:
        plan.add_left(left(*lefts))
        plan.add_right(right(*rights))
        plan.add_links(links(*pairs))
        plan.add_left_out(keys(*out))
        plan.add_rejected([(n and lk(n), c and rk(c)) for n, c in rejected])
        summary = plan.plan()
        return (
            summary,
            rows_of(plan.changes()),
            list(plan.rejections()),
            rows_of(plan.unchanged()),
            rows_of(plan.gone()),
        )


def applied(rights, pairs, changes, unchanged, gone):
    """Right rows and links after applying a plan."""
    table = {rk(row[0]): dict(zip(("code", "name", "x"), row, strict=True)) for row in rights}
    linked = {rk(code): lk(number) for number, code in pairs}
    for row in gone:
        linked.pop(row["right_key"])
    for change in changes:
        before = table.pop(change["right_key"], {})
        linked.pop(change["right_key"], None)
        linked = {r: n for r, n in linked.items() if n != change["left_key"]}
        if change["operation"] != "delete":
            after = json.loads(change["after"])
            if "x" in after and after["x"] is not None:
                after["x"] = float(after["x"])
            table[change["key_after"]] = {**before, **after}
            linked[change["key_after"]] = change["left_key"]
    for row in unchanged:
        linked = {r: n for r, n in linked.items() if n != row["left_key"]}
        linked[row["right_key"]] = row["left_key"]
    rows = [tuple(row[name] for name in ("code", "name", "x")) for row in table.values()]
    new_pairs = [(int(json.loads(n)[0]), json.loads(r)[0]) for r, n in linked.items()]
    return rows, new_pairs


@given(worlds(), st.sampled_from(RULES), st.booleans())
@settings(max_examples=70, deadline=None)
def test_the_plan_is_that_of_a_naive_reference(tmp_path_factory, world, rule, complete):
    directory = tmp_path_factory.getbasetemp()
    _, changes, rejections, _, _ = run_plan(directory, *world, rule, complete)
    expected, bad = expected_plan(*world, rule, complete)
    found = {c["right_key"]: (c["operation"], c["left_key"]) for c in changes}
    assert len(found) == len(changes)
    assert found == {rk(code): (op, lk(number)) for code, (op, number) in expected.items()}
    assert len(rejections) == len(bad)


@given(worlds(), st.sampled_from(RULES))
@settings(max_examples=35, deadline=None)
def test_applying_a_plan_converges_and_spares_what_is_not_linked(tmp_path_factory, world, rule):
    lefts, rights, pairs, out, rejected = world
    directory = tmp_path_factory.getbasetemp()
    summary, changes, rejections, unchanged, gone = run_plan(directory, *world, rule, True)
    owned = {rk(code) for _, code in pairs}
    assert all(c["right_key"] in owned for c in changes if c["operation"] == "delete")
    rows, new_pairs = applied(rights, pairs, changes, unchanged, gone)
    if rejections or rejected:
        return
    by_code = {row[0]: row for row in rows}
    assert all(same(row[1:], by_code[row[1]]) for row in lefts)
    again, more, *_ = run_plan(directory, lefts, rows, new_pairs, out, rejected, rule, True)
    assert more == []
    assert again.unchanged == len(lefts)
    assert summary.rejected == 0


# A million records.

BIG = Path(__file__).with_name("big_plan.py")


def test_a_million_records_are_planned_within_a_gibibyte(tmp_path):
    result = subprocess.run(
        [sys.executable, str(BIG), str(tmp_path)],
        cwd=BIG.parents[2],
        env={**os.environ, "PYTHONPATH": str(BIG.parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    report = json.loads(result.stdout)
    assert report["updates"] == 62_500
    assert report["changes"] == 62_500
    assert report["unlinked"] == 468_750
    assert report["max_rss_mb"] < 1_024


def held(*rows):
    """Links that an undo holds: (number, code, image of the left record)."""
    table = links(*((number, code) for number, code, _ in rows))
    images = pa.array([image for _, _, image in rows], pa.string())
    table = table.append_column("left_image", images)
    return table.append_column("state", pa.array(["held"] * len(rows), pa.string()))


def image_of(*row):
    return image_hashes(right(row), TYPES)[0]


def test_a_held_link_is_left_alone_until_its_left_record_is_edited(planner):
    for edited in (False, True):
        plan = planner()
        name = "edited" if edited else "undone"
        plan.add_left(left((1, "a", name, 1.0), (2, "b", "same", 1.0), (3, "c", name, 1.0)))
        plan.add_right(right(("a", "restored", 1.0), ("b", "other", 1.0)))
        plan.add_links(held((1, "a", image_of("a", "undone", 1.0))))
        plan.add_links(held((3, "c", image_of("c", "undone", 1.0))))
        plan.add_links(links((2, "b")))
        summary = plan.plan()
        update = [("update", lk(2), rk("b"), "changed")]
        insert = [("insert", lk(3), rk("c"), "new")]
        both = [("update", lk(1), rk("a"), "changed")]
        assert brief(plan) == (insert + both + update if edited else update)
        assert summary.kept == (0 if edited else 2)


def test_a_record_that_an_undo_brought_back_is_not_deleted_again(planner):
    plan = planner()
    plan.add_right(right(("a", "A", 1.0), ("b", "B", 1.0)))
    plan.add_links(held((1, "a", ""), (2, "b", image_of("b", "B", 1.0))))
    assert plan.plan().kept == 1
    assert brief(plan) == [("delete", lk(2), rk("b"), "deleted")]


def decided(code, seen, side):
    row = {"kind": "delete", "left_key": lk(1), "right_key": rk(code), "seen": seen, "side": side}
    return pa.table({name: pa.array([value], pa.string()) for name, value in row.items()})


def test_a_delete_that_needs_approval_is_a_conflict_until_a_person_decides(planner):
    rule = RuleSpec(on_delete=DeletePolicy.APPROVE)

    def planned(name, *decisions):
        plan = planner(rule)
        plan.add_right(right(("a", name, 1.0)))
        plan.add_links(links((1, "a")))
        for decision in decisions:
            plan.add_decisions(decision)
        plan.plan()
        return plan

    asking = planned("A")
    (conflict,) = rows_of(asking.conflicts())
    assert asking.plan().asked == 1
    assert brief(asking) == []
    assert (conflict["kind"], conflict["left_key"], conflict["left"]) == ("delete", lk(1), None)
    assert json.loads(conflict["right"])["name"] == "A"
    approved = planned("A", decided("a", conflict["seen"], "left"))
    assert brief(approved) == [("delete", lk(1), rk("a"), "decided")]
    assert rows_of(approved.conflicts()) == []
    declined = planned("A", decided("a", conflict["seen"], "right"))
    assert (brief(declined), rows_of(declined.conflicts())) == ([], [])
    assert [row["right_key"] for row in rows_of(declined.kept())] == [rk("a")]
    edited = planned("edited since", decided("a", conflict["seen"], "left"))
    assert brief(edited) == []
    assert len(rows_of(edited.conflicts())) == 1
