"""Every neutral type there and back."""

from __future__ import annotations

import pyarrow as pa
import pytest

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Operation,
    ReadRequest,
)
from apps.connectors.testing.harness import (
    ALREADY,
    APPLIED,
    ID,
    NOT_CLAIMED,
    SAMPLES,
    STALE,
    Harness,
    do_nothing,
    field,
    needs,
    open_session,
    read_all,
    same,
    statuses,
)
from apps.connectors.types import NeutralType


class TypeMatrix:
    """Every neutral type there and back through each operation."""

    @pytest.fixture(params=list(SAMPLES), ids=str)
    def kind(self, request: pytest.FixtureRequest, harness: Harness) -> NeutralType:
        found: NeutralType = request.param
        if not harness.samples(found):
            pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} has no {found}")
        return found

    def _filled(self, harness: Harness, kind: NeutralType) -> tuple[DatasetSchema, pa.Table]:
        values = [*harness.samples(kind), None]
        rows = pa.table(
            {
                "id": pa.array(range(len(values)), pa.int64()),
                "value": pa.array(values, kind.arrow),
            }
        )
        return harness.make([ID, field("value", kind)], ("id",), rows), rows

    def test_the_type_is_described(self, harness: Harness, kind: NeutralType) -> None:
        dataset, _ = self._filled(harness, kind)
        assert dataset.field("value").type == harness.reads_as(kind)

    def test_values_read_back_exactly(self, harness: Harness, kind: NeutralType) -> None:
        dataset, rows = self._filled(harness, kind)
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "value")))
        assert read.schema.field("value").type == dataset.field("value").type.arrow
        expected = {
            row["id"]: None if row["value"] is None else harness.reads_back(kind, row["value"])
            for row in rows.to_pylist()
        }
        found = {row["id"]: row["value"] for row in read.to_pylist()}
        assert found.keys() == expected.keys()
        for number, value in expected.items():
            assert same(found[number], value), f"{found[number]!r} is not {value!r}"

    def test_writing_again_changes_nothing(self, harness: Harness, kind: NeutralType) -> None:
        needs(harness, "write")
        dataset, rows = self._filled(harness, kind)
        with open_session(harness.connector, dataset) as session:
            again = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
            assert set(statuses(session.apply(again, do_nothing))) == {ALREADY}

    def test_an_update_finds_what_was_read(self, harness: Harness, kind: NeutralType) -> None:
        needs(harness, "write")
        dataset, _ = self._filled(harness, kind)
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "value")))
        count = read.num_rows
        turned = pa.table({"value": read.column("value").take([*range(1, count), 0])})
        update = ChangeBatch(Operation.UPDATE, read.select(["id"]), read.select(["value"]), turned)
        with open_session(harness.connector, dataset) as session:
            assert set(statuses(session.apply(update, do_nothing))) == {APPLIED}
            assert set(statuses(session.apply(update, do_nothing))) <= {ALREADY, APPLIED}
        after = read_all(harness.connector, ReadRequest(dataset, ("id", "value"))).sort_by("id")
        expected = read.set_column(1, "value", turned.column("value")).sort_by("id")
        pairs = zip(
            after.column("value").to_pylist(), expected.column("value").to_pylist(), strict=True
        )
        assert all(same(a, b) for a, b in pairs)

    def test_a_delete_finds_what_was_read(self, harness: Harness, kind: NeutralType) -> None:
        needs(harness, "write", "delete")
        dataset, _ = self._filled(harness, kind)
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "value")))
        delete = ChangeBatch(Operation.DELETE, read.select(["id"]), read.select(["value"]))
        with open_session(harness.connector, dataset) as session:
            assert set(statuses(session.apply(delete, do_nothing))) == {APPLIED}
            assert set(statuses(session.apply(delete, do_nothing))) == {ALREADY}
        assert harness.connector.count(dataset) == 0

    def test_a_value_that_differs_is_stale(self, harness: Harness, kind: NeutralType) -> None:
        needs(harness, "write")
        dataset, _ = self._filled(harness, kind)
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "value")))
        count = read.num_rows
        turned = read.select(["value"]).take([*range(1, count), 0])
        nulls = pa.table({"value": pa.nulls(count, turned.column("value").type)})
        update = ChangeBatch(Operation.UPDATE, read.select(["id"]), turned, nulls)
        with open_session(harness.connector, dataset) as session:
            result = statuses(session.apply(update, do_nothing))
        ids = read.column("id").to_pylist()
        null_row = ids.index(max(ids))
        assert result[null_row] is ALREADY
        assert {status for row, status in enumerate(result) if row != null_row} == {STALE}
