"""Digests of MySQL and MariaDB tables, computed by the server.

An index finds spans where it orders keys as bytes do: numbers, times and binary strings, and text
of a binary collation without padding (`utf8mb4_0900_bin`, `utf8mb4_nopad_bin`). Other collations
take 'a' for 'A', or 'a' for 'a ', so text keys of these are compared as bytes, and each call reads
the table once. MariaDB's UUID has an order of its own; it is compared as text, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
from pymysql.connections import Connection

from apps.connectors.base import (
    DigestField,
    DigestRequest,
    DigestSession,
    FieldSchema,
    Key,
    KeySpan,
    SpanDigest,
)
from apps.connectors.digests import (
    condition_sql,
    decoded_keys,
    has_length,
    key_fields,
    native_form,
    neutral_forms,
    number_sql,
    row_digest_batch,
    sample_sql,
    sampled_bounds,
    span_digests,
)
from apps.connectors.mysql.connection import MysqlSettings, connect, quote, translated
from apps.connectors.mysql.discovery import Table, load_table
from apps.connectors.mysql.keys import key_column, text_sql, value_literal
from apps.connectors.mysql.reading import stream_columns, wire_column
from apps.connectors.mysql.types import Column
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind

NAME = "mysql"
_NO_LIMIT = 2**64 - 1
_BATCH_ROWS = 50_000
_TOO_LARGE = "a record is larger than the server's 'max_allowed_packet'"


def digest_forms(field: FieldSchema) -> tuple[str, ...]:
    """The forms that MySQL can write a field's text in."""
    if field.type.kind in {Kind.JSON, Kind.FLOAT}:
        return (native_form(NAME, field.type),)
    return neutral_forms(field.type)


def encoding_sql(columns: Sequence[Column], fields: Sequence[DigestField]) -> str:
    """SQL of a record's encoding."""
    pieces: list[str] = []
    for column, field in zip(columns, fields, strict=True):
        text = text_sql(column, field.form)
        # LENGTH counts bytes: of a text in UTF-8 it is right before that is cast to bytes.
        counted = column.read() if column.charset == "utf8mb4" else text
        pieces += (
            [f"IFNULL(CONCAT(LENGTH({counted}), ':', {text}), ':')"]
            if has_length(field.form)
            else [f"IFNULL({text}, '')", "'|'"]
        )
    return f"CONCAT({', '.join(pieces)})"


class MysqlDigestSession(DigestSession):
    """Digests from one consistent snapshot of InnoDB."""

    def __init__(self, settings: MysqlSettings, request: DigestRequest) -> None:
        self._settings = settings
        self._request = request
        self._name = request.dataset.name

    def __enter__(self) -> MysqlDigestSession:
        self._connection: Connection[Any] = connect(self._settings, raw=True)
        try:
            with translated(self._name):
                table = load_table(self._connection, self._name)
                self._prepare(table)
                self._connection.query("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                self._connection.query("START TRANSACTION WITH CONSISTENT SNAPSHOT")
                if table.is_transactional:
                    self.snapshot = self._snapshot_name()
        except BaseException:
            self._hang_up()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._hang_up()

    def _hang_up(self) -> None:
        """Close without reading the rest of an unfinished result."""
        getattr(self._connection, "_force_close", self._connection.close)()

    def _snapshot_name(self) -> str:
        """The server gives a snapshot no name; the connection that has it and the time are one."""
        connection, moment = self._fetch("SELECT CONNECTION_ID(), NOW(6)")[0]
        return f"connection {connection} at {moment}"

    def _prepare(self, table: Table) -> None:
        request = self._request
        self._fields = key_fields(request, table.schema)
        names = [field.name for field in request.fields]
        find_fields(table.schema, names)
        found = [key_column(table.columns[field.name], field) for field in self._fields]
        self._key = [column for column, _ in found]
        self.indexed = found[0][1]
        self._columns = table.column_list(names)
        self._source = quote(self._name)
        self._digest = f"MD5({encoding_sql(self._columns, request.fields)})"
        self._young = self._young_sql(table)

    def _young_sql(self, table: Table) -> str:
        lag = self._request.lag
        if lag is None or lag.after is None:
            return "0"
        find_fields(table.schema, [lag.field])
        return f"IFNULL(t.{quote(lag.field)} > {value_literal(lag.after)}, 0)"

    def ping(self) -> None:
        self._fetch("SELECT 1")

    def count(self) -> int:
        return int(self._fetch(f"SELECT COUNT(*) FROM {self._source}")[0][0])

    def sample_bounds(
        self, spans: Sequence[KeySpan], parts: int, share: float
    ) -> list[tuple[Key, ...]]:
        chosen = "true" if share >= 1 else f"RAND() < {share:.9f}"
        query = sample_sql(
            self._key, spans, table=self._source, parts=parts, chosen=chosen, divided="DIV"
        )
        numbers, *values = self._columns_of(query, 1 + len(self._key))
        keys = decoded_keys(self._wire_keys(values), self._fields)
        places = pa.array([int(number or 0) for number in numbers], pa.int64())
        return sampled_bounds(places, keys, len(spans))

    def digests(self, spans: Sequence[KeySpan]) -> list[SpanDigest]:
        # LIMIT keeps the server from merging both queries, and so from computing each MD5 twice.
        inner = (
            f"SELECT {number_sql(self._key, spans)} AS b, {self._digest} AS h "
            f"FROM {self._source} AS t WHERE {condition_sql(self._key, spans)} LIMIT {_NO_LIMIT}"
        )
        answer = self._fetch(
            "SELECT b, COUNT(*), COUNT(h), "
            "SUM(CAST(CONV(SUBSTR(h, 1, 16), 16, 10) AS UNSIGNED)), "
            "SUM(CAST(CONV(SUBSTR(h, 17), 16, 10) AS UNSIGNED)) "
            f"FROM ({inner}) q GROUP BY b"
        )
        return span_digests(answer, len(spans), _TOO_LARGE)

    def row_digests(self, spans: Sequence[KeySpan]) -> Iterator[pa.RecordBatch]:
        values = ", ".join(column.value for column in self._key)
        query = (
            f"SELECT {values}, UNHEX({self._digest}), {self._young} "
            f"FROM {self._source} AS t WHERE {condition_sql(self._key, spans)}"
        )
        for columns in self._stream(query, len(self._key) + 2):
            *keys, digests, young = columns
            yield row_digest_batch(
                self._fields,
                self._wire_keys(keys),
                pa.array(digests, pa.binary()),
                pa.array([value == b"1" for value in young], pa.bool_()),
            )

    def read_sample(self, limit: int) -> tuple[int, int]:
        select = ", ".join(column.read() for column in self._columns)
        query = f"SELECT {select} FROM {self._source} AS t LIMIT {limit}"
        columns = self._columns_of(query, len(self._columns))
        return len(columns[0]), sum(len(value or b"") for column in columns for value in column)

    def digest_sample(self, limit: int) -> int:
        inner = f"SELECT {self._digest} AS h FROM {self._source} AS t LIMIT {limit}"
        return int(self._fetch(f"SELECT COUNT(h) FROM ({inner}) q")[0][0])

    def _wire_keys(self, values: Sequence[list[bytes | None]]) -> list[pa.Array]:
        return [
            wire_column(each, field.type.kind)
            for each, field in zip(values, self._fields, strict=True)
        ]

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        with translated(self._name), self._connection.cursor() as cursor:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]

    def _columns_of(self, query: str, width: int) -> list[list[bytes | None]]:
        columns: list[list[bytes | None]] = [[] for _ in range(width)]
        for part in self._stream(query, width):
            for column, values in zip(columns, part, strict=True):
                column.extend(values)
        return columns

    def _stream(self, query: str, width: int) -> Iterator[list[list[bytes | None]]]:
        with translated(self._name):
            for _, columns in stream_columns(self._connection, query, width, _BATCH_ROWS):
                yield [column.to_pylist() for column in columns]
