"""The order of changes that refer to one another."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    FieldSchema,
    Operation,
    Reference,
    WriteProblem,
    WriteStatus,
)
from apps.connectors.sql_ordering import ordered
from apps.connectors.sql_writing import PreparedBatch, RowRefused, prepare, write_isolating

TREE = DatasetSchema(
    name="tree",
    fields=tuple(FieldSchema(name, neutral.INTEGER) for name in ("id", "left", "right")),
    key=("id",),
    references=(Reference(("left",), "tree", ("id",)), Reference(("right",), "tree", ("id",))),
)

graphs = st.integers(1, 7).flatmap(
    lambda count: st.lists(
        st.tuples(*(st.none() | st.integers(0, count + 2) for _ in range(2))),
        min_size=count,
        max_size=count,
    )
)
"""Per record the two that it refers to; some of them are not in the batch."""

Graph = list[tuple[int | None, int | None]]


def batch(graph: Graph, operation: Operation) -> PreparedBatch:
    key = pa.table({"id": pa.array(range(len(graph)), pa.int64())})
    references = {
        name: pa.array([row[place] for row in graph], pa.int64())
        for place, name in enumerate(("left", "right"))
    }
    if operation is Operation.DELETE:
        return prepare(ChangeBatch(operation, key, pa.table(references)), TREE)
    after = pa.table({"id": key.column("id"), **references})
    return prepare(ChangeBatch(operation, key, None, after), TREE)


def reachable(graph: Graph, start: int) -> set[int]:
    """The records that one refers to, directly or through others."""
    seen: set[int] = set()
    waiting = [start]
    while waiting:
        for parent in graph[waiting.pop()]:
            if parent is not None and parent < len(graph) and parent not in seen:
                seen.add(parent)
                waiting.append(parent)
    return seen


@given(graphs, st.sampled_from([Operation.INSERT, Operation.DELETE]))
def test_only_records_of_one_circle_come_before_what_they_need(
    graph: Graph, operation: Operation
) -> None:
    prepared, _ = ordered(batch(graph, operation), TREE)
    order = prepared.key["id"].to_pylist()
    assert sorted(order) == list(range(len(graph)))
    circle_of = {order[row]: circle for circle in prepared.circles for row in circle}
    place = {record: row for row, record in enumerate(order)}
    for record in order:
        for parent in reachable(graph, record) - {record}:
            first, second = (parent, record) if operation is Operation.INSERT else (record, parent)
            in_circle = record in reachable(graph, parent)
            assert in_circle == (record in circle_of and circle_of[record] == circle_of.get(parent))
            assert in_circle or place[first] < place[second]


@given(graphs)
def test_levels_hold_no_references_but_circles(graph: Graph) -> None:
    prepared, _ = ordered(batch(graph, Operation.DELETE), TREE)
    order = prepared.key["id"].to_pylist()
    assert [row for level in prepared.levels for row in level] in ([], list(range(len(graph))))
    for level in prepared.levels:
        records = {order[row] for row in level}
        for record in records:
            for parent in (reachable(graph, record) - {record}) & records:
                assert record in reachable(graph, parent)


@given(graphs, st.data())
def test_the_outcome_is_in_the_order_of_the_changes(graph: Graph, data: st.DataObject) -> None:
    prepared, restored = ordered(batch(graph, Operation.INSERT), TREE)
    records = prepared.key["id"].to_pylist()
    bad = data.draw(st.sets(st.sampled_from(range(len(graph)))))
    for row, record in enumerate(records):
        if record in bad:
            prepared.settle(row, WriteProblem(WriteStatus.REJECTED, str(record)))
    result = restored(prepared.result(stored=prepared.key, keys=prepared.key))
    assert {row: problem.code for row, problem in result.exceptions.items()} == {
        row: str(row) for row in sorted(bad)
    }
    assert result.stored is not None
    assert result.keys is not None
    assert result.stored["id"].to_pylist() == list(range(len(graph)))
    assert result.keys["id"].to_pylist() == list(range(len(graph)))


@given(graphs, st.data())
def test_a_refused_record_costs_its_circle_only(graph: Graph, data: st.DataObject) -> None:
    prepared, _ = ordered(batch(graph, Operation.INSERT), TREE)
    bad = data.draw(st.sets(st.sampled_from(range(len(graph)))))
    written: list[int] = []

    def write(rows: object) -> None:
        assert isinstance(rows, list)
        if bad & set(rows):
            raise RowRefused(WriteProblem(WriteStatus.REJECTED))
        written.extend(rows)

    write_isolating(prepared, write, prepared.pending())
    circles = [set(circle) for circle in prepared.circles if bad & set(circle)]
    refused = bad.union(*circles)
    assert set(prepared.exceptions) == refused
    assert written == [row for row in range(len(graph)) if row not in refused]


def test_a_chain_of_many_records_needs_no_recursion() -> None:
    count = 5_000
    chain: Graph = [(row + 1, None) for row in range(count)]
    prepared, _ = ordered(batch(chain, Operation.INSERT), TREE)
    assert prepared.key["id"].to_pylist() == list(reversed(range(count)))


def test_records_that_do_not_refer_to_one_another_stay_as_they_are() -> None:
    given = batch([(None, 99), (98, None)], Operation.INSERT)
    prepared, restored = ordered(given, TREE)
    assert prepared is given
    result = given.result()
    assert restored(result) is result
