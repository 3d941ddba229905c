"""Reading MySQL tables: unbuffered rows of the text protocol, turned into columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pymysql.connections import Connection

from apps.connectors.base import FieldSchema, ReadBatch, ReadRequest
from apps.connectors.mysql.connection import quote
from apps.connectors.mysql.discovery import Table
from apps.connectors.mysql.keys import part_conditions
from apps.connectors.mysql.rows import row_blocks, split_rows
from apps.connectors.mysql.types import Column
from apps.connectors.sql import (
    decode_batch,
    find_fields,
    requested_key_chunks,
)
from apps.connectors.sql_values import as_text
from apps.connectors.types import Kind

_KEYS_PER_QUERY = 1_000


def read_batches(
    connection: Connection[Any], request: ReadRequest, table: Table
) -> Iterator[ReadBatch]:
    """Run the request in one consistent snapshot. `connection` is a raw one."""
    fields = find_fields(table.schema, request.fields)
    columns = table.column_list(request.fields)
    select = ", ".join(column.read() for column in columns) or "1"
    source = f"SELECT {select} FROM {quote(table.schema.name)} AS t"
    connection.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    left = request.limit
    for query in _queries(source, request, table):
        limited = query if left is None else f"{query} LIMIT {left}"
        for count, columns_read in stream_columns(
            connection, limited, max(len(fields), 1), request.batch_rows
        ):
            yield to_batch(count, columns_read, fields, table)
            if left is not None:
                left -= count
        if left is not None and left <= 0:
            return


def _queries(source: str, request: ReadRequest, table: Table) -> Iterator[str]:
    if request.keys is None:
        conditions = _conditions(request, table)
        yield f"{source} WHERE {' AND '.join(conditions)}" if conditions else source
        return
    for chunk in requested_key_chunks(request, table.schema):
        for start in range(0, chunk.num_rows, _KEYS_PER_QUERY):
            part = chunk.slice(start, _KEYS_PER_QUERY)
            yield f"{source} WHERE {_key_list(part, table.column_list(part.column_names))}"


def _conditions(request: ReadRequest, table: Table) -> list[str]:
    conditions = part_conditions(request.part, table) if request.part is not None else []
    if request.cursor is not None and request.cursor.after is not None:
        field = find_fields(table.schema, [request.cursor.field])[0]
        after = literals(pa.chunked_array([pa.array([request.cursor.after], field.type.arrow)]))
        name = f"t.{quote(field.name)}"
        conditions.append(f"({name} >= {after[0].as_py()} OR {name} IS NULL)")
    return conditions


def _key_list(keys: pa.Table, columns: Sequence[Column]) -> str:
    """The keys as a list: once as the index compares, once to the byte where that is looser."""
    plain = [literals(keys.column(column.name)) for column in columns]
    found = f"{_row([f't.{quote(c.name)}' for c in columns])} IN ({_rows(plain)})"
    if not any(column.charset for column in columns):
        return found
    exact = [
        pc.binary_join_element_wise("_binary", values, "") if column.charset else values
        for column, values in zip(columns, plain, strict=True)
    ]
    return f"{found} AND {_row([c.match_any() for c in columns])} IN ({_rows(exact)})"


def _row(expressions: Sequence[str]) -> str:
    return f"({', '.join(expressions)})" if len(expressions) > 1 else expressions[0]


def _rows(columns: Sequence[pa.Array]) -> str:
    if len(columns) == 1:
        return ", ".join(columns[0].to_pylist())
    joined = pc.binary_join_element_wise(*columns, ", ").to_pylist()
    return ", ".join(f"({row})" for row in joined)


def literals(column: pa.ChunkedArray) -> pa.Array:
    """The values of a column as SQL literals; NULL stays NULL in the array."""
    values = column.combine_chunks()
    kind = values.type
    if pa.types.is_boolean(kind):
        return values.cast(pa.int8()).cast(pa.string())
    if pa.types.is_integer(kind):
        return values.cast(pa.string())
    if pa.types.is_floating(kind):
        return pc.binary_join_element_wise(values.cast(pa.string()), "+0e0", "")
    if pa.types.is_binary(kind):
        return pc.binary_join_element_wise("X'", as_text(values), "'", "")
    text = as_text(values)
    if pa.types.is_string(kind):
        text = pc.replace_substring(pc.replace_substring(text, "\\", "\\\\"), "'", "''")
    return pc.binary_join_element_wise("'", text, "'", "")


def stream_columns(
    connection: Connection[Any], query: str, width: int, batch_rows: int
) -> Iterator[tuple[int, list[pa.Array]]]:
    """Batches as their number of rows and the wire values of each of `width` columns."""
    for block, starts in row_blocks(connection, query, batch_rows):
        yield len(starts), split_rows(block, starts, width)


def rows_to_batch(
    rows: Sequence[tuple[Any, ...]], fields: Sequence[FieldSchema], table: Table
) -> ReadBatch:
    """Records from rows that a cursor of a raw connection gave."""
    columns = [list(values) for values in zip(*rows, strict=True)] if rows else [[] for _ in fields]
    return to_batch(len(rows), columns, fields, table)


def to_batch(
    count: int, columns: Sequence[pa.Array | list[Any]], fields: Sequence[FieldSchema], table: Table
) -> ReadBatch:
    """Records from the wire values of each column."""
    if not fields:
        return ReadBatch(pa.RecordBatch.from_struct_array(pa.array([{}] * count, pa.struct([]))))
    named = {
        field.name: wire_column(values, field.type.kind)
        for field, values in zip(fields, columns, strict=True)
    }
    return decode_batch(named, fields, key=table.schema.key)


def wire_column(values: pa.Array | list[Any], kind: Kind) -> pa.Array:
    raw = pa.array(values, pa.binary()) if isinstance(values, list) else values
    if kind is Kind.BYTES:
        return raw
    texts = raw.cast(pa.string())
    if kind is Kind.TIMESTAMPTZ:
        # The session's time zone is UTC, but the server does not write that down.
        return pc.binary_join_element_wise(texts, "Z", "")
    return texts
