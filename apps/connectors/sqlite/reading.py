"""Reading SQLite tables as record batches."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

from apps.connectors.base import (
    CursorWindow,
    DatasetSchema,
    FieldSchema,
    KeyRange,
    RawRejection,
    ReadBatch,
    ReadRequest,
)
from apps.connectors.sql import BATCH_BYTES, decode_batch, find_fields, requested_key_chunks
from apps.connectors.sqlite.connection import decode_text, quote
from apps.connectors.sqlite.types import bound_values, column_of
from apps.connectors.types import Kind

KEYS_TABLE = "lockstep_keys"
_FETCHED_ROWS = 1_000
_VARIABLE_SIZE = {Kind.TEXT, Kind.BYTES, Kind.JSON}
_TEMPORAL = {Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
_ROUNDING = timedelta(milliseconds=2)
"""More than SQLite's functions, which know milliseconds, ever take from a time."""


def read_batches(
    connection: sqlite3.Connection, request: ReadRequest, current: DatasetSchema
) -> Iterator[ReadBatch]:
    """Run the request in one read transaction."""
    fields = find_fields(current, request.fields)
    columns = ", ".join(f"t.{quote(field.name)}" for field in fields) or "1"
    select = f"SELECT {columns} FROM {quote(current.name)} AS t"
    limit = "" if request.limit is None else f" LIMIT {int(request.limit)}"
    connection.execute("BEGIN")
    try:
        if request.keys is not None:
            yield from _read_keys(connection, request, current, fields)
            return
        condition, parameters = _condition(request, current)
        chunks = _chunks(connection, f"{select}{condition}{limit}", parameters, request.batch_rows)
        yield from _batches(chunks, fields, current, request.batch_rows)
    finally:
        connection.execute("ROLLBACK")


def _condition(request: ReadRequest, current: DatasetSchema) -> tuple[str, list[Any]]:
    clauses: list[str] = []
    parameters: list[Any] = []
    if isinstance(request.part, KeyRange):
        field = find_fields(current, request.part.fields)[0]
        clauses.append(_in_range(field, request.part, parameters))
    if request.cursor is not None and request.cursor.after is not None:
        field = find_fields(current, [request.cursor.field])[0]
        clauses.append(_in_window(field, request.cursor, parameters))
    return (f" WHERE {' AND '.join(clauses)}" if clauses else ""), parameters


def _in_range(field: FieldSchema, part: KeyRange, parameters: list[Any]) -> str:
    """Whether the key is in the range; what is no integer is in the first one, to be rejected.

    A primary key that is not the rowid takes NULL and values of any other kind.
    """
    column = f"t.{quote(field.name)}"
    clauses = []
    for sign, bound in ((">=", part.lower), ("<", part.upper)):
        if bound is not None:
            clauses.append(f"{column} {sign} ?")
            parameters.append(bound[0])
    inside = " AND ".join(clauses) or "true"
    if field.server_assigned or not clauses:
        return inside
    if part.lower is None:
        return f"({inside} OR typeof({column}) <> 'integer')"
    return f"{inside} AND typeof({column}) = 'integer'"


def _in_window(field: FieldSchema, window: CursorWindow, parameters: list[Any]) -> str:
    """Whether the cursor is in the window, or NULL, or no point in time where it should be."""
    column = f"t.{quote(field.name)}"
    after = pa.array([window.after], field.type.arrow)
    if field.type.kind not in _TEMPORAL:
        parameters.extend(bound_values(pa.chunked_array([after]), field))
        return f"({column} >= ? OR {column} IS NULL)"
    parameters.append(_lowest_text(after[0].as_py()))
    # Times are written in many ways: with 'T' or a blank, with more or fewer digits, with offsets.
    comparable = f"ifnull(strftime('%Y-%m-%d %H:%M:%f', {column}), 'unknown')"
    return f"(typeof({column}) <> 'text' OR {comparable} >= ?)"


def _lowest_text(after: date | time | datetime) -> str:
    """A text no greater than what SQLite makes of any point in time from `after` on."""
    if isinstance(after, time):
        moment = datetime.combine(date(2000, 1, 1), after, UTC)  # SQLite's day for mere times
    elif not isinstance(after, datetime):
        moment = datetime.combine(after, time.min, UTC)
    else:
        moment = after.astimezone(UTC) if after.tzinfo else after.replace(tzinfo=UTC)
    first = datetime.min.replace(tzinfo=UTC)
    lowest = max(moment, first + _ROUNDING) - _ROUNDING
    return lowest.replace(tzinfo=None).isoformat(" ", "milliseconds")


def _read_keys(
    connection: sqlite3.Connection,
    request: ReadRequest,
    current: DatasetSchema,
    fields: list[FieldSchema],
) -> Iterator[ReadBatch]:
    columns = ", ".join(f"t.{quote(field.name)}" for field in fields) or "1"
    left = request.limit
    for chunk in requested_key_chunks(request, current):
        stage_keys(connection, chunk, current, range(chunk.num_rows))
        join = key_join(find_fields(current, chunk.column_names))
        limit = "" if left is None else f" LIMIT {left}"
        query = (
            f"SELECT {columns} FROM {KEYS_TABLE} AS s "
            f"CROSS JOIN {quote(current.name)} AS t ON {join}{limit}"
        )
        chunks = _chunks(connection, query, [], request.batch_rows)
        for batch in _batches(chunks, fields, current, request.batch_rows):
            if left is not None:
                left -= batch.records.num_rows + len(batch.rejected)
            yield batch
        if left is not None and left <= 0:
            return


def stage_keys(
    connection: sqlite3.Connection, keys: pa.Table, current: DatasetSchema, rows: Sequence[int]
) -> None:
    """Put keys, with the row numbers given, into the connection's own temporary table."""
    fields = find_fields(current, keys.column_names)
    stage_values(
        connection, rows, [bound_values(keys.column(field.name), field) for field in fields]
    )


def stage_values(
    connection: sqlite3.Connection, rows: Sequence[int], columns: Sequence[Sequence[Any]]
) -> None:
    """Put columns of values, as SQLite has them, into that table."""
    names = "".join(f", k{index}" for index in range(len(columns)))
    connection.execute(f"DROP TABLE IF EXISTS temp.{KEYS_TABLE}")
    connection.execute(f"CREATE TEMP TABLE {KEYS_TABLE} (n INTEGER PRIMARY KEY{names})")
    marks = ", ".join("?" for _ in range(len(columns) + 1))
    connection.executemany(
        f"INSERT INTO {KEYS_TABLE} VALUES ({marks})", zip(rows, *columns, strict=True)
    )


def key_join(fields: Sequence[FieldSchema]) -> str:
    """The condition that a record `t` has exactly the key in `s`."""
    return " AND ".join(key_match(field, f"s.k{index}") for index, field in enumerate(fields))


def key_match(field: FieldSchema, value: str) -> str:
    """Whether `t`'s field equals a value: through its index, and then to the byte.

    Identifiers and times may be stored in other spellings than ours, so those are tried too.
    """
    column = f"t.{quote(field.name)}"
    kind = field.type.kind
    if kind is Kind.UUID:
        return f"{column} IN ({value}, upper({value}))"
    if kind in {Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.TIME}:
        return f"{column} IN ({', '.join(_time_spellings(value, kind))})"
    if kind is Kind.TEXT:
        return f"{column} = {value} AND {column} = {value} COLLATE BINARY"
    return f"{column} = {value}"


def _time_spellings(value: str, kind: Kind) -> Iterator[str]:
    suffixes = ("+00:00", "Z", "+00") if kind is Kind.TIMESTAMPTZ else ("",)
    bare = f"replace({value}, '+00:00', '')"
    short = f"rtrim(rtrim({bare}, '0'), '.')"
    milliseconds = f"substr({bare}, 1, length({bare}) - 3)"
    exact_milliseconds = f"iif({bare} LIKE '%000', {milliseconds}, {bare})"
    for form in (bare, short, exact_milliseconds):
        for suffix in suffixes:
            yield f"{form} || '{suffix}'"
            yield f"replace({form}, ' ', 'T') || '{suffix}'"


def _chunks(
    connection: sqlite3.Connection, query: str, parameters: Sequence[Any], batch_rows: int
) -> Iterator[list[tuple[Any, ...]]]:
    """A query's rows in small lists that never straddle a batch.

    Text is decoded by SQLite's module, which is fast but gives up at bytes that are not UTF-8.
    Then the same query runs again, in the same snapshot and so in the same order, with our own
    decoder, from where it stopped.
    """
    done = 0
    connection.text_factory = str
    try:
        for chunk in _fetch(connection.execute(query, parameters), batch_rows, 0):
            yield chunk
            done += len(chunk)
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
        connection.text_factory = decode_text
        yield from _fetch(connection.execute(query, parameters), batch_rows, done)
    finally:
        connection.text_factory = decode_text


def _fetch(
    cursor: sqlite3.Cursor, batch_rows: int, skipped: int
) -> Iterator[list[tuple[Any, ...]]]:
    while skipped:
        skipped -= len(cursor.fetchmany(min(_FETCHED_ROWS, skipped)))
    in_batch = 0
    while rows := cursor.fetchmany(min(_FETCHED_ROWS, batch_rows - in_batch)):
        yield rows
        in_batch = (in_batch + len(rows)) % batch_rows


def _batches(
    chunks: Iterator[list[tuple[Any, ...]]],
    fields: Sequence[FieldSchema],
    current: DatasetSchema,
    batch_rows: int,
) -> Iterator[ReadBatch]:
    sized = [i for i, field in enumerate(fields) if field.type.kind in _VARIABLE_SIZE]
    rows: list[tuple[Any, ...]] = []
    size = 0
    for chunk in chunks:
        if len(rows) + len(chunk) > batch_rows:
            yield to_batch(rows, fields, current)
            rows, size = [], 0
        rows.extend(chunk)
        size += 16 * len(fields) * len(chunk) + sum(_text_size(chunk, i) for i in sized)
        if len(rows) >= batch_rows or size >= BATCH_BYTES:
            yield to_batch(rows, fields, current)
            rows, size = [], 0
    if rows:
        yield to_batch(rows, fields, current)


def _text_size(rows: list[tuple[Any, ...]], index: int) -> int:
    values = [row[index] for row in rows]
    try:
        return sum(map(len, filter(None, values)))
    except TypeError:
        return sum(len(value) for value in values if isinstance(value, str | bytes))


def to_batch(
    rows: Sequence[tuple[Any, ...]], fields: Sequence[FieldSchema], current: DatasetSchema
) -> ReadBatch:
    """Records from SQLite's rows, rejecting those with a value of a wrong kind."""
    if not fields:
        return ReadBatch(
            pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        )
    raw = list(zip(*rows, strict=True)) if rows else [()] * len(fields)
    columns: dict[str, pa.Array] = {}
    bad: dict[int, str] = {}
    for field, values in zip(fields, raw, strict=True):
        decoded = column_of(values, field.type)
        columns[field.name] = decoded.values
        for row in decoded.bad:
            bad.setdefault(row, field.name)
    batch = decode_batch(columns, fields, key=current.key, already_bad=bad)
    if not bad:
        return batch
    names = [field.name for field in fields]
    rejected = tuple(
        _with_raw(rejection, names, rows[row])
        for rejection, row in zip(batch.rejected, sorted(bad), strict=True)
    )
    return ReadBatch(batch.records, rejected)


def _with_raw(rejection: RawRejection, names: Sequence[str], row: tuple[Any, ...]) -> RawRejection:
    text = "\n".join(f"{name}: {_shown(value)}" for name, value in zip(names, row, strict=True))
    return RawRejection(
        rejection.position,
        rejection.code,
        rejection.message,
        text[:10_000],
        rejection.key,
        rejection.field,
    )


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return "NULL" if value is None else str(value)
