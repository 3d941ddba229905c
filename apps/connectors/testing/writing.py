"""What a connector promises of writing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Operation,
    ReadRequest,
    WriteResult,
)
from apps.connectors.errors import (
    ConfigurationError,
    FieldMissing,
    LeaseLost,
    TargetBusy,
)
from apps.connectors.testing.harness import (
    ALREADY,
    APPLIED,
    ID,
    REJECTED,
    STALE,
    Harness,
    do_nothing,
    field,
    needs,
    open_session,
    people,
    read_all,
    statuses,
)
from apps.connectors.types import Kind, NeutralType


class WritingBehaviour:
    """Compare-and-set, isolation of bad records, locks and fences."""

    def _people(
        self, harness: Harness, names: Sequence[str | None] = ("Ada", "Bob", "Cid")
    ) -> DatasetSchema:
        needs(harness, "write")
        fields = [ID, field("name", NeutralType(Kind.TEXT, length=40))]
        return harness.make(fields, ("id",), people(names))

    def _insert(self, rows: pa.Table) -> ChangeBatch:
        return ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)

    def _update(
        self, ids: Sequence[int], before: Sequence[str | None], after: Sequence[str | None]
    ) -> ChangeBatch:
        return ChangeBatch(
            Operation.UPDATE,
            pa.table({"id": pa.array(ids, pa.int64())}),
            pa.table({"name": pa.array(before, pa.string())}),
            pa.table({"name": pa.array(after, pa.string())}),
        )

    def _names(self, harness: Harness, dataset: DatasetSchema) -> dict[int, str | None]:
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "name")))
        return {row["id"]: row["name"] for row in read.to_pylist()}

    def _apply(
        self,
        harness: Harness,
        dataset: DatasetSchema,
        batch: ChangeBatch,
        fence: Callable[[], None] = do_nothing,
    ) -> WriteResult:
        with open_session(harness.connector, dataset) as session:
            return session.apply(batch, fence)

    def test_an_insert_tells_new_same_and_taken_apart(self, harness: Harness) -> None:
        dataset = self._people(harness)
        rows = pa.table({"id": pa.array([1, 2, 4], pa.int64()), "name": ["Ada", "Eve", "Dan"]})
        result = self._apply(harness, dataset, self._insert(rows))
        assert statuses(result) == [ALREADY, STALE, APPLIED]
        assert self._names(harness, dataset) == {1: "Ada", 2: "Bob", 3: "Cid", 4: "Dan"}

    def test_an_update_tells_before_after_and_moved_apart(self, harness: Harness) -> None:
        dataset = self._people(harness)
        batch = self._update([1, 2, 3, 9], ["Ada", "x", "y", "z"], ["ADA", "Bob", "q", "q"])
        result = self._apply(harness, dataset, batch)
        assert statuses(result) == [APPLIED, ALREADY, STALE, STALE]
        assert self._names(harness, dataset) == {1: "ADA", 2: "Bob", 3: "Cid"}

    def test_a_delete_tells_before_gone_and_moved_apart(self, harness: Harness) -> None:
        dataset = self._people(harness)
        needs(harness, "delete")
        batch = ChangeBatch(
            Operation.DELETE,
            pa.table({"id": pa.array([1, 2, 9], pa.int64())}),
            pa.table({"name": ["Ada", "moved", "gone"]}),
        )
        result = self._apply(harness, dataset, batch)
        assert statuses(result) == [APPLIED, STALE, ALREADY]
        assert self._names(harness, dataset) == {2: "Bob", 3: "Cid"}

    @pytest.mark.parametrize("stored", ["ada", "Ada ", "Adá", "", None])
    def test_comparison_is_exact(self, harness: Harness, stored: str | None) -> None:
        dataset = self._people(harness, [stored])
        result = self._apply(harness, dataset, self._update([1], ["Ada"], ["Eve"]))
        assert statuses(result) == [STALE]

    def test_the_same_key_twice_is_refused_once(self, harness: Harness) -> None:
        dataset = self._people(harness)
        rows = pa.table({"id": pa.array([7, 7, 8], pa.int64()), "name": ["a", "b", "c"]})
        result = self._apply(harness, dataset, self._insert(rows))
        assert statuses(result)[0] is APPLIED
        assert statuses(result)[1] in {REJECTED, STALE}
        assert statuses(result)[2] is APPLIED
        assert self._names(harness, dataset)[7] == "a"

    def test_a_bad_record_does_not_stop_the_others(self, harness: Harness) -> None:
        dataset = self._people(harness, [])
        names: list[str | None] = [f"name {number}" for number in range(1_000)]
        names[417] = "x" * 41
        result = self._apply(harness, dataset, self._insert(people(names, first=0)))
        assert {row: p.code for row, p in result.exceptions.items()} == {417: "record.too_long"}
        assert result.exceptions[417].status is REJECTED
        assert result.exceptions[417].field == "name"
        assert harness.connector.count(dataset) == 999

    def test_a_required_field_is_required(self, harness: Harness) -> None:
        needs(harness, "write")
        fields = [ID, field("name", neutral.TEXT, nullable=False)]
        dataset = harness.make(fields, ("id",), people(["Ada"]))
        result = self._apply(harness, dataset, self._insert(people([None, "Bob"], first=2)))
        assert statuses(result) == [REJECTED, APPLIED]
        assert (result.exceptions[0].code, result.exceptions[0].field) == (
            "record.required",
            "name",
        )

    def test_a_number_too_large_is_refused(self, harness: Harness) -> None:
        needs(harness, "write")
        kind = neutral.decimal(6, 2)
        fields = [ID, field("amount", kind)]
        empty = pa.table({"id": pa.array([], pa.int64()), "amount": pa.array([], kind.arrow)})
        dataset = harness.make(fields, ("id",), empty)
        amounts = [Decimal("1.25"), Decimal("10000.00"), Decimal("1.255")]
        rows = pa.table(
            {
                "id": pa.array([1, 2, 3], pa.int64()),
                "amount": pa.array(amounts, pa.decimal128(12, 3)),
            }
        )
        result = self._apply(harness, dataset, self._insert(rows))
        assert statuses(result) == [APPLIED, REJECTED, REJECTED]
        assert {p.code for p in result.exceptions.values()} == {"record.out_of_range"}
        assert {p.field for p in result.exceptions.values()} == {"amount"}

    def test_a_lost_lease_rolls_the_batch_back(self, harness: Harness) -> None:
        dataset = self._people(harness)
        needs(harness, "transactions")

        def lost() -> None:
            raise LeaseLost("another worker has it")

        with open_session(harness.connector, dataset) as session:
            with pytest.raises(LeaseLost):
                session.apply(self._insert(people(["Dan"], first=4)), lost)
            assert self._names(harness, dataset) == {1: "Ada", 2: "Bob", 3: "Cid"}
            result = session.apply(self._insert(people(["Dan"], first=4)), do_nothing)
        assert statuses(result) == [APPLIED]

    def test_a_batch_is_noted_before_it_is_committed(self, harness: Harness) -> None:
        dataset = self._people(harness)
        needs(harness, "transactions")
        noted: list[WriteResult] = []

        def disk_full(result: WriteResult) -> None:
            noted.append(result)
            raise OSError("no space is left for the note")

        batch = self._update([1, 2], ["Ada", "moved"], ["Eve", "Eve"])
        returning = ("name",) if harness.connector.capabilities.returns_stored else ()
        with open_session(harness.connector, dataset) as session:
            with pytest.raises(OSError, match="no space"):
                session.apply(batch, do_nothing, returning=returning, note=disk_full)
            assert self._names(harness, dataset)[1] == "Ada"
            result = session.apply(batch, do_nothing, returning=returning, note=noted.append)
        assert [statuses(one) for one in noted] == [[APPLIED, STALE]] * 2
        assert statuses(result) == [APPLIED, STALE]
        for one in (*noted, result):
            if returning:
                assert one.stored is not None
                assert one.stored.column("name").to_pylist() == ["Eve", None]

    def test_a_later_session_knows_whether_a_batch_was_committed(self, harness: Harness) -> None:
        dataset = self._people(harness)
        needs(harness, "transaction_status")
        noted: list[str] = []

        def lost() -> None:
            raise LeaseLost("another worker has it")

        for fence, name in ((do_nothing, "Dan"), (lost, "Eve")):
            batch = self._insert(people([name], first=4 + len(noted)))
            with suppress(LeaseLost), open_session(harness.connector, dataset) as session:
                session.apply(batch, fence, note=lambda result: noted.append(result.transaction))
        with open_session(harness.connector, dataset) as session:
            assert [session.committed(one) for one in noted] == [True, False]
            number = noted[0].partition(" ")[0]
            assert session.committed(f"{number} 1") is None  # of a server that was started anew

    def test_the_fence_is_asked_for_each_batch(self, harness: Harness) -> None:
        dataset = self._people(harness)
        asked: list[int] = []
        with open_session(harness.connector, dataset) as session:
            for first in (10, 20):
                session.apply(self._insert(people(["x"], first=first)), lambda: asked.append(1))
        assert len(asked) == 2

    def test_a_lock_excludes_a_second_session(self, harness: Harness) -> None:
        dataset = self._people(harness)
        needs(harness, "target_lock")
        with open_session(harness.connector, dataset, lock="the one"):
            second = open_session(harness.connector, dataset, lock="the one", seconds=0.5)
            with pytest.raises(TargetBusy), second:
                pass
            with open_session(harness.connector, dataset, lock="another"):
                pass
        with open_session(harness.connector, dataset, lock="the one", seconds=5):
            pass

    def test_an_update_by_another_field_than_the_key(self, harness: Harness) -> None:
        dataset = self._people(harness, ["Ada", "Bob", "Bob"])
        batch = ChangeBatch(
            Operation.UPDATE,
            pa.table({"name": ["Ada", "Bob", "Eve"]}),
            pa.table({"id": pa.array([1, 2, 3], pa.int64())}),
            pa.table({"name": ["Zoe", "Zed", "Zed"]}),
        )
        result = self._apply(harness, dataset, batch)
        assert statuses(result) == [APPLIED, REJECTED, STALE]
        assert result.exceptions[1].code == "record.ambiguous"
        assert self._names(harness, dataset) == {1: "Zoe", 2: "Bob", 3: "Bob"}

    def test_an_insert_by_another_field_than_the_key(self, harness: Harness) -> None:
        dataset = self._people(harness)
        rows = pa.table({"id": pa.array([1, 8, 1], pa.int64()), "name": ["Ada", "Bob", "New"]})
        batch = ChangeBatch(Operation.INSERT, rows.select(["name"]), None, rows)
        result = self._apply(harness, dataset, batch)
        assert statuses(result) == [ALREADY, STALE, REJECTED]
        assert result.exceptions[2].code == "record.duplicate"

    def test_an_unknown_field_cannot_be_written(self, harness: Harness) -> None:
        dataset = self._people(harness)
        rows = people(["x"], first=9).append_column("nonsense", pa.array(["y"]))
        with pytest.raises(FieldMissing, match="nonsense"):
            self._apply(harness, dataset, self._insert(rows))

    def test_an_empty_batch_is_nothing(self, harness: Harness) -> None:
        dataset = self._people(harness)
        result = self._apply(harness, dataset, self._insert(people([])))
        assert (result.num_rows, result.exceptions) == (0, {})

    def test_names_of_every_kind_work(self, harness: Harness) -> None:
        needs(harness, "write", "create_dataset")
        names = ["select", "Upper Case", 'quo"te', "back`tick", "it's", "100%", "Größe"]
        fields = [ID, *(field(name, neutral.TEXT) for name in names)]
        columns: dict[str, Any] = {"id": pa.array([1, 2], pa.int64())}
        columns |= {name: pa.array([name, None], pa.string()) for name in names}
        rows = pa.table(columns)
        dataset = harness.make(fields, ("id",), rows)
        key = rows.select(["id"])
        before = rows.select(names)
        after = pa.table({name: ["x", "y"] for name in names})
        update = ChangeBatch(Operation.UPDATE, key, before, after)
        assert statuses(self._apply(harness, dataset, update)) == [APPLIED, APPLIED]
        request = ReadRequest(dataset, tuple(names), keys=key.slice(0, 1))
        assert read_all(harness.connector, request).to_pylist() == [dict.fromkeys(names, "x")]

    def test_a_dataset_is_created_once(self, harness: Harness) -> None:
        needs(harness, "create_dataset")
        dataset = self._people(harness)
        with pytest.raises(ConfigurationError):
            harness.connector.create_dataset(dataset)
