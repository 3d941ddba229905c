"""Digests of what is read: the same as a database computes, for sources that compute none.

A file or an embedded database at the worker's side can so be compared with a distant database by
checksums: the near side is read, the distant one only sends digests. Keys and digests of the near
side are kept in a private DuckDB database, whose memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    Connector,
    DigestRequest,
    DigestSession,
    FieldSchema,
    Key,
    KeySpan,
    ReadRequest,
    SpanDigest,
)
from apps.connectors.digests import (
    Form,
    KeyColumn,
    condition_sql,
    decoded_keys,
    has_length,
    key_fields,
    neutral_forms,
    number_sql,
    row_digest_batch,
    sample_sql,
    sampled_bounds,
    span_digests,
)
from apps.connectors.types import Kind
from apps.engine.database import fetch, open_database
from apps.engine.types_sql import canonical_sql, duckdb_type, literal

_HALVES = (
    "CAST('0x' || substr(hex, 1, 16) AS UBIGINT) AS first, "
    "CAST('0x' || substr(hex, 17) AS UBIGINT) AS second"
)


def digest_forms(field: FieldSchema) -> tuple[str, ...]:
    """The forms that a field's text can be given after it was read."""
    return neutral_forms(field.type)


def text_sql(value: str, field: FieldSchema, form: str) -> str:
    """DuckDB's SQL of a value's text in a form."""
    if form == Form.IEEE754:
        return f"lower(lpad(hex(CAST({value} AS BIGINT)), 16, '0'))"
    if form == Form.HEX:
        return f"'x' || lower(hex({value}))"
    if field.type.kind is Kind.BOOLEAN:
        return f"CAST(CAST({value} AS INTEGER) AS VARCHAR)"
    if form == Form.TIMESTAMPTZ:
        return f"CAST(CAST({value} AS TIMESTAMP) AS VARCHAR) || '+00'"
    if form == Form.TIMESTAMP:
        return f"CAST({value} AS VARCHAR)"
    return canonical_sql(value, field.type)


def encoding_sql(fields: Sequence[FieldSchema], forms: Sequence[str]) -> str:
    """SQL of a record's encoding, over columns f0, f1, ..."""
    pieces = []
    for place, (field, form) in enumerate(zip(fields, forms, strict=True)):
        text = text_sql(f"f{place}", field, form)
        if has_length(form):
            pieces.append(f"coalesce(strlen({text}) || ':' || {text}, ':')")
        else:
            pieces.append(f"coalesce({text}, '') || '|'")
    return " || ".join(pieces)


def value_literal(value: Any) -> str:
    """A key's value in DuckDB's SQL."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | Decimal):
        return f"({value:f})" if isinstance(value, Decimal) else f"({value})"
    if isinstance(value, bytes):
        return f"unhex('{value.hex()}')"
    if isinstance(value, datetime):
        kind = "TIMESTAMPTZ" if value.tzinfo else "TIMESTAMP"
        return f"{kind} '{value.isoformat(' ')}'"
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    if isinstance(value, time):
        return f"TIME '{value.isoformat()}'"
    return literal(str(value))


class ReadingDigestSession(DigestSession):
    """Digests of one reading of a dataset: that is their snapshot."""

    def __init__(
        self,
        connector: Connector[Any],
        request: DigestRequest,
        *,
        memory_mb: int = 512,
        spill: Path | None = None,
    ) -> None:
        self._connector = connector
        self._request = request
        self._database = open_database(memory_mb=memory_mb, spill=spill)
        self._fields = key_fields(request, request.dataset)
        self._key = [
            KeyColumn(field, f"t.k{place}", f"t.k{place}", value_literal)
            for place, field in enumerate(self._fields)
        ]

    def __enter__(self) -> ReadingDigestSession:
        try:
            self._read()
        except BaseException:
            self._database.close()
            raise
        self.snapshot = "one reading"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._database.close()

    def _read(self) -> None:
        request = self._request
        lag = request.lag if request.lag is not None and request.lag.after is not None else None
        names = [*request.key, *(field.name for field in request.fields)]
        names = list(dict.fromkeys([*names, *([lag.field] if lag else [])]))
        columns = "".join(
            f"k{place} {duckdb_type(field.type)}, " for place, field in enumerate(self._fields)
        )
        self._database.execute(
            f"CREATE TABLE records ({columns}hex VARCHAR, first UBIGINT, second UBIGINT, "
            "young BOOLEAN)"
        )
        batches = self._connector.read(ReadRequest(request.dataset, tuple(names)))
        with closing(batches):  # type: ignore[type-var]  # iterators of connectors are generators
            for batch in batches:
                self._add(batch.records, lag.field if lag else "")

    def _add(self, records: pa.RecordBatch, lag_field: str) -> None:
        request = self._request
        fields = [request.dataset.field(field.name) for field in request.fields]
        forms = [field.form for field in request.fields]
        named = {f"k{i}": records.column(name) for i, name in enumerate(request.key)}
        for place, (field, form) in enumerate(zip(fields, forms, strict=True)):
            values = records.column(field.name)
            named[f"f{place}"] = _bits(values) if form == Form.IEEE754 else values
        young = "false"
        if lag_field and request.lag is not None:
            named["moment"] = records.column(lag_field)
            young = f"coalesce(moment > {value_literal(request.lag.after)}, false)"
        keys = "".join(f"k{place}, " for place in range(len(self._fields)))
        self._database.register("batch", pa.table(named))
        self._database.execute(
            f"INSERT INTO records SELECT {keys}hex, {_HALVES}, young FROM ("
            f"SELECT {keys}md5({encoding_sql(fields, forms)}) AS hex, {young} AS young FROM batch)"
        )
        self._database.unregister("batch")

    def ping(self) -> None:
        """Nothing is asked of the source any more."""

    def count(self) -> int:
        return int(self._rows("SELECT count(*) FROM records")[0][0])

    def sample_bounds(
        self, spans: Sequence[KeySpan], parts: int, share: float
    ) -> list[tuple[Key, ...]]:
        chosen = "true" if share >= 1 else f"random() < {share:.9f}"
        query = sample_sql(
            self._key, spans, table="records", parts=parts, chosen=chosen, divided="//"
        )
        numbers, *values = fetch(self._database, query).columns
        return sampled_bounds(numbers, decoded_keys(values, self._fields), len(spans))

    def digests(self, spans: Sequence[KeySpan]) -> list[SpanDigest]:
        answer = self._rows(
            f"SELECT {number_sql(self._key, spans)} AS b, count(*), count(hex), "
            "sum(first)::VARCHAR, sum(second)::VARCHAR FROM records AS t "
            f"WHERE {condition_sql(self._key, spans)} GROUP BY b"
        )
        return span_digests(answer, len(spans))

    def row_digests(self, spans: Sequence[KeySpan]) -> Iterator[pa.RecordBatch]:
        keys = "".join(f"{column.value}, " for column in self._key)
        query = (
            f"SELECT {keys}unhex(hex) AS digest, young FROM records AS t "
            f"WHERE {condition_sql(self._key, spans)}"
        )
        for batch in fetch(self._database, query).to_batches():
            *values, digests, young = batch.columns
            yield row_digest_batch(self._fields, values, digests, young)

    def read_sample(self, limit: int) -> tuple[int, int]:
        """What a comparison has read already costs nothing again."""
        return limit, 0

    def digest_sample(self, limit: int) -> int:
        return limit

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self._database.sql(query).fetchall()
        return rows


def _bits(values: pa.Array) -> pa.Array:
    """The bits of floats as integers; minus zero is zero."""
    return pc.add(values, pa.scalar(0.0)).view(pa.int64())
