"""The conformance suite: what every connector must do, as tests that any connector can run.

A package that adds a connector subclasses `Harness` and `ConformanceSuite` in its own tests:

    class TestOurs(ConformanceSuite):
        @pytest.fixture
        def harness(self, tmp_path):
            return OurHarness(...)

Tests that need a capability the connector does not declare are skipped.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    Connector,
    CursorWindow,
    DatasetSchema,
    FieldSchema,
    KeyRange,
    Operation,
    RawRejection,
    ReadRequest,
    WriteResult,
    WriteSession,
    WriteStatus,
)
from apps.connectors.errors import (
    ConfigurationError,
    DatasetMissing,
    FieldMissing,
    LeaseLost,
    TargetBusy,
)
from apps.connectors.types import Kind, NeutralType

_INSTANT = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)

SAMPLES: dict[NeutralType, tuple[Any, ...]] = {
    neutral.BOOLEAN: (True, False),
    neutral.INTEGER: (0, 1, -1, 2**63 - 1, -(2**63), 2**53 + 1),
    neutral.decimal(10, 2): (
        Decimal("0.00"),
        Decimal("0.99"),
        Decimal("-12345678.90"),
        Decimal("99999999.99"),
    ),
    neutral.decimal(20, 0): (Decimal(2**64 - 1), Decimal(0), Decimal(-(2**63))),
    neutral.decimal(38, 10): (
        Decimal("1234567890123456789012345678.0123456789"),
        Decimal("-9999999999999999999999999999.9999999999"),
        Decimal("0.0000000001"),
    ),
    NeutralType(Kind.DECIMAL): ("0", "-1", "0.1", "12345678901234567890.012345678901234567891"),
    neutral.FLOAT: (0.0, 0.1, -1.5, 1e300, 5e-324, 1.7976931348623157e308, 2.0**53 + 2),
    neutral.TEXT: (
        "",
        "plain",
        " leading and trailing ",
        'it\'s "quoted", \\N and \\t, 100%',
        "line one\nline two\r\n\ttabbed",
        "😀 four bytes",
        "e\u0301 and é differ",
        "Ärger",
        "null",
        "\u2028\u00a0",
    ),
    NeutralType(Kind.TEXT, length=40): ("", "x" * 40, "😀" * 40, "Groß"),
    neutral.BYTES: (b"", b"\x00", bytes(range(256)), b"'\\\""),
    neutral.DATE: (date(2024, 2, 29), date(1970, 1, 1), date(1, 1, 1), date(9999, 12, 31)),
    neutral.TIME: (time(0), time(12, 30, 15), time(23, 59, 59, 999999)),
    neutral.TIMESTAMP: (
        datetime(2024, 2, 29, 23, 59, 59, 999999),  # noqa: DTZ001 - wall clock
        datetime(1970, 1, 1),  # noqa: DTZ001
        datetime(1, 1, 1),  # noqa: DTZ001
        datetime(9999, 12, 31, 23, 59, 59, 999999),  # noqa: DTZ001
        datetime(2024, 3, 31, 2, 30),  # noqa: DTZ001 - skipped by clocks in Berlin
    ),
    neutral.TIMESTAMPTZ: (
        _INSTANT,
        datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ),
    neutral.UUID: ("00000000-0000-0000-0000-000000000000", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
    neutral.JSON: (
        "{}",
        "[]",
        "null",
        '""',
        "true",
        '{"a":[1,2.5,"😀"],"b":{"c":null}}',
        "123456789012345678901234567890.12345",
        '{"quote":"it\'s \\"here\\" \\\\ "}',
    ),
    neutral.array(neutral.INTEGER): ([], [1, None, -(2**63)], [2**63 - 1]),
    neutral.array(neutral.TEXT): (["", None, "a,b", '"{}\\', "😀"], []),
    neutral.array(neutral.BOOLEAN): ([True, None, False],),
    neutral.array(neutral.FLOAT): ([0.1, -1e300, None],),
    neutral.array(neutral.decimal(12, 4)): ([Decimal("0.0001"), None, Decimal("99999999.9999")],),
    neutral.array(neutral.DATE): ([date(2024, 2, 29), None],),
    neutral.array(neutral.TIMESTAMPTZ): ([_INSTANT, None],),
    neutral.array(neutral.UUID): (["6ba7b810-9dad-11d1-80b4-00c04fd430c8"],),
    neutral.array(neutral.BYTES): ([b"\x00\xff", b""],),
}
"""Per neutral type the values that every connector must carry exactly (or say that it cannot)."""


class Harness:
    """What the suite must know about a connector under test. Override what differs."""

    def __init__(self, connector: Connector[Any]) -> None:
        self.connector = connector

    def make(
        self, fields: Sequence[FieldSchema], key: tuple[str, ...], rows: pa.Table
    ) -> DatasetSchema:
        """A new dataset with these fields that holds these rows, as the connector describes it."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self.connector.create_dataset(DatasetSchema(name=name, fields=tuple(fields), key=key))
        dataset = self.connector.describe(name)
        if rows.num_rows:
            with open_session(self.connector, dataset) as session:
                batch = ChangeBatch(Operation.INSERT, rows.select(list(key)), None, rows)
                result = session.apply(batch, do_nothing)
            if result.exceptions:
                raise AssertionError(f"the rows could not be written: {result.exceptions}")
        return dataset

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        """Take a field away behind the connector's back."""
        pytest.skip(f"{NOT_CLAIMED}this harness cannot drop a field")

    def samples(self, kind: NeutralType) -> Sequence[Any]:
        """The values of a type that this connector claims to hold; none skips the type."""
        return SAMPLES[kind]

    def reads_as(self, kind: NeutralType) -> NeutralType:
        """The type that a field created with this one is described as."""
        return kind

    def reads_back(self, kind: NeutralType, value: Any) -> Any:
        """What a value of the type reads back as."""
        return value


def do_nothing() -> None:
    """A fence for tests in which the lease is never lost."""


def open_session(
    connector: Connector[Any], dataset: DatasetSchema, *, lock: str = "", seconds: float = 60.0
) -> AbstractContextManager[WriteSession]:
    return connector.write_session(
        dataset, lock=lock or f"test:{dataset.name}", lease_seconds=lambda: seconds
    )


def read_all(connector: Connector[Any], request: ReadRequest) -> pa.Table:
    """All records of a request as one table; fails where one was rejected."""
    records, rejected = read_with_rejections(connector, request)
    if rejected:
        raise AssertionError(f"rejected: {rejected}")
    return records


def read_with_rejections(
    connector: Connector[Any], request: ReadRequest
) -> tuple[pa.Table, list[RawRejection]]:
    schema = pa.schema([(name, request.dataset.field(name).type.arrow) for name in request.fields])
    batches: list[pa.RecordBatch] = []
    rejected: list[RawRejection] = []
    for batch in connector.read(request):
        batches.append(batch.records)
        rejected.extend(batch.rejected)
    return pa.Table.from_batches(batches, schema=schema), rejected


def statuses(result: WriteResult) -> list[WriteStatus]:
    """The outcome of each row."""
    return [
        result.exceptions[row].status if row in result.exceptions else WriteStatus.APPLIED
        for row in range(result.num_rows)
    ]


def field(name: str, kind: NeutralType, *, nullable: bool = True) -> FieldSchema:
    return FieldSchema(name=name, type=kind, nullable=nullable)


NOT_CLAIMED = "not claimed: "
"""How the reason of a skip begins that is the connector's word, not something missing here."""

ID = field("id", neutral.INTEGER, nullable=False)
APPLIED, ALREADY = WriteStatus.APPLIED, WriteStatus.ALREADY
STALE, REJECTED = WriteStatus.STALE, WriteStatus.REJECTED


def people(names: Sequence[str | None], *, first: int = 1) -> pa.Table:
    ids = list(range(first, first + len(names)))
    return pa.table({"id": pa.array(ids, pa.int64()), "name": pa.array(names, pa.string())})


def needs(harness: Harness, *capabilities: str) -> None:
    for capability in capabilities:
        if not getattr(harness.connector.capabilities, capability):
            pytest.skip(f"{NOT_CLAIMED}{harness.connector.name} has no '{capability}'")


def same(left: Any, right: Any) -> bool:
    """Equality in which NaN equals NaN."""
    if isinstance(left, float) and isinstance(right, float) and math.isnan(left):
        return math.isnan(right)
    return type(left) is type(right) and bool(left == right)


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


class ReadingBehaviour:
    """Requests and what they give."""

    def _numbered(self, harness: Harness, count: int = 10) -> DatasetSchema:
        rows = people([f"name {number}" for number in range(1, count + 1)])
        return harness.make([ID, field("name", neutral.TEXT)], ("id",), rows)

    def _ids(self, harness: Harness, request: ReadRequest) -> list[int]:
        read = read_all(harness.connector, request)
        assert tuple(read.column_names) == request.fields
        return sorted(read.column("id").to_pylist())

    def test_fields_come_in_the_order_asked_for(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        read = read_all(harness.connector, ReadRequest(dataset, ("name", "id"), limit=1))
        assert read.column_names == ["name", "id"]

    def test_batches_are_bounded(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        request = ReadRequest(dataset, ("id",), batch_rows=3)
        sizes = [batch.records.num_rows for batch in harness.connector.read(request)]
        assert max(sizes) <= 3
        assert sum(sizes) == 10

    def test_a_limit_holds(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        assert len(self._ids(harness, ReadRequest(dataset, ("id",), limit=4))) == 4

    def test_an_empty_dataset_reads_as_nothing(self, harness: Harness) -> None:
        dataset = self._numbered(harness, 0)
        assert self._ids(harness, ReadRequest(dataset, ("id", "name"))) == []

    def test_an_unfinished_read_can_be_dropped(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        reading = harness.connector.read(ReadRequest(dataset, ("id",), batch_rows=1))
        next(iter(reading))
        if isinstance(reading, Iterator) and hasattr(reading, "close"):
            reading.close()
        assert harness.connector.count(dataset) == 10

    def test_count_is_exact(self, harness: Harness) -> None:
        assert harness.connector.count(self._numbered(harness)) == 10

    def test_a_missing_field_is_named(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        harness.drop_field(dataset, "name")
        with pytest.raises(FieldMissing, match="name"):
            list(harness.connector.read(ReadRequest(dataset, ("id", "name"))))

    def test_a_missing_dataset_is_named(self, harness: Harness) -> None:
        with pytest.raises(DatasetMissing):
            harness.connector.describe("no_such_dataset")

    def test_discovery_finds_the_dataset(self, harness: Harness) -> None:
        dataset = self._numbered(harness)
        found = {each.name: each for each in harness.connector.discover()}
        assert found[dataset.name].field_names == dataset.field_names
        assert list(found) == sorted(found)

    def test_keys_are_looked_up(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        dataset = self._numbered(harness)
        keys = pa.table({"id": pa.array([2, 5, 99, 5], pa.int64())})
        assert self._ids(harness, ReadRequest(dataset, ("id",), keys=keys)) == [2, 5]
        read = read_all(harness.connector, ReadRequest(dataset, ("name",), keys=keys))
        assert sorted(read.column("name").to_pylist()) == ["name 2", "name 5"]

    def test_no_keys_find_nothing(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        dataset = self._numbered(harness)
        keys = pa.table({"id": pa.array([], pa.int64())})
        assert self._ids(harness, ReadRequest(dataset, ("id",), keys=keys)) == []

    def test_text_keys_are_found_to_the_letter(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        codes = ["abc", "ABC", "abc ", "ábc", "😀", "it's", "a\\b", ""]
        rows = pa.table({"code": codes, "id": pa.array(range(len(codes)), pa.int64())})
        fields = [field("code", NeutralType(Kind.TEXT, length=20), nullable=False), ID]
        dataset = harness.make(fields, ("code",), rows)
        for number, code in enumerate(codes):
            request = ReadRequest(dataset, ("code", "id"), keys=pa.table({"code": [code]}))
            read = read_all(harness.connector, request).to_pylist()
            assert read == [{"code": code, "id": number}]

    def test_composite_keys_are_looked_up(self, harness: Harness) -> None:
        needs(harness, "key_lookup")
        rows = pa.table({"id": pa.array([1, 1, 2], pa.int64()), "code": ["a", "b", "a"]})
        fields = [ID, field("code", NeutralType(Kind.TEXT, length=20), nullable=False)]
        dataset = harness.make(fields, ("id", "code"), rows)
        keys = pa.table({"id": pa.array([1, 2, 2], pa.int64()), "code": ["b", "b", "a"]})
        read = read_all(harness.connector, ReadRequest(dataset, ("id", "code"), keys=keys))
        found = sorted((row["id"], row["code"]) for row in read.to_pylist())
        assert found == [(1, "b"), (2, "a")]

    def test_key_ranges_are_half_open(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        dataset = self._numbered(harness)
        for lower, upper, expected in (
            (3, 6, [3, 4, 5]),
            (None, 3, [1, 2]),
            (9, None, [9, 10]),
            (None, None, list(range(1, 11))),
        ):
            request = ReadRequest(dataset, ("id",), key_range=KeyRange("id", lower, upper))
            assert self._ids(harness, request) == expected

    def test_the_first_key_range_holds_those_without_a_key(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        rows = pa.table(
            {
                "id": pa.array(range(5), pa.int64()),
                "number": pa.array([1, None, 7, 9, None], pa.int64()),
            }
        )
        dataset = harness.make([ID, field("number", neutral.INTEGER)], ("id",), rows)
        for lower, upper, expected in (
            (None, 5, [0, 1, 4]),
            (5, 9, [2]),
            (9, None, [3]),
            (None, None, [0, 1, 2, 3, 4]),
        ):
            part = KeyRange("number", lower, upper)
            request = ReadRequest(dataset, ("id", "number"), key_range=part)
            assert self._ids(harness, request) == expected
        assert all(1 < bound <= 9 for bound in harness.connector.split(dataset, "number", 3))

    def test_split_cuts_the_key_into_shares(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        dataset = self._numbered(harness)
        inner = list(harness.connector.split(dataset, "id", 3))
        assert inner == sorted(set(inner))
        found: list[int] = []
        for lower, upper in pairwise([None, *inner, None]):
            part = KeyRange("id", lower, upper)
            found += self._ids(harness, ReadRequest(dataset, ("id",), key_range=part))
        assert sorted(found) == list(range(1, 11))

    def test_splitting_nothing_gives_no_bounds(self, harness: Harness) -> None:
        needs(harness, "key_ranges")
        assert list(harness.connector.split(self._numbered(harness, 0), "id", 4)) == []

    @pytest.mark.parametrize(
        ("kind", "values", "after", "expected"),
        [
            (neutral.INTEGER, [5, 7, 7, 9, None], 7, [1, 2, 3, 4]),
            (
                neutral.TIMESTAMPTZ,
                [
                    datetime(2024, 1, 1, tzinfo=UTC),
                    _INSTANT,
                    _INSTANT,
                    datetime(2024, 3, 1, tzinfo=UTC),
                    None,
                ],
                _INSTANT,
                [1, 2, 3, 4],
            ),
            (neutral.DATE, [date(2024, 2, 28), date(2024, 2, 29)], date(2024, 2, 29), [1]),
        ],
        ids=["integer", "timestamptz", "date"],
    )
    def test_a_cursor_reads_ties_and_nulls_again(
        self,
        harness: Harness,
        kind: NeutralType,
        values: list[Any],
        after: Any,
        expected: list[int],
    ) -> None:
        needs(harness, "cursor")
        rows = pa.table(
            {
                "id": pa.array(range(len(values)), pa.int64()),
                "changed": pa.array(values, kind.arrow),
            }
        )
        dataset = harness.make([ID, field("changed", kind)], ("id",), rows)
        window = CursorWindow("changed", after)
        assert self._ids(harness, ReadRequest(dataset, ("id",), cursor=window)) == expected
        everything = ReadRequest(dataset, ("id",), cursor=CursorWindow("changed"))
        assert len(self._ids(harness, everything)) == len(values)


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


class ConformanceSuite(TypeMatrix, ReadingBehaviour, WritingBehaviour):
    """All of it. A subclass defines the fixture `harness`."""
