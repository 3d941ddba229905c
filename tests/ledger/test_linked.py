"""Links that lie in segments behave like those that are rows, whatever happens to them later."""

from __future__ import annotations

from contextlib import nullcontext
from datetime import timedelta
from uuid import UUID, uuid4

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from apps.connectors.types import INTEGER, TEXT
from apps.core.clock import now
from apps.ledger.models import Change, Link, Segment, SegmentPart
from apps.ledger.segments import files
from apps.ledger.selectors import (
    PlanReader,
    bases_of,
    change_page,
    has_crossed_links,
    has_links,
    link_batches,
    link_count,
    link_lookup,
    links_named,
    links_of_left,
    links_of_right,
    record_changes,
)
from apps.ledger.selectors.linked import SegmentLinks
from apps.ledger.services import (
    LoadPlan,
    Refusal,
    WorkIdentity,
    close_links,
    hold_links,
    maintain,
    settle,
    settle_load,
    store_links,
)
from tests.ledger.plans import change, key, plan, work

pytestmark = pytest.mark.django_db

TYPES = {"number": INTEGER, "name": TEXT}
COUNT = 50


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    """Several segments of several row groups."""
    monkeypatch.setattr("apps.ledger.services.loads.SEGMENT_ROWS", 20)
    monkeypatch.setattr(files, "GROUP_ROWS", 8)
    monkeypatch.setattr("apps.ledger.selectors.plans.GROUP_ROWS", 8)


def loaded(
    rule_id: UUID, count: int = COUNT, *, based: bool = False, shift: int = 0
) -> WorkIdentity:
    """A load of records 0, 1, …, settled; right keys are shifted."""
    mine = work(rule_id)
    load = LoadPlan(mine, ("number", "name"), types=TYPES, based=based, transaction=nullcontext)
    for start in range(0, count, 15):
        numbers = list(range(start, min(start + 15, count)))
        values = pa.table({"number": numbers, "name": [f"name {n}" for n in numbers]})
        load.add(
            pa.chunked_array([[key(n) for n in numbers]]),
            pa.chunked_array([[key(n + shift) for n in numbers]]),
            values,
        )
    assert load.finish() == count
    settle_load(mine)
    return mine


def linked_by_rows(rule_id: UUID, count: int = COUNT) -> WorkIdentity:
    mine = work(rule_id)
    store_links(mine, [(key(n), key(n), "") for n in range(count)], first_links=True)
    return mine


def pairs(rule_id: UUID) -> dict[tuple[str, str], str]:
    """All links with their states; each once."""
    found = [row for table in link_batches(rule_id) for row in table.to_pylist()]
    states = {(row["left_key"], row["right_key"]): row["state"] for row in found}
    assert len(states) == len(found)
    return states


def test_a_load_is_its_links():
    rule_id = uuid4()
    loaded(rule_id)
    assert not Link.objects.exists()
    assert pairs(rule_id) == {(key(n), key(n)): "live" for n in range(COUNT)}
    assert link_count(rule_id) == COUNT
    assert has_links(rule_id)
    assert not has_crossed_links(rule_id)
    assert links_of_left(rule_id, [key(7), key(99)]).to_pylist()[0]["right_key"] == key(7)
    assert links_of_right(rule_id, [key(n) for n in range(200)]).num_rows == COUNT
    lookup = link_lookup(rule_id)
    assert dict(zip(*(column.to_pylist() for column in lookup.columns), strict=True))["7"] == "7"


def test_a_load_that_is_not_settled_links_nothing():
    rule_id = uuid4()
    mine = loaded(rule_id)
    SegmentPart.objects.filter(partition_id=mine.partition_id).update(settled_through=0)
    assert not has_links(rule_id)
    assert pairs(rule_id) == {}
    SegmentPart.objects.filter(partition_id=mine.partition_id, first_sequence=1).update(
        settled_through=5
    )
    assert link_count(rule_id) == 5


def test_keys_that_differ_cross():
    rule_id = uuid4()
    loaded(rule_id, shift=1000)
    assert has_crossed_links(rule_id)
    assert links_of_right(rule_id, [key(1007)]).to_pylist()[0]["left_key"] == key(7)


def test_the_changes_of_a_load_tell_their_values():
    rule_id = uuid4()
    mine = loaded(rule_id)
    page = change_page(mine.run_id, limit=COUNT + 1)
    assert [change.outcome for change in page] == ["applied"] * COUNT
    assert page[3].images() == (None, {"number": "3", "name": "name 3"})
    (life,) = record_changes([rule_id], left_key=key(33))
    assert life.images()[1] == {"number": "33", "name": "name 33"}
    assert len(life.image) == 32


def test_a_relay_keeps_keys_alone():
    mine = work()
    load = LoadPlan(mine, ("number", "name"), transaction=nullcontext)
    keys = pa.chunked_array([[key(n) for n in range(30)]])
    load.add(keys, keys, pa.table({"number": list(range(30))}))
    load.finish()
    settle_load(mine)
    assert link_count(mine.rule_id) == 30
    assert change_page(mine.run_id)[0].images() == (None, None)
    assert change_page(mine.run_id)[0].field_names == ["number", "name"]


def test_a_load_is_the_base_of_two_way_links():
    rule_id = uuid4()
    loaded(rule_id, based=True)
    (base,) = bases_of(rule_id, left_keys=[key(4)]).to_pylist()
    assert base["left"] == base["right"] == '{"number":"4","name":"name 4"}'
    (link,) = links_named(rule_id, right_key=key(4))
    found = {row["left_key"]: row for table in link_batches(rule_id) for row in table.to_pylist()}
    assert found[key(4)]["left_image"] == link.left_image == link.right_image != ""


def test_what_the_target_refused_is_no_link():
    rule_id = uuid4()
    mine = loaded(rule_id, 20)
    SegmentPart.objects.update(settled_through=0)
    refusal = Refusal(Change.Outcome.REJECTED, "record.invalid", "no")
    reader, last = PlanReader(mine.partition_id), 0
    while batch := reader.next(last, 20):
        refused = {c.sequence: refusal for c in batch if c.sequence in (3, 4)}
        settle(mine, batch, refused, first_links=True)
        last = batch[-1].sequence
    assert link_count(rule_id) == 18
    assert key(2) not in {left for left, _ in pairs(rule_id)}
    assert Link.objects.exclude(state=Link.State.GONE).count() == 0


def test_retention_forgets_what_was_written_and_keeps_the_links():
    rule_id = uuid4()
    mine = loaded(rule_id)
    close_links(rule_id, [(key(1), key(1))])
    later = now() + timedelta(days=1)
    maintain(compact_before=now() - timedelta(days=1), expire_before=later, kept_runs=[])
    assert change_page(mine.run_id) == []
    assert not SegmentPart.objects.exists()
    assert link_count(rule_id) == COUNT - 1
    assert set(pairs(rule_id)) == {(key(n), key(n)) for n in range(COUNT) if n != 1}
    content = SegmentLinks(rule_id).of("left", [key(5)])
    assert content[0].left_image != ""
    assert "name 5" not in str([segment.field_sets for segment in Segment.objects.all()])


def test_retention_keeps_the_bases_of_two_way_links():
    rule_id = uuid4()
    loaded(rule_id, based=True)
    later = now() + timedelta(days=1)
    maintain(compact_before=now() - timedelta(days=1), expire_before=later, kept_runs=[])
    (base,) = bases_of(rule_id, left_keys=[key(4)]).to_pylist()
    assert base["left"] == '{"number":"4","name":"name 4"}'


step = st.one_of(
    st.tuples(st.just("update"), st.integers(0, 11)),
    st.tuples(st.just("delete"), st.integers(0, 11)),
    st.tuples(st.just("insert"), st.integers(0, 15), st.integers(0, 15)),
    st.tuples(st.just("move"), st.integers(0, 11), st.integers(0, 15)),
    st.tuples(st.just("close"), st.integers(0, 11), st.integers(0, 11)),
    st.tuples(st.just("relink"), st.integers(0, 11), st.integers(0, 15)),
    st.tuples(st.just("hold"), st.integers(0, 11)),
)


def take(rule_id: UUID, what: tuple[object, ...]) -> None:
    """Do to a rule's links what runs do."""
    name, *numbers = what
    mine = work(rule_id)
    if name == "close":
        close_links(rule_id, [(key(numbers[0]), key(numbers[1]))])
    elif name == "relink":
        store_links(mine, [(key(numbers[0]), key(numbers[1]), "")])
    elif name == "hold":
        linked = links_of_left(rule_id, [key(numbers[0])]).to_pylist()
        for row in linked:
            table = pa.table(
                {
                    "left_key": [row["left_key"]],
                    "right_key": [row["right_key"]],
                    "base_left": ['{"name":"a"}'],
                    "base_right": ['{"name":"b"}'],
                }
            )
            hold_links(mine, table)
    else:
        _settle(mine, name, numbers)


def _settle(mine: WorkIdentity, name: object, numbers: list[object]) -> None:
    linked = links_of_left(mine.rule_id, [key(numbers[0])]).to_pylist()
    right = linked[0]["right_key"] if linked else key(numbers[0])
    if name == "update":
        row = change("update", numbers[0], 0, before={"name": "a"}, after={"name": "b"})
        row |= {"right_key": right, "key_after": right}
    elif name == "delete":
        row = change("delete", numbers[0], 0, before={"name": "a"}) | {"right_key": right}
    elif name == "move":
        row = change("update", numbers[0], 0, before={"name": "a"}, after={"name": "b"})
        row |= {"right_key": right, "key_after": key(numbers[1])}
    else:
        row = change("insert", numbers[0], numbers[1], after={"name": "n"})
        row["key_after"] = row["right_key"]
    settle(mine, plan(mine, row), {})


@example(steps=[("insert", 0, 8), ("move", 3, 8), ("close", 8, 5)])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(step, max_size=8))
def test_both_shelves_tell_the_same(steps):
    in_segments, in_rows = uuid4(), uuid4()
    loaded(in_segments, 12)
    linked_by_rows(in_rows, 12)
    for what in steps:
        take(in_segments, what)
        take(in_rows, what)
        expected = pairs(in_rows)
        assert pairs(in_segments) == expected
        assert link_count(in_segments) == len(expected)
        assert has_links(in_segments) == bool(expected)
        for side, read in (("left", links_of_left), ("right", links_of_right)):
            keys = [key(n) for n in range(16)]
            found = [
                read(rule_id, keys).select(["left_key", "right_key"]).to_pylist()
                for rule_id in (in_segments, in_rows)
            ]
            assert sorted(map(str, found[0])) == sorted(map(str, found[1])), side


def test_what_is_read_ahead_opens_no_segment_again(monkeypatch):
    rule_id = uuid4()
    loaded(rule_id, based=True, shift=100)
    kept = SegmentLinks(rule_id)
    kept.look_ahead([key(n) for n in range(30)], [key(107)])
    opened = []
    monkeypatch.setattr(kept, "_read", lambda keys: opened.append(keys) or iter(()))

    assert [link.right_key for link in kept.of("left", [key(4), key(29)])] == [key(104), key(129)]
    assert [link.left_key for link in kept.of("right", [key(107)])] == [key(7)]
    assert kept.table_of("left", [key(5)]).to_pylist()[0]["right_key"] == key(105)
    assert (
        kept.bases_of("left", [key(6)]).to_pylist()[0]["left"] == '{"number":"6","name":"name 6"}'
    )
    assert opened == []
    assert kept.of("left", [key(40)]) == []
    assert opened == [{"left": [key(40)]}]


def test_what_is_read_ahead_is_hidden_by_rows_that_come_later():
    rule_id = uuid4()
    mine = loaded(rule_id, based=True)
    kept = SegmentLinks(rule_id)
    kept.look_ahead([key(n) for n in range(COUNT)], [])
    store_links(mine, [(key(3), key(3), "moved")])
    close_links(rule_id, [(key(4), key(4))])

    assert kept.of("left", [key(3), key(4), key(5)])[0].left_key == key(5)
    assert kept.bases_of("left", [key(3), key(4)]).num_rows == 0
    links = links_of_left(rule_id, [key(3), key(4), key(5)], kept=kept).to_pylist()
    assert sorted(row["left_key"] for row in links) == [key(3), key(5)]
