"""What a connector promises of the records that a write gives back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import ChangeBatch, DatasetSchema, Operation, ReadRequest, WriteResult
from apps.connectors.errors import FieldMissing
from apps.connectors.testing.harness import (
    ALREADY,
    APPLIED,
    ID,
    NOT_CLAIMED,
    REJECTED,
    SAMPLES,
    STALE,
    Harness,
    do_nothing,
    field,
    needs,
    open_session,
    people,
    read_all,
    same,
    statuses,
)
from apps.connectors.types import Kind, NeutralType


class ReturningBehaviour:
    """The stored image of each change."""

    @pytest.fixture(params=list(SAMPLES), ids=str)
    def stored_kind(self, request: pytest.FixtureRequest, harness: Harness) -> NeutralType:
        found: NeutralType = request.param
        needs(harness, "write", "returns_stored")
        if not harness.samples(found):
            pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} has no {found}")
        return found

    def test_the_stored_value_is_the_one_that_is_read(
        self, harness: Harness, stored_kind: NeutralType
    ) -> None:
        values = [*harness.samples(stored_kind), None]
        column = pa.array(values, stored_kind.arrow)
        rows = pa.table({"id": pa.array(range(len(values)), pa.int64()), "value": column})
        dataset = harness.make([ID, field("value", stored_kind)], ("id",), rows.slice(0, 0))
        insert = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        result = _apply(harness, dataset, insert, ("value", "id"))

        assert set(statuses(result)) == {APPLIED}
        assert result.stored is not None
        assert result.stored.schema.field("value").type == dataset.field("value").type.arrow
        assert result.stored.column("id").to_pylist() == list(range(len(values)))
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "value"))).sort_by("id")
        pairs = zip(result.stored["value"].to_pylist(), read["value"].to_pylist(), strict=True)
        assert all(same(stored, found) for stored, found in pairs)

    def test_a_field_of_any_type_addresses_a_record(
        self, harness: Harness, stored_kind: NeutralType
    ) -> None:
        values = list(harness.samples(stored_kind))
        column = pa.array(values, stored_kind.arrow)
        numbers = pa.array(range(len(values)), pa.int64())
        dataset = harness.make(
            [ID, field("value", stored_kind), field("mark", neutral.INTEGER)],
            ("id",),
            pa.table({"id": numbers, "value": column, "mark": numbers}),
        )
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "value"))).sort_by("id")
        update = ChangeBatch(
            Operation.UPDATE,
            read.select(["value"]),
            pa.table({"mark": numbers}),
            pa.table({"mark": pa.array([-1] * len(values), pa.int64())}),
        )
        result = _apply(harness, dataset, update, ("id", "mark"))

        assert set(statuses(result)) == {APPLIED}
        assert _rows(result) == [{"id": n, "mark": -1} for n in range(len(values))]

    def test_nothing_is_given_back_unless_asked_for(self, harness: Harness) -> None:
        dataset = _people(harness)
        rows = people(["Dan"], first=4)
        batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        result = _apply(harness, dataset, batch, ())
        assert (result.stored, result.keys) == (None, None)

    def test_an_insert_gives_back_what_is_there(self, harness: Harness) -> None:
        dataset = _people(harness)
        rows = pa.table(
            {"id": pa.array([1, 2, 4, 5], pa.int64()), "name": ["Ada", "Eve", "Dan", "x" * 41]}
        )
        batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        result = _apply(harness, dataset, batch)

        assert statuses(result) == [ALREADY, STALE, APPLIED, REJECTED]
        nothing = {"name": None, "note": None}
        assert _rows(result) == [
            {"name": "Ada", "note": "note Ada"},
            nothing,
            {"name": "Dan", "note": None},
            nothing,
        ]

    def test_an_update_gives_back_what_is_there(self, harness: Harness) -> None:
        dataset = _people(harness)
        batch = ChangeBatch(
            Operation.UPDATE,
            pa.table({"id": pa.array([3, 9, 2, 1], pa.int64())}),
            pa.table({"name": ["Cid", "z", "x", "nobody"]}),
            pa.table({"name": ["CID", "q", "Bob", "q"]}),
        )
        result = _apply(harness, dataset, batch, ("note", "name"))

        assert statuses(result) == [APPLIED, STALE, ALREADY, STALE]
        nothing = {"note": None, "name": None}
        assert _rows(result) == [
            {"note": "note Cid", "name": "CID"},
            nothing,
            {"note": "note Bob", "name": "Bob"},
            nothing,
        ]

    def test_a_delete_gives_back_nothing(self, harness: Harness) -> None:
        dataset = _people(harness)
        needs(harness, "delete")
        batch = ChangeBatch(
            Operation.DELETE,
            pa.table({"id": pa.array([1, 9], pa.int64())}),
            pa.table({"name": ["Ada", "gone"]}),
        )
        result = _apply(harness, dataset, batch)
        assert statuses(result) == [APPLIED, ALREADY]
        assert _rows(result) == [{"name": None, "note": None}] * 2

    def test_a_record_whose_key_moves_is_found_under_its_new_one(self, harness: Harness) -> None:
        dataset = _people(harness)
        batch = ChangeBatch(
            Operation.UPDATE,
            pa.table({"id": pa.array([1, 3], pa.int64())}),
            pa.table({"name": ["Ada", "Cid"]}),
            pa.table({"id": pa.array([71, 73], pa.int64()), "name": ["Ada", "CID"]}),
        )
        for expected in (APPLIED, ALREADY):
            result = _apply(harness, dataset, batch, ("id", "note"))
            assert statuses(result) == [expected, expected]
            assert _rows(result) == [
                {"id": 71, "note": "note Ada"},
                {"id": 73, "note": "note Cid"},
            ]

    def test_another_record_at_the_new_key_is_not_the_moved_one(self, harness: Harness) -> None:
        dataset = _people(harness)
        batch = ChangeBatch(
            Operation.UPDATE,
            pa.table({"id": pa.array([9], pa.int64())}),
            pa.table({"name": ["Ada"], "note": ["note Eve"]}),
            pa.table({"id": pa.array([1], pa.int64())}),
        )
        assert statuses(_apply(harness, dataset, batch, ("id",))) == [STALE]

    def test_an_unknown_field_cannot_be_given_back(self, harness: Harness) -> None:
        dataset = _people(harness)
        rows = people(["x"], first=9)
        batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        with pytest.raises(FieldMissing, match="nonsense"):
            _apply(harness, dataset, batch, ("nonsense",))

    def test_an_empty_batch_gives_back_an_empty_table(self, harness: Harness) -> None:
        dataset = _people(harness)
        rows = people([])
        batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        result = _apply(harness, dataset, batch, ("name",))
        assert _rows(result) == []

    def test_many_records_are_given_back_in_the_order_of_the_changes(
        self, harness: Harness
    ) -> None:
        dataset = _people(harness, [])
        order = [(number * 389) % 1_000 for number in range(1_000)]
        rows = pa.table({"id": pa.array(order, pa.int64()), "name": [f"n {n}" for n in order]})
        batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        result = _apply(harness, dataset, batch, ("name", "id"))
        assert _rows(result) == [{"name": f"n {n}", "id": n} for n in order]


def _people(harness: Harness, names: Sequence[str | None] = ("Ada", "Bob", "Cid")) -> DatasetSchema:
    needs(harness, "write", "returns_stored")
    fields = [
        ID,
        field("name", NeutralType(Kind.TEXT, length=40)),
        field("note", neutral.TEXT),
    ]
    notes = pa.array([f"note {name}" for name in names], pa.string())
    return harness.make(fields, ("id",), people(names).append_column("note", notes))


def _apply(
    harness: Harness,
    dataset: DatasetSchema,
    batch: ChangeBatch,
    returning: Sequence[str] = ("name", "note"),
) -> WriteResult:
    with open_session(harness.connector, dataset) as session:
        return session.apply(batch, do_nothing, returning=returning)


def _rows(result: WriteResult) -> list[dict[str, Any]]:
    assert result.stored is not None
    assert result.stored.num_rows == result.num_rows
    rows: list[dict[str, Any]] = result.stored.to_pylist()
    return rows
