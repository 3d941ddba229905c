"""Digests of PostgreSQL tables, computed by the server.

An index finds spans where it orders keys as bytes do: any index but one on text, and on text one
of the collation "C" (the column's, or the database's own). Where a text key has another collation
each call reads the table once; an index on `(key COLLATE "C")` makes that an index scan again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import pyarrow as pa

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
from apps.connectors.postgresql.connection import (
    PostgresqlSettings,
    connect_catalog,
    connect_reader,
    quote,
    translated,
)
from apps.connectors.postgresql.discovery import Table, load_table
from apps.connectors.postgresql.keys import key_column, orders_bytes, text_sql, value_literal
from apps.connectors.postgresql.types import Column
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind

NAME = "postgresql"
_CONCAT_ARGUMENTS = 96
"""PostgreSQL allows a function 100."""

_SESSION = (
    # A tree of CASEs is compiled for longer than it runs, and grouping a few thousand spans by
    # sorting all records is what a planner does that takes them for as many groups as records.
    "SET LOCAL jit = off",
    "SET LOCAL enable_sort = off",
)


def digest_forms(field: FieldSchema) -> tuple[str, ...]:
    """The forms that PostgreSQL can write a field's text in."""
    if field.type.kind in {Kind.JSON, Kind.ARRAY}:
        return (native_form(NAME, field.type),)
    return neutral_forms(field.type)


def encoding_sql(columns: Sequence[Column], fields: Sequence[DigestField]) -> str:
    """SQL of a record's encoding. `concat` takes NULL for nothing."""
    pieces: list[str] = []
    for column, field in zip(columns, fields, strict=True):
        text = text_sql(column, field.form)
        pieces += (
            [f"octet_length({text})", "':'", text] if has_length(field.form) else [text, "'|'"]
        )
    while len(pieces) > _CONCAT_ARGUMENTS:
        pieces = [
            f"concat({', '.join(pieces[start : start + _CONCAT_ARGUMENTS])})"
            for start in range(0, len(pieces), _CONCAT_ARGUMENTS)
        ]
    return f"concat({', '.join(pieces)})"


class PostgresqlDigestSession(DigestSession):
    """Digests from one repeatable-read transaction."""

    def __init__(self, settings: PostgresqlSettings, request: DigestRequest) -> None:
        self._settings = settings
        self._request = request
        self._name = request.dataset.name
        self._stack = ExitStack()

    def __enter__(self) -> PostgresqlDigestSession:
        with translated(self._name), connect_catalog(self._settings) as catalog:
            table = load_table(catalog, self._settings.schema_name, self._name)
            is_bytewise = orders_bytes(catalog)
        self._prepare(table, is_bytewise)
        with self._stack as stack:
            self._connection = stack.enter_context(connect_reader(self._settings))
            with translated(self._name):
                for statement in _SESSION:
                    self._run(statement)
                self.snapshot = str(self._fetch("SELECT pg_current_snapshot()::text")[0][0])
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.__exit__(*exc_info)  # type: ignore[arg-type]  # what a context manager gets

    def _prepare(self, table: Table, is_bytewise: bool) -> None:
        request = self._request
        self._fields = key_fields(request, table.schema)
        names = [field.name for field in request.fields]
        find_fields(table.schema, names)
        found = [
            key_column(table.columns[field.name], field, is_bytewise=is_bytewise)
            for field in self._fields
        ]
        self._key = [column for column, _ in found]
        self.indexed = found[0][1]
        self._columns = table.column_list(names)
        self._source = f"{quote(self._settings.schema_name)}.{quote(self._name)}"
        self._digest = f"md5({encoding_sql(self._columns, request.fields)})"
        self._young = self._young_sql(table)

    def _young_sql(self, table: Table) -> str:
        lag = self._request.lag
        if lag is None or lag.after is None:
            return "false"
        find_fields(table.schema, [lag.field])
        return f"coalesce(t.{quote(lag.field)} > {value_literal(lag.after)}, false)"

    def ping(self) -> None:
        self._fetch("SELECT 1")

    def count(self) -> int:
        return int(self._fetch(f"SELECT count(*) FROM {self._source}")[0][0])

    def sample_bounds(
        self, spans: Sequence[KeySpan], parts: int, share: float
    ) -> list[tuple[Key, ...]]:
        chosen = "true" if share >= 1 else f"random() < {share:.9f}"
        query = sample_sql(
            self._key, spans, table=self._source, parts=parts, chosen=chosen, divided="/"
        )
        numbers, *values = self._table(query).columns
        return sampled_bounds(numbers, decoded_keys(values, self._fields), len(spans))

    def digests(self, spans: Sequence[KeySpan]) -> list[SpanDigest]:
        # OFFSET 0 keeps the planner from computing the MD5 once for each half.
        inner = (
            f"SELECT {number_sql(self._key, spans)} AS b, {self._digest} AS h "
            f"FROM {self._source} AS t WHERE {condition_sql(self._key, spans)} OFFSET 0"
        )
        query = (
            "SELECT b, count(*), count(h), sum(('x' || substr(h, 1, 16))::bit(64)::bigint)::text, "
            f"sum(('x' || substr(h, 17))::bit(64)::bigint)::text FROM ({inner}) q GROUP BY b"
        )
        return span_digests(self._fetch(query), len(spans))

    def row_digests(self, spans: Sequence[KeySpan]) -> Iterator[pa.RecordBatch]:
        values = ", ".join(f"{column.value} AS v{i}" for i, column in enumerate(self._key))
        query = (
            f"SELECT {values}, decode({self._digest}, 'hex') AS digest, {self._young} AS young "
            f"FROM {self._source} AS t WHERE {condition_sql(self._key, spans)}"
        )
        for raw in self._stream(query):
            *values, digests, young = raw.columns
            yield row_digest_batch(self._fields, values, digests, young)

    def read_sample(self, limit: int) -> tuple[int, int]:
        select = ", ".join(f"{c.read()} AS c{i}" for i, c in enumerate(self._columns))
        table = self._table(f"SELECT {select} FROM {self._source} AS t LIMIT {limit}")
        return table.num_rows, table.nbytes

    def digest_sample(self, limit: int) -> int:
        inner = f"SELECT {self._digest} AS h FROM {self._source} AS t LIMIT {limit}"
        return int(self._fetch(f"SELECT count(h) FROM ({inner}) q")[0][0])

    def _run(self, statement: str) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(statement)

    def _fetch(self, query: str) -> list[tuple[Any, ...]]:
        columns = self._table(query).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    def _table(self, query: str) -> pa.Table:
        with translated(self._name), self._connection.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetch_arrow_table()

    def _stream(self, query: str) -> Iterator[pa.RecordBatch]:
        with translated(self._name), self._connection.cursor() as cursor:
            cursor.execute(query)
            yield from cursor.fetch_record_batch()
