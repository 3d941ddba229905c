"""What the tests of files do again and again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    FieldSchema,
    Operation,
    RawRejection,
    ReadRequest,
    WriteResult,
)
from apps.connectors.files import FilesConnector
from apps.connectors.types import NeutralType


def read(
    connector: FilesConnector, dataset: str | DatasetSchema, *fields: str, **options: Any
) -> tuple[list[dict[str, Any]], list[RawRejection]]:
    """All records and rejections of a dataset."""
    schema = connector.describe(dataset) if isinstance(dataset, str) else dataset
    records: list[dict[str, Any]] = []
    rejected: list[RawRejection] = []
    request = ReadRequest(schema, fields or schema.field_names, **options)
    for batch in connector.read(request):
        records += batch.records.to_pylist()
        rejected += batch.rejected
    return records, rejected


def declared(schema: DatasetSchema, **types: str) -> DatasetSchema:
    """The schema with other types."""
    fields = tuple(
        replace(f, type=NeutralType.parse(types[f.name])) if f.name in types else f
        for f in schema.fields
    )
    return replace(schema, fields=fields)


def schema_of(name: str, *, key: tuple[str, ...] = (), **types: str) -> DatasetSchema:
    """A schema from names and types; key fields take no NULL."""
    fields = tuple(
        FieldSchema(field, NeutralType.parse(text), nullable=field not in key)
        for field, text in types.items()
    )
    return DatasetSchema(name, fields, key=key)


def apply(
    connector: FilesConnector,
    dataset: str,
    operation: Operation,
    key: dict[str, list[Any]],
    before: dict[str, list[Any]] | None = None,
    after: dict[str, list[Any]] | None = None,
    *,
    fence: Any = lambda: None,
) -> WriteResult:
    """Apply one batch in a session of its own."""
    schema = connector.describe(dataset)

    def table(values: dict[str, list[Any]] | None) -> pa.Table | None:
        if values is None:
            return None
        return pa.table(
            {
                name: pa.array(column, schema.field(name).type.arrow)
                for name, column in values.items()
            }
        )

    batch = ChangeBatch(operation, table(key), table(before), table(after))
    with connector.write_session(schema, lock="test", lease_seconds=lambda: 5.0) as session:
        return session.apply(batch, fence)


def statuses(result: WriteResult) -> dict[int, str]:
    """The outcome of each row that was not simply applied."""
    return {row: problem.status.value for row, problem in result.exceptions.items()}


def codes(rejected: list[RawRejection]) -> list[tuple[str, str]]:
    """Position and code of each rejection."""
    return [(r.position, r.code) for r in rejected]
