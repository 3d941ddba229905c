"""Narrowing: the plan over its candidates is the plan over everything, for any tables and links."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from apps.engine.codec import image_hash
from apps.engine.execution import Runner
from apps.engine.narrowing import (
    Base,
    HashingRunner,
    Narrower,
    TooManyCandidates,
    can_narrow,
)
from apps.engine.planning import Planner
from apps.engine.spec import CheckSpec, RuleSpec
from apps.engine.transform import compile_transform
from apps.engine.types_sql import key_text
from tests.engine.specs import batch_of, dataset, mapped

CODES = ["a", "b", "c", "d"]
BY_CODE = mapped(
    dataset("l", id="integer", code="text", name="text", x="float"),
    dataset("r", ("code",), code="text", name="text", x="float"),
    "code", "name", "x", key=("code",),
)  # fmt: skip
BY_ID = mapped(
    dataset("l", id="integer", name="text", x="float"),
    dataset("r", id="integer", name="text", x="float"),
    "id", "name", "x",
)  # fmt: skip
RULES = [RuleSpec(), RuleSpec(on_delete="ignore"), RuleSpec(on_leave="delete")]
STATES = st.sampled_from(["live", "live", "live", "held", "marked"])
names = st.sampled_from([None, "A"])
floats = st.sampled_from([None, 0.0, -0.0, float("nan")])
numbers = st.integers(1, 5)


def lk(number):
    return key_text([str(number)])


@st.composite
def worlds(draw, mapping):
    """Left rows (id, key, name, x), right rows (key, name, x), links, keys left out, rejected."""
    own = mapping is BY_ID
    keys = numbers if own else st.sampled_from(CODES)
    count = {"max_size": 7}
    lefts = draw(st.lists(st.tuples(numbers, keys, names, floats), **count))
    lefts = [(row[0], row[0] if own else row[1], *row[2:]) for row in lefts]
    settled = [row[1:] for row in lefts if draw(st.booleans())]
    rights = settled + draw(st.lists(st.tuples(keys, names, floats), max_size=4))
    pairs = [row[:2] for row in lefts if draw(st.booleans())]
    pairs += draw(st.lists(st.tuples(numbers, keys), max_size=3))
    links = [(*pair, draw(STATES)) for pair in dict.fromkeys(pairs)]
    known = {row[0] for row in lefts}
    out = draw(st.lists(st.tuples(numbers, keys), max_size=2))
    out = [(n, n if own else k) for n, k in out if n not in known]
    rejected = draw(st.lists(st.tuples(st.none() | numbers, st.none() | keys), max_size=2))
    return lefts, rights, links, out, rejected


def left_table(mapping, rows):
    table = right_table(mapping, [row[1:] for row in rows])
    lefts = pa.array([lk(row[0]) for row in rows], pa.string())
    rights = pa.array([lk(row[1]) for row in rows], pa.string())
    return table.append_column("__left_key", lefts).append_column("__right_key", rights)


def right_table(mapping, rows):
    types = {f.right: mapping.right.field(f.right).neutral_type.arrow for f in mapping.fields}
    return pa.table(
        {
            name: pa.array([row[place] for row in rows], kind)
            for place, (name, kind) in enumerate(types.items())
        }
    )


def link_table(links):
    texts = {
        "left_key": [lk(n) for n, _, _ in links],
        "right_key": [lk(k) for _, k, _ in links],
        "left_image": [""] * len(links),
        "right_image": [""] * len(links),
        "state": [state for _, _, state in links],
    }
    return pa.table({name: pa.array(column, pa.string()) for name, column in texts.items()})


def key_table(pairs):
    return pa.table(
        {
            "__left_key": pa.array([lk(n) for n, _ in pairs], pa.string()),
            "__right_key": pa.array([lk(k) for _, k in pairs], pa.string()),
        }
    )


def planned(directory, mapping, rule, world, others=()):
    """Everything that a plan hands out, and its number of unchanged records."""
    lefts, rights, links, out, rejected = world
    with Planner(
        mapping, rule, complete=True, memory_limit_mb=128, spill_directory=directory, threads=1
    ) as plan:
        plan.add_left(left_table(mapping, lefts))
        plan.add_right(right_table(mapping, rights))
        plan.add_links(link_table(links))
        plan.add_other_links(link_table(others))
        plan.add_left_out(key_table(out))
        plan.add_rejected([(n and lk(n), k and lk(k)) for n, k in rejected])
        summary = plan.plan()
        outputs = [
            sorted(map(str, rows))
            for rows in (
                [row for table in plan.changes() for row in table.to_pylist()],
                [row for table in plan.unchanged() for row in table.to_pylist()],
                [row for table in plan.gone() for row in table.to_pylist()],
                list(plan.rejections()),
            )
        ]
        return outputs, summary


def narrowed(directory, mapping, rule, world, **options):
    lefts, rights, links, out, _ = world
    with Narrower(
        mapping, rule, memory_limit_mb=128, spill_directory=directory, threads=1, **options
    ) as narrower:
        narrower.add_left(left_table(mapping, lefts))
        narrower.add_left_out(key_table(out))
        narrower.add_right(right_table(mapping, rights))
        narrower.add_links(link_table(links))
        return narrower.narrow(1_000)


def second_read(world, candidates):
    """What reading the candidates by key gives, and the links of others."""
    lefts, rights, links, out, rejected = world
    refused = {n for n, _ in rejected if n}
    wanted = {row["left_key"] for row in candidates} - {lk(n) for n in refused} - {None}
    seen_rows = [row for row in lefts if lk(row[0]) in wanted]
    seen_out = [pair for pair in out if lk(pair[0]) in wanted]
    names = {lk(row[0]) for row in (*seen_rows, *seen_out)} | {lk(n) for n in refused} | wanted
    own = [link for link in links if lk(link[0]) in names]
    meant = {row[1] for row in seen_rows} | {pair[1] for pair in seen_out}
    others = [link for link in links if link[1] in meant and link not in own]
    looked = meant | {link[1] for link in own}
    return (seen_rows, [row for row in rights if row[0] in looked], own, seen_out, rejected), others


def assert_same_plan(directory, mapping, rule, world):
    found = narrowed(directory, mapping, rule, world)
    candidates = found.candidates.to_pylist()
    refused = {lk(n) for n, _ in world[4] if n}
    assume(not any(row["on_left"] and row["left_key"] in refused for row in candidates))
    whole, expected = planned(directory, mapping, rule, world)
    scope, others = second_read(world, candidates)
    part, summary = planned(directory, mapping, rule, scope, others)
    assert part == whole
    assert summary.unchanged + found.equal == expected.unchanged
    assert (
        replace(
            summary,
            unchanged=expected.unchanged,
            read_left=expected.read_left,
            read_right=expected.read_right,
            linked=expected.linked,
        )
        == expected
    )


MANY = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])


@given(worlds(BY_CODE), st.sampled_from(RULES))
@MANY
def test_plans_with_text_keys_are_the_same(tmp_path_factory, world, rule):
    assert_same_plan(tmp_path_factory.getbasetemp(), BY_CODE, rule, world)


@given(worlds(BY_ID), st.sampled_from(RULES))
@MANY
def test_plans_with_copied_integer_keys_are_the_same(tmp_path_factory, world, rule):
    assert_same_plan(tmp_path_factory.getbasetemp(), BY_ID, rule, world)


ROWS = [(n, n, "A", 1.0) for n in range(1, 11)]
SAME = [row[1:] for row in ROWS]
LINKED = [(n, n, "live") for n in range(1, 11)]


def keys_of(found):
    return sorted((row["left_key"], row["right_key"]) for row in found.candidates.to_pylist())


def test_what_is_in_step_is_counted_and_no_candidate(tmp_path):
    found = narrowed(tmp_path, BY_ID, RuleSpec(), (ROWS, SAME, LINKED, [], []))
    assert (found.equal, found.candidates.num_rows) == (10, 0)


def test_what_differs_lacks_or_is_new_is_a_candidate(tmp_path):
    lefts = [*ROWS[:8], (11, 11, "new", None)]
    rights = [(1, "B", 1.0), *SAME[1:9], (12, "theirs", None)]
    found = narrowed(tmp_path, BY_ID, RuleSpec(), (lefts, rights, LINKED, [], []))
    assert keys_of(found) == [(lk(n), lk(n)) for n in (1, 10, 11, 9)]
    assert found.equal == 7


@pytest.mark.parametrize("state", ["held", "marked"])
def test_held_and_marked_links_are_candidates(tmp_path, state):
    links = [(1, 1, state), *LINKED[1:]]
    found = narrowed(tmp_path, BY_ID, RuleSpec(), (ROWS, SAME, links, [], []))
    assert keys_of(found) == [(lk(1), lk(1))]


def test_pairs_without_a_link_are_candidates_where_links_are_stored(tmp_path):
    world = (ROWS, SAME, LINKED[1:], [], [])
    assert keys_of(narrowed(tmp_path, BY_ID, RuleSpec(), world)) == [(lk(1), lk(1))]
    assert narrowed(tmp_path, BY_ID, RuleSpec(), world, needs_links=False).equal == 10


def test_too_many_candidates_are_refused(tmp_path):
    with Narrower(BY_ID, RuleSpec(), memory_limit_mb=128, spill_directory=tmp_path) as narrower:
        narrower.add_left(left_table(BY_ID, ROWS))
        with pytest.raises(TooManyCandidates):
            narrower.narrow(9)
    assert not list(tmp_path.iterdir())


def test_a_link_whose_key_is_of_another_kind_refuses_narrowing(tmp_path):
    with pytest.raises(TooManyCandidates, match="another kind"):
        narrowed(tmp_path, BY_ID, RuleSpec(), (ROWS, SAME, [("01", 1, "live")], [], []))


def test_unique_checks_cannot_be_narrowed():
    assert can_narrow(BY_ID, RuleSpec())
    check = CheckSpec(name="one", kind="unique", field="name")
    assert not can_narrow(BY_ID, RuleSpec(checks=(check,)))


class TestHashingRunner:
    LEFT = dataset("l", id="integer", name="text", n="integer", at="timestamptz")
    RIGHT = dataset("r", id="integer!", name="text(3)", n="decimal(4,1)", at="timestamptz")
    MAPPING = mapped(LEFT, RIGHT, "id", "name", "n", "at")
    RULE = RuleSpec(
        checks=(
            CheckSpec(name="few", kind="range", field="n", maximum="50", severity="warn"),
            CheckSpec(name="any", kind="required", field="name"),
        )
    )
    AT = datetime(2026, 1, 1, tzinfo=UTC)
    ROWS = (
        {"id": 1, "name": "ok", "n": 1, "at": AT},
        {"id": 2, "name": "too long", "n": 1, "at": AT},
        {"id": 3, "name": None, "n": 1, "at": None},
        {"id": 4, "name": "ok", "n": 60, "at": None},
        {"id": None, "name": "ok", "n": 1, "at": None},
        {"id": 6, "name": "ok", "n": 99_999, "at": None},
    )

    def test_it_says_what_a_runner_says_and_hashes_what_passes(self, tmp_path):
        program = compile_transform(self.MAPPING, self.RULE)
        assert program.trusted
        batch = batch_of(program, list(self.ROWS))
        with Runner(program) as runner:
            expected = runner.run(batch)
        with (
            HashingRunner(program) as hashing,
            Narrower(
                self.MAPPING, self.RULE, memory_limit_mb=128, spill_directory=tmp_path,
                needs_links=False,
            ) as narrower,
        ):  # fmt: skip
            done = hashing.hash_left(narrower, batch)
            assert (done.rejected, done.warnings) == (
                [replace(item, row=None) for item in expected.rejected],
                expected.warnings,
            )
            assert done.records.num_rows == 0
            narrower.add_right(expected.records.combine_chunks().to_batches()[0])
            assert narrower.narrow(100).equal == expected.records.num_rows == 2
            assert narrower.left_keys_among([lk(1), lk(2), lk(4)]) == [lk(1), lk(4)]


BASE_RULE = RuleSpec(direction="two_way", two_way={"first_contact": "left"})


@pytest.mark.parametrize("base", [Base.LEFT, Base.BOTH])
def test_a_base_that_both_sides_have_left_behind_is_a_candidate(tmp_path, base):
    """Both sides made the same edit: the base has to move on."""
    links = link_table(LINKED)
    image = {"id": "1", "name": "A", "x": "1.0"}
    hashes = [image_hash({**image, "id": str(n)}) for n in range(1, 10)] + ["0" * 32]
    for name in ("left_image", "right_image"):
        place = links.column_names.index(name)
        links = links.set_column(place, name, pa.array(hashes, pa.string()))
    with Narrower(
        BY_ID, BASE_RULE, base=base, memory_limit_mb=128, spill_directory=tmp_path
    ) as narrower:
        narrower.add_left(left_table(BY_ID, ROWS))
        narrower.add_right(right_table(BY_ID, SAME))
        narrower.add_links(links)
        found = narrower.narrow(100)
    assert keys_of(found) == [(lk(10), lk(10))]
    assert found.equal == 9
    assert json.loads(json.dumps(found.candidates.to_pylist()))[0]["on_right"]
