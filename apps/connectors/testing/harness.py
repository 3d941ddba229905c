"""What the suite knows of a connector under test, and what its tests share."""

from __future__ import annotations

import math
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    Connector,
    DatasetSchema,
    FieldSchema,
    Operation,
    RawRejection,
    ReadRequest,
    WriteResult,
    WriteSession,
    WriteStatus,
)
from apps.connectors.types import Kind, NeutralType

INSTANT = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=UTC)

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
        INSTANT,
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
    neutral.array(neutral.TIMESTAMPTZ): ([INSTANT, None],),
    neutral.array(neutral.UUID): (["6ba7b810-9dad-11d1-80b4-00c04fd430c8"],),
    neutral.array(neutral.BYTES): ([b"\x00\xff", b""],),
}
"""Per neutral type the values that every connector must carry exactly (or say that it cannot)."""


class Harness:
    """What the suite must know about a connector under test. Override what differs."""

    def __init__(self, connector: Connector[Any]) -> None:
        self.connector = connector

    def make(
        self,
        fields: Sequence[FieldSchema],
        key: tuple[str, ...],
        rows: pa.Table,
        unique_keys: tuple[tuple[str, ...], ...] = (),
    ) -> DatasetSchema:
        """A new dataset with these fields that holds these rows, as the connector describes it."""
        name = self.new_name()
        wanted = DatasetSchema(name=name, fields=tuple(fields), key=key, unique_keys=unique_keys)
        self.connector.create_dataset(wanted)
        dataset = self.connector.describe(name)
        if rows.num_rows:
            with open_session(self.connector, dataset) as session:
                batch = ChangeBatch(Operation.INSERT, rows.select(list(key)), None, rows)
                result = session.apply(batch, do_nothing)
            if result.exceptions:
                raise AssertionError(f"the rows could not be written: {result.exceptions}")
        return dataset

    def new_name(self) -> str:
        """A name that no dataset has."""
        return f"t_{uuid.uuid4().hex[:12]}"

    writes_circles = False
    """Whether records that refer to one another in a circle can be written by one batch."""

    def make_assigning(self, fields: Sequence[FieldSchema]) -> DatasetSchema:
        """A new, empty dataset with these fields, whose integer key `id` the target assigns."""
        types = [pa.field(each.name, each.type.arrow) for each in (ID, *fields)]
        dataset = self.make([ID, *fields], ("id",), pa.schema(types).empty_table())
        self.assign_keys(dataset)
        return self.connector.describe(dataset.name)

    def assign_keys(self, dataset: DatasetSchema) -> None:
        """Let the target assign the key `id` of an empty dataset."""
        pytest.skip(f"{NOT_CLAIMED}this harness cannot let the target assign keys")

    def make_tree(self) -> DatasetSchema:
        """A new, empty dataset with the key `id` and an integer `parent` that refers to it."""
        pytest.skip(f"{NOT_CLAIMED}this harness has no references")

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        """Take a field away behind the connector's back."""
        pytest.skip(f"{NOT_CLAIMED}this harness cannot drop a field")

    def cut_connections(self, dataset: DatasetSchema) -> None:
        """Cut every connection that works on the dataset, behind the connector's back."""
        pytest.skip(f"{NOT_CLAIMED}this harness cannot cut connections")

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
IN_DOUBT = WriteStatus.IN_DOUBT


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
