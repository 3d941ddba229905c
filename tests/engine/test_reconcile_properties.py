"""What two-way plans promise, for any edits on both sides.

A world of a few records is edited at random on both sides, planned and applied, several times.
The sides may be lossy: an expression drops the case of a text, and the right side stores less than
it is given.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apps.engine.reconcile import BASE, reconcile
from apps.engine.spec import FieldPolicySpec, RuleSpec, TwoWaySpec
from tests.engine.specs import dataset, mapped
from tests.engine.two_sides import World

LEFT = dataset("l", id="integer", a="text", b="text", low="text", n="integer", tags="text")
RIGHT = dataset(
    "r", id="integer", a="text", b="text", up="text", n="integer", tags="text", both="text"
)
MAPPING = mapped(
    LEFT,
    RIGHT,
    "id",
    "a",
    "b",
    "n",
    "tags",
    {"right": "up", "left": "low", "to_right": "upper(low)", "to_left": "lower(up)"},
    {"right": "both", "to_right": "coalesce(a, '') || '/' || coalesce(b, '')"},
)
POLICIES = ("left", "right", "ask", "highest", "lowest")
KEYS = ("1", "2", "3", "4")
OF_LEFT = {"a": "a", "b": "b", "low": "up", "n": "n", "tags": "tags"}
SLOW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def rule(policy: str, **options: str) -> RuleSpec:
    fields = [("n", "counter"), ("tags", "set"), ("a", policy), ("up", policy), ("b", policy)]
    return RuleSpec(
        direction="two_way",
        two_way=TwoWaySpec(
            fields=tuple(FieldPolicySpec(field=f, policy=p) for f, p in fields),
            **{"first_contact": "left", **options},
        ),
    )


edits = st.lists(
    st.tuples(
        st.sampled_from(["left", "right"]),
        st.sampled_from(["edit", "edit", "edit", "delete", "put"]),
        st.sampled_from(KEYS),
        st.sampled_from(list(OF_LEFT)),
        st.integers(0, 4),
    ),
    max_size=12,
)
numbers = count()


def make(world: World, step: tuple[str, str, str, str, int]) -> None:
    """Carry out one random edit; texts are new each time, so that they can be found again."""
    side, what, key, name, number = step
    records = getattr(world, side)
    text = f'["{key}"]'
    field = name if side == "left" else OF_LEFT[name]
    value = {"n": str(number), "tags": "xyz"[: number % 4]}.get(name, f"v{next(numbers)}")
    value = value.upper() if field == "up" else ",".join(value) if name == "tags" else value
    if what == "delete":
        records.pop(text, None)
    elif what == "put" and text not in records:
        getattr(world, f"put_{side}")(id=key, **{field: value})
    elif text in records:
        getattr(world, f"edit_{side}")(text, **{field: value})


def values_of(world: World) -> set[str]:
    """Every new text that a side holds."""
    records = [*world.left.values(), *world.right.values()]
    texts = {value for record in records for value in record.values() if value}
    return {text for text in texts if text.lower().startswith("v") and "/" not in text}


def kept(world: World, plan) -> set[str]:
    """Every text that a side, a change's image before or a conflict holds."""
    found = values_of(world)
    images = [change["before"] for change in plan.changes]
    images += [conflict[side] for conflict in plan.conflicts for side in ("left", "right")]
    for image in filter(None, images):
        found |= {value for value in json.loads(image).values() if value}
    return found


def agree(world: World) -> None:
    """Both sides hold the same records, as far as the mapping says."""
    assert world.left.keys() == world.right.keys()
    for key, left in world.left.items():
        right = world.right[key]
        assert (left["a"] or "")[:9] == (right["a"] or "")[:9]
        assert [left[n] for n in ("b", "n", "tags")] == [right[n] for n in ("b", "n", "tags")]
        assert (left["low"] or "").upper() == (right["up"] or "")


@SLOW
@given(st.sampled_from(POLICIES), st.lists(edits, min_size=1, max_size=3))
def test_nothing_is_lost_and_the_next_plan_is_empty(policy, rounds):
    world = World(MAPPING, rule(policy))
    for steps in rounds:
        for step in steps:
            make(world, step)
        held = values_of(world)
        plan = world.sync()
        assert held <= kept(world, plan)
        assert plan.rejections == []
        again = world.plan()
        assert again.changes == []
        assert again.gone == []
        assert again.refreshes == []
        assert [c["seen"] for c in again.conflicts] == [c["seen"] for c in plan.conflicts]
        if not plan.conflicts:
            agree(world)


@SLOW
@given(st.lists(edits, min_size=1, max_size=2), st.integers(1, 3))
def test_a_side_that_stores_less_than_it_is_given_does_not_echo(rounds, length):
    world = World(MAPPING, rule("left", edit_delete="delete"))
    world.store_right = lambda record: {**record, "a": record["a"] and record["a"][:length]}
    for steps in rounds:
        for step in steps:
            make(world, step)
        world.sync()
        world.sync()
        assert world.plan().changes == []
        assert world.left.keys() == world.right.keys()


@SLOW
@given(st.data())
def test_edits_to_different_fields_of_one_record_merge(data):
    world = World(MAPPING, rule("ask"))
    for key in KEYS:
        world.put_left(id=key, a="old", b="old", low="old", n="1", tags="x")
    world.sync()
    expected = {}
    for key in KEYS:
        names = data.draw(st.permutations(list(OF_LEFT)))
        cut = data.draw(st.integers(0, len(names)))
        new = {"a": "newa", "b": "newb", "low": "newlow", "n": "7", "tags": "z"}
        world.edit_left(f'["{key}"]', **{name: new[name] for name in names[:cut]})
        world.edit_right(
            f'["{key}"]',
            **{OF_LEFT[n]: new[n].upper() if n == "low" else new[n] for n in names[cut:]},
        )
        expected[key] = {"id": key, **new}
    assert world.sync().conflicts == []
    assert {record["id"]: record for record in world.left.values()} == expected
    agree(world)
    world.sync()
    assert world.plan().changes == []


@SLOW
@given(st.lists(edits, min_size=2, max_size=3), st.randoms(use_true_random=False))
def test_changes_that_fail_are_made_up_for(rounds, random):
    """Any part of a plan may be refused: what comes of it is the same in the end."""
    world = World(MAPPING, rule("right"))
    for steps in rounds:
        for step in steps:
            make(world, step)
        held = values_of(world)
        plan = world.plan()
        world.apply(plan, refused=lambda _: random.random() < 0.4)
        found = kept(world, plan)
        found |= kept(world, world.sync()) | kept(world, world.sync())
        assert held <= found
        assert world.plan().changes == []
        agree(world)


@pytest.mark.parametrize("first", ["left", "right"])
@pytest.mark.parametrize(("left", "right", "sum_"), [("13", "15", "18"), ("11", "9", "10")])
def test_a_counter_that_half_failed_counts_each_delta_once(left, right, sum_, first):
    world = World(MAPPING, rule("ask"))
    world.put_left(id="1", n="10")
    world.sync()
    world.edit_left('["1"]', n=left)
    world.edit_right('["1"]', n=right)
    world.apply(world.plan(), refused=lambda change: change["side"] == first)
    world.sync()
    world.sync()
    assert (world.left['["1"]']["n"], world.right['["1"]']["n"]) == (sum_, sum_)


def test_a_counter_moved_alike_on_both_sides_counts_twice():
    world = World(MAPPING, rule("ask"))
    world.put_left(id="1", n="10")
    world.sync()
    world.edit_left('["1"]', n="11")
    world.edit_right('["1"]', n="11")
    world.sync()
    assert (world.left['["1"]']["n"], world.right['["1"]']["n"]) == ("12", "12")


def test_records_that_all_changed_are_planned_in_bounded_memory():
    """Blocks of every column of a table that is being made stay in memory."""
    count, names = 6_000, [f"s{place}" for place in range(24)]
    side = dataset("s", id="integer", **dict.fromkeys(names, "text"))
    mapping = mapped(side, side, "id", *names)
    policy = RuleSpec(direction="two_way", two_way=TwoWaySpec())
    ids = pa.array(range(count), pa.int64())
    old, new = (
        pa.table({"id": ids, **{n: [f"{word} {n} {i}" for i in range(count)] for n in names}})
        for word in ("old", "new")
    )
    first = reconcile(mapping, policy, old, old, memory_limit_mb=1_000).refreshes
    base = pa.table(
        [first[n] for n in ("left_key", "right_key", "base_left", "base_right")]
        + [pa.array(["live"] * count)],
        names=BASE.names,
    )
    plan = reconcile(mapping, policy, new, old, base, memory_limit_mb=100)
    assert plan.summary.right.updates == count
    assert set(plan.changes["left_key"].to_pylist()) == set(base["left_key"].to_pylist())


BIG = Path(__file__).with_name("big_reconcile.py")


def test_twice_two_hundred_thousand_records_are_planned_in_bounded_memory(tmp_path):
    result = subprocess.run(
        [sys.executable, str(BIG), str(tmp_path), "200000", "192"],
        cwd=BIG.parents[2],
        env={**os.environ, "PYTHONPATH": str(BIG.parents[2])},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2_000:]
    report = json.loads(result.stdout)
    assert (report["left_updates"], report["right_updates"]) == (2_000, 1_800)
    assert (report["conflicts"], report["unchanged"], report["bases"]) == (200, 196_000, 4_000)
    assert report["max_rss_mb"] < 640
