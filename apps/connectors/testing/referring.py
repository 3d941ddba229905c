"""What a connector promises of records that refer to others of their dataset."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pytest

from apps.connectors.base import ChangeBatch, DatasetSchema, Operation, ReadRequest, WriteResult
from apps.connectors.testing.harness import (
    APPLIED,
    NOT_CLAIMED,
    REJECTED,
    Harness,
    do_nothing,
    needs,
    open_session,
    read_all,
    statuses,
)

Tree = Mapping[int, int | None]
"""By record its parent."""

CHILDREN_FIRST: Tree = {7: 6, 6: 4, 5: 4, 4: 2, 3: 2, 2: 1, 1: 1, 8: None}


class ReferenceBehaviour:
    """Batches whose records refer to one another, in any order."""

    def test_children_may_come_before_their_parents(self, harness: Harness) -> None:
        dataset = _tree(harness)
        result = _insert(harness, dataset, CHILDREN_FIRST)
        assert result.exceptions == {}
        assert _held(harness, dataset) == CHILDREN_FIRST
        if result.stored is not None:
            assert result.stored["id"].to_pylist() == list(CHILDREN_FIRST)

    def test_parents_may_be_deleted_before_their_children(self, harness: Harness) -> None:
        dataset = _tree(harness)
        tree = {**CHILDREN_FIRST, 1: None}
        _insert(harness, dataset, tree)
        parents_first = dict(reversed(list(tree.items())))
        assert _delete(harness, dataset, parents_first).exceptions == {}
        assert harness.connector.count(dataset) == 0

    def test_a_missing_parent_costs_its_descendants_only(self, harness: Harness) -> None:
        dataset = _tree(harness)
        tree = {**CHILDREN_FIRST, 2: 99}
        result = _insert(harness, dataset, tree)
        refused = {row for row, status in enumerate(statuses(result)) if status is REJECTED}
        assert {list(tree)[row] for row in refused} == {7, 6, 5, 4, 3, 2}
        assert {p.code for p in result.exceptions.values()} == {"record.reference_missing"}
        assert _held(harness, dataset) == {1: 1, 8: None}

    def test_a_record_that_is_referred_to_stays(self, harness: Harness) -> None:
        dataset = _tree(harness)
        _insert(harness, dataset, {1: None, 2: 1, 3: None})
        result = _delete(harness, dataset, {1: None, 3: None})
        assert statuses(result) == [REJECTED, APPLIED]
        assert result.exceptions[0].code == "record.reference_missing"
        assert _held(harness, dataset) == {1: None, 2: 1}

    def test_a_circle_is_written_and_deleted_whole(self, harness: Harness) -> None:
        dataset = _tree(harness)
        if not harness.writes_circles:
            pytest.skip(f"{NOT_CLAIMED}references are checked with each record")
        circle = {6: 1, 5: 3, 1: 2, 2: 3, 3: 1, 4: None, 7: 7}
        assert _insert(harness, dataset, circle).exceptions == {}
        assert _held(harness, dataset) == circle
        assert _delete(harness, dataset, circle).exceptions == {}
        assert harness.connector.count(dataset) == 0

    def test_a_circle_with_a_bad_record_is_refused_whole(self, harness: Harness) -> None:
        dataset = _tree(harness)
        _insert(harness, dataset, {10: None})
        result = _insert(harness, dataset, {5: 10, 1: 2, 2: 3, 3: 1, 7: 99, 4: None})
        expected = [APPLIED] * 6
        for row in (4,) if harness.writes_circles else (1, 2, 3, 4):
            expected[row] = REJECTED
        assert statuses(result) == expected

    def test_a_circle_that_others_refer_to_is_not_deleted(self, harness: Harness) -> None:
        dataset = _tree(harness)
        if not harness.writes_circles:
            pytest.skip(f"{NOT_CLAIMED}references are checked with each record")
        _insert(harness, dataset, {1: 2, 2: 1, 3: 1, 4: None})
        result = _delete(harness, dataset, {2: 1, 1: 2, 4: None})
        assert statuses(result) == [REJECTED, REJECTED, APPLIED]
        assert _held(harness, dataset) == {1: 2, 2: 1, 3: 1}


def _tree(harness: Harness) -> DatasetSchema:
    needs(harness, "write")
    return harness.make_tree()


def _insert(harness: Harness, dataset: DatasetSchema, tree: Tree) -> WriteResult:
    rows = pa.table(
        {
            "id": pa.array(list(tree), pa.int64()),
            "parent": pa.array(list(tree.values()), pa.int64()),
        }
    )
    batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
    with open_session(harness.connector, dataset) as session:
        return session.apply(batch, do_nothing, returning=_returning(harness))


def _returning(harness: Harness) -> tuple[str, ...]:
    return ("id", "parent") if harness.connector.capabilities.returns_stored else ()


def _delete(harness: Harness, dataset: DatasetSchema, tree: Tree) -> WriteResult:
    needs(harness, "delete")
    batch = ChangeBatch(
        Operation.DELETE,
        pa.table({"id": pa.array(list(tree), pa.int64())}),
        pa.table({"parent": pa.array(list(tree.values()), pa.int64())}),
    )
    with open_session(harness.connector, dataset) as session:
        return session.apply(batch, do_nothing)


def _held(harness: Harness, dataset: DatasetSchema) -> Tree:
    read = read_all(harness.connector, ReadRequest(dataset, ("id", "parent")))
    return {row["id"]: row["parent"] for row in read.to_pylist()}
