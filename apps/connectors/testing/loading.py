"""What a connector promises of filling an empty dataset in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    LoadRefused,
    LoadSession,
    Operation,
    ReadRequest,
)
from apps.connectors.errors import ConnectionLost, FieldMissing, LeaseLost, TargetBusy
from apps.connectors.testing.harness import (
    ID,
    NOT_CLAIMED,
    SAMPLES,
    Harness,
    do_nothing,
    field,
    needs,
    open_session,
    people,
    read_all,
    same,
)
from apps.connectors.types import Kind, NeutralType

_BROKEN: dict[str, tuple[NeutralType, pa.Array]] = {
    "too long": (NeutralType(Kind.TEXT, length=5), pa.array(["123456"])),
    "cut blanks": (NeutralType(Kind.TEXT, length=5), pa.array(["12345 "])),
    "too large": (
        neutral.decimal(4, 2),
        pa.array([Decimal("1234567.00")], pa.decimal128(20, 2)),
    ),
    "rounded": (neutral.decimal(4, 2), pa.array([Decimal("1.005")], pa.decimal128(20, 3))),
}
"""By what is wrong: a type, and a value that is none of it."""


class LoadingBehaviour:
    """All of the records or none, each as it was given."""

    def _empty(self, harness: Harness, kind: NeutralType = neutral.TEXT) -> DatasetSchema:
        needs(harness, "load")
        fields = [ID, field("value", kind)]
        types = [pa.field(each.name, each.type.arrow) for each in fields]
        return harness.make(fields, ("id",), pa.schema(types).empty_table())

    def _rows(self, values: Sequence[Any], kind: NeutralType = neutral.TEXT) -> pa.Table:
        return pa.table(
            {"id": pa.array(range(len(values)), pa.int64()), "value": pa.array(values, kind.arrow)}
        )

    def _session(
        self, harness: Harness, dataset: DatasetSchema, *, lock: str = "", seconds: float = 60.0
    ) -> AbstractContextManager[LoadSession]:
        return harness.connector.load_session(
            dataset,
            dataset.field_names,
            lock=lock or f"test:{dataset.name}",
            lease_seconds=lambda: seconds,
        )

    def _load(self, harness: Harness, dataset: DatasetSchema, rows: pa.Table) -> None:
        with self._session(harness, dataset) as session:
            for batch in rows.to_batches(max_chunksize=3):
                session.write(batch)
            assert session.finish() == rows.num_rows
            session.commit(do_nothing)

    @contextmanager
    def _refusal(self, harness: Harness, dataset: DatasetSchema) -> Iterator[None]:
        with pytest.raises(LoadRefused) as refused:
            yield
        assert refused.value.reason
        assert harness.connector.count(dataset) == 0

    @pytest.mark.parametrize("kind", list(SAMPLES), ids=str)
    def test_loaded_values_read_back_exactly(self, harness: Harness, kind: NeutralType) -> None:
        if not harness.samples(kind):
            pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} has no {kind}")
        dataset = self._empty(harness, kind)
        rows = self._rows([None, *harness.samples(kind), None], kind)
        self._load(harness, dataset, rows)
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "value"))).sort_by("id")
        assert read.num_rows == rows.num_rows
        for found, given in zip(read.to_pylist(), rows.to_pylist(), strict=True):
            value = given["value"]
            expected = None if value is None else harness.reads_back(kind, value)
            assert same(found["value"], expected), f"{found['value']!r} is not {expected!r}"

    def test_what_is_loaded_equals_what_is_written(self, harness: Harness) -> None:
        needs(harness, "load", "write")
        kinds = [kind for kind in SAMPLES if harness.samples(kind)]
        for kind in kinds:
            dataset = self._empty(harness, kind)
            rows = self._rows([*harness.samples(kind), None], kind)
            self._load(harness, dataset, rows)
            again = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
            with open_session(harness.connector, dataset) as session:
                result = session.apply(again, do_nothing)
            statuses = {problem.status for problem in result.exceptions.values()}
            assert len(result.exceptions) == rows.num_rows, f"{kind}: inserted again"
            assert {status.value for status in statuses} == {"already"}, f"{kind}: {result}"

    def test_nothing_is_seen_before_the_commit(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        with self._session(harness, dataset) as session:
            session.write(self._rows(["Ada", "Bob"]).to_batches()[0])
            assert session.finish() == 2
            assert harness.connector.count(dataset) == 0
            session.commit(do_nothing)
        assert harness.connector.count(dataset) == 2

    def test_nothing_at_all_can_be_loaded(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        self._load(harness, dataset, self._rows([]))
        assert harness.connector.count(dataset) == 0

    @pytest.mark.parametrize("finished", [True, False])
    def test_leaving_without_a_commit_takes_it_back(self, harness: Harness, finished: bool) -> None:
        dataset = self._empty(harness)
        with self._session(harness, dataset) as session:
            session.write(self._rows(["Ada"]).to_batches()[0])
            if finished:
                session.finish()
        assert harness.connector.count(dataset) == 0

    def test_an_error_of_the_caller_takes_it_back(self, harness: Harness) -> None:
        dataset = self._empty(harness)

        def fail() -> None:
            with self._session(harness, dataset) as session:
                session.write(self._rows(["Ada"]).to_batches()[0])
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()
        assert harness.connector.count(dataset) == 0
        self._load(harness, dataset, self._rows(["Ada"]))

    def test_a_lost_lease_takes_it_back(self, harness: Harness) -> None:
        dataset = self._empty(harness)

        def fence() -> None:
            raise LeaseLost("taken over")

        with self._session(harness, dataset) as session:
            session.write(self._rows(["Ada"]).to_batches()[0])
            session.finish()
            with pytest.raises(LeaseLost):
                session.commit(fence)
        assert harness.connector.count(dataset) == 0

    @pytest.mark.parametrize("wrong", list(_BROKEN))
    def test_a_value_that_does_not_fit_refuses_the_load(self, harness: Harness, wrong: str) -> None:
        kind, bad = _BROKEN[wrong]
        dataset = self._empty(harness, kind)
        if dataset.field("value").type != kind:
            pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} has no {kind}")
        rows = pa.table({"id": pa.array([1], pa.int64()), "value": bad})
        with self._refusal(harness, dataset):
            self._load(harness, dataset, rows)

    def test_a_key_twice_refuses_the_load(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        rows = pa.table({"id": pa.array([1, 2, 1], pa.int64()), "value": ["a", "b", "c"]})
        with self._refusal(harness, dataset):
            self._load(harness, dataset, rows)

    def test_a_missing_value_refuses_the_load(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        rows = pa.table({"id": pa.array([1, None], pa.int64()), "value": ["a", "b"]})
        with self._refusal(harness, dataset):
            self._load(harness, dataset, rows)

    def test_a_dataset_with_records_is_refused(self, harness: Harness) -> None:
        needs(harness, "load")
        dataset = harness.make([ID, field("name", neutral.TEXT)], ("id",), people(["Ada"]))
        with pytest.raises(LoadRefused), self._session(harness, dataset):
            pass
        assert harness.connector.count(dataset) == 1

    def test_a_field_that_is_gone_is_named(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        harness.drop_field(dataset, "value")
        with pytest.raises(FieldMissing, match="value"), self._session(harness, dataset):
            pass

    def test_two_loads_exclude_each_other(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        with self._session(harness, dataset, lock="the one"):
            busy = self._session(harness, dataset, lock="the one", seconds=0.3)
            with pytest.raises(TargetBusy), busy:
                pass

    def test_a_load_and_a_writer_exclude_each_other(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        needs(harness, "write", "target_lock")
        with self._session(harness, dataset, lock="the one"):
            writer = open_session(harness.connector, dataset, lock="the one", seconds=0.3)
            with pytest.raises(TargetBusy), writer:
                pass
        with open_session(harness.connector, dataset, lock="the one"):
            busy = self._session(harness, dataset, lock="the one", seconds=0.3)
            with pytest.raises(TargetBusy), busy:
                pass

    def test_a_cut_connection_leaves_nothing(self, harness: Harness) -> None:
        dataset = self._empty(harness)
        rows = self._rows([f"name {number}" for number in range(1_000)]).to_batches()[0]

        def load() -> None:
            with self._session(harness, dataset) as session:
                session.write(rows)
                harness.cut_connections(dataset)
                for _ in range(100):
                    session.write(rows)
                session.finish()
                session.commit(do_nothing)

        with pytest.raises(ConnectionLost):
            load()
        assert harness.connector.count(dataset) == 0
        self._load(harness, dataset, self._rows(["Ada"]))

    def test_numbers_given_out_next_are_new(self, harness: Harness) -> None:
        needs(harness, "load", "server_assigned_keys")
        dataset = harness.make_assigning([field("value", neutral.TEXT)])
        self._load(harness, dataset, self._rows(["a", "b", "c"]))
        given = ChangeBatch(
            Operation.INSERT, pa.table({}), None, pa.table({"value": pa.array(["d"])})
        )
        with open_session(harness.connector, dataset) as session:
            result = session.apply(given, do_nothing)
        assert not result.exceptions
        assert harness.connector.count(dataset) == 4
