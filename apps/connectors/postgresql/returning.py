"""Reading records back on the connection that writes them, as text.

The reader's own way (binary COPY into record batches) needs a connection of its own, which does
not see what is not yet committed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from apps.connectors.base import ReadBatch
from apps.connectors.postgresql.connection import literal
from apps.connectors.postgresql.reading import array_literal
from apps.connectors.postgresql.staging import staged
from apps.connectors.postgresql.target import Target
from apps.connectors.postgresql.types import Column
from apps.connectors.returning import Found
from apps.connectors.sql import decode_batch
from apps.connectors.sql_returning import found_records
from apps.connectors.sql_values import as_text
from apps.connectors.types import Kind

Texts = Sequence[str | None]


def read_by_key(target: Target, keys: pa.Table, rows: Sequence[int], names: Sequence[str]) -> Found:
    """The records of these rows of a table of keys."""
    wanted = keys.take(pa.array(rows, pa.int64()))
    texts = [as_text(staged(column)).to_pylist() for column in wanted.columns]
    return read_by_text(target, keys.column_names, texts, rows, names)


def read_by_text(
    target: Target,
    key: Sequence[str],
    texts: Sequence[Texts],
    rows: Sequence[int],
    names: Sequence[str],
) -> Found:
    """The records whose key fields have these texts, given by field; `rows` numbers them."""
    columns = target.table.column_list(names)
    arrays = [f"{literal('{' + ','.join(map(str, rows)) + '}')}::int[]"]
    arrays += [f"{literal(array_literal(values))}::text[]" for values in texts]
    listed = ", ".join(["n", *(f"k{index}" for index in range(len(key)))])
    match = " AND ".join(
        column.match(f"s.k{index}") for index, column in enumerate(target.table.column_list(key))
    )
    select = "".join(f", {column.text()}" for column in columns)
    found = target.run(
        f"SELECT s.n{select} FROM unnest({', '.join(arrays)}) AS s({listed}) "
        f"JOIN {target.name} t ON {match}"
    ).fetchall()
    return found_records(
        [row[0] for row in found],
        [row[1:] for row in found],
        lambda part: _to_batch(part, columns, target),
    )


def _to_batch(
    rows: Sequence[tuple[Any, ...]], columns: Sequence[Column], target: Target
) -> ReadBatch:
    raw = list(zip(*rows, strict=True)) if rows else [()] * len(columns)
    bad: dict[int, str] = {}
    named: dict[str, pa.Array] = {}
    for column, values in zip(columns, raw, strict=True):
        named[column.name], nested = _column(values, column)
        for row in nested:
            bad.setdefault(row, column.name)
    fields = [target.table.schema.field(column.name) for column in columns]
    return decode_batch(named, fields, key=(), already_bad=bad)


def _column(values: Sequence[Any], column: Column) -> tuple[pa.Array, list[int]]:
    """A column of what the server wrote, and the rows whose array has several dimensions."""
    kind = column.type
    if kind.kind is not Kind.ARRAY:
        if kind.kind is Kind.BYTES:
            return pa.array([_bytes(value) for value in values], pa.binary()), []
        return pa.array(values, pa.string()), []
    nested = [
        row
        for row, items in enumerate(values)
        if items is not None and any(isinstance(item, list) for item in items)
    ]
    flat = [None if row in set(nested) else items for row, items in enumerate(values)]
    if kind.item is not None and kind.item.kind is Kind.BYTES:
        hexed = [None if items is None else [_bytes(item) for item in items] for items in flat]
        return pa.array(hexed, pa.list_(pa.binary())), nested
    return pa.array(flat, pa.list_(pa.string())), nested


def _bytes(text: str | None) -> bytes | None:
    """Bytes as PostgreSQL writes them: `\\x` and two hexadecimal digits for each."""
    return None if text is None else bytes.fromhex(text[2:])
