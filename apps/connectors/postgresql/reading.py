"""Reading PostgreSQL tables through ADBC: binary COPY straight into record batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import ReadBatch, ReadRequest
from apps.connectors.postgresql.connection import literal, quote
from apps.connectors.postgresql.discovery import Table
from apps.connectors.postgresql.types import Column
from apps.connectors.sql import (
    decode_batch,
    find_fields,
    requested_key_chunks,
)
from apps.connectors.sql_values import as_text

_FETCHED_BYTES = 16 * 1024 * 1024
"""Size of the driver's batches; the driver counts wire bytes, which Arrow at most doubles."""


def read_batches(
    connection: Any,
    request: ReadRequest,
    table: Table,
    schema: str,
    *,
    conditions: Sequence[str] = (),
) -> Iterator[ReadBatch]:
    """Run the request inside the connection's transaction.

    conditions: SQL of the part that is asked for.
    """
    fields = find_fields(table.schema, request.fields)
    columns = table.column_list(request.fields)
    nested = [column for column in columns if column.native.is_array]
    ready = {column.name for column in columns if column.is_read_canonical}
    select = ", ".join(
        [f"{column.read()} AS c{index}" for index, column in enumerate(columns)]
        + [
            f"coalesce(array_ndims(t.{quote(column.name)}), 1) > 1 AS d{index}"
            for index, column in enumerate(nested)
        ]
    )
    source = (
        f"SELECT {select or '1 AS nothing'} FROM {quote(schema)}.{quote(table.schema.name)} AS t"
    )
    left = request.limit
    for query in _queries(source, request, table, conditions):
        limited = query if left is None else f"{query} LIMIT {left}"
        for raw in _stream(connection, limited, request.batch_rows):
            named = {column.name: raw.column(i) for i, column in enumerate(columns)}
            if not columns:
                yield ReadBatch(raw.select([]))
                continue
            bad = _nested_rows(raw, nested, len(columns))
            yield decode_batch(named, fields, key=table.schema.key, already_bad=bad, ready=ready)
            if left is not None:
                left -= raw.num_rows
        if left is not None and left <= 0:
            return


def _queries(source: str, request: ReadRequest, table: Table, part: Sequence[str]) -> Iterator[str]:
    if request.keys is None:
        conditions = [*part, *_cursor_conditions(request, table)]
        yield f"{source} WHERE {' AND '.join(conditions)}" if conditions else source
        return
    for chunk in requested_key_chunks(request, table.schema):
        yield f"{source} JOIN {_key_list(chunk, table.column_list(chunk.column_names))}"


def _cursor_conditions(request: ReadRequest, table: Table) -> list[str]:
    if request.cursor is None or request.cursor.after is None:
        return []
    field = find_fields(table.schema, [request.cursor.field])[0]
    after = as_text(pa.array([request.cursor.after], field.type.arrow))[0].as_py()
    name = f"t.{quote(field.name)}"
    value = f"{literal(str(after))}::{table.columns[field.name].cast}"
    return [f"({name} >= {value} OR {name} IS NULL)"]


def _key_list(keys: pa.Table, columns: Sequence[Column]) -> str:
    """The keys as a joined list of text arrays, matched through the table's index."""
    arrays = []
    keys = _without_nul(keys)
    for name in keys.column_names:
        texts = as_text(keys.column(name).combine_chunks())
        if pa.types.is_binary(keys.column(name).type):
            texts = pc.binary_join_element_wise("\\x", texts, "")
        arrays.append(f"{literal(array_literal(texts.to_pylist()))}::text[]")
    names = ", ".join(f"k{index}" for index in range(len(columns)))
    match = " AND ".join(column.match(f"s.k{i}") for i, column in enumerate(columns))
    return f"unnest({', '.join(arrays)}) AS s({names}) ON {match}"


def _without_nul(keys: pa.Table) -> pa.Table:
    """Only keys that a server can hold: none of its texts has the character NUL."""
    for name in keys.column_names:
        if pa.types.is_string(keys.column(name).type):
            keys = keys.filter(pc.invert(pc.match_substring(keys.column(name), "\x00")))
    return keys


def array_literal(items: Sequence[str | None]) -> str:
    """PostgreSQL's text form of an array."""
    return "{" + ",".join("NULL" if item is None else _quote_item(item) for item in items) + "}"


def _quote_item(item: str) -> str:
    escaped = item.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _stream(connection: Any, query: str, batch_rows: int) -> Iterator[pa.RecordBatch]:
    with connection.cursor() as cursor:
        cursor.adbc_statement.set_options(
            **{"adbc.postgresql.batch_size_hint_bytes": str(_FETCHED_BYTES)}
        )
        cursor.execute(query)
        for fetched in cursor.fetch_record_batch():
            for start in range(0, fetched.num_rows, batch_rows):
                yield fetched.slice(start, batch_rows)


def _nested_rows(raw: pa.RecordBatch, nested: Sequence[Column], offset: int) -> dict[int, str]:
    """Rows with an array of more than one dimension, which has no neutral form."""
    bad: dict[int, str] = {}
    for index, column in enumerate(nested):
        for row in pc.indices_nonzero(raw.column(offset + index)).to_pylist():
            bad.setdefault(row, column.name)
    return bad
