"""Narrowing a two-way rule: the plan over its candidates is the plan over everything."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.engine.codec import image_hash
from apps.engine.execution import Runner
from apps.engine.narrowing import Base, Narrower
from apps.engine.spec import MatchFieldSpec
from tests.engine.test_reconcile_properties import MAPPING, SLOW, edits, make, rule
from tests.engine.two_sides import World, _programs, _records

BY_MATCH = MAPPING.model_copy(update={"match": (MatchFieldSpec(field="b"),)})


def links_of(world):
    texts = {name: [] for name in ("left_key", "right_key", "left_image", "right_image", "state")}
    for (left, right), link in world.links.items():
        hashes = (image_hash(link.left) if link.left else "", image_hash(link.right))
        for name, text in zip(texts, (left, right, *hashes, link.state), strict=True):
            texts[name].append(text)
    return pa.table({name: pa.array(column, pa.string()) for name, column in texts.items()})


def narrow(world, directory, base):
    program = _programs(world.mapping, world.rule).forward
    lefts = _records(list(world.left.values()), world.mapping.left, program.left_fields)
    with (
        Runner(program) as runner,
        Narrower(
            world.mapping, world.rule, base=base, memory_limit_mb=128, spill_directory=directory
        ) as narrower,
    ):
        records = {}
        if world.left:
            done = runner.run(lefts.combine_chunks().to_batches()[0])
            assert not done.rejected
            narrower.add_left(done.records)
            narrower.add_left_out(done.left_out)
            keys = (done.records[name].to_pylist() for name in ("__left_key", "__right_key"))
            records = dict(zip(*keys, strict=True))
        rights = _records(list(world.right.values()), world.mapping.right)
        narrower.add_right(rights)
        narrower.add_links(links_of(world))
        return narrower.narrow(1_000), records


def scope(world, found, meant):
    """The world as the second read finds it: by key, with what the links add."""
    pairs = found.candidates.to_pylist()
    lefts = {pair["left_key"] for pair in pairs} - {None}
    rights = {pair["right_key"] for pair in pairs} - {None}
    links = {p: link for p, link in world.links.items() if p[0] in lefts or p[1] in rights}
    lefts |= {pair[0] for pair in links}
    rights |= {pair[1] for pair in links} | {meant[key] for key in lefts if key in meant}
    return replace(
        world,
        left={key: record for key, record in world.left.items() if key in lefts},
        right={key: record for key, record in world.right.items() if key in rights},
        links=links,
    )


def handed_out(plan):
    names = ("changes", "conflicts", "refreshes", "gone")
    return [sorted(map(str, getattr(plan, name))) for name in names]


@SLOW
@given(
    st.sampled_from([MAPPING, BY_MATCH]),
    st.sampled_from(["left", "ask", "highest"]),
    st.sampled_from([Base.LEFT, Base.BOTH]),
    st.lists(edits, min_size=2, max_size=3),
    st.booleans(),
)
def test_the_plan_is_the_same(tmp_path_factory, mapping, policy, base, rounds, lossy):
    world = World(mapping, rule(policy))
    if lossy:
        world.store_right = lambda record: {**record, "a": record["a"] and record["a"][:2]}
    for steps in rounds:
        for step in steps:
            make(world, step)
        whole = world.plan()
        found, meant = narrow(world, tmp_path_factory.getbasetemp(), base)
        part = scope(world, found, meant).plan()
        assert handed_out(part) == handed_out(whole)
        done = part.summary.unchanged + part.summary.agreed + found.equal
        assert done == whole.summary.unchanged + whole.summary.agreed
        world.apply(whole)


@pytest.mark.parametrize("base", [Base.LEFT, Base.BOTH])
def test_nothing_is_looked_at_where_nothing_happened(tmp_path, base):
    world = World(MAPPING, rule("left"))
    for number in range(1, 9):
        world.put_left(id=str(number), a=f"v{number}")
    world.sync()
    world.sync()
    found, _ = narrow(world, tmp_path, base)
    assert (found.equal, found.candidates.num_rows) == (8, 0)
