"""The temporary table that a batch is copied into before it is compared and written.

All its columns are text, so that no value can fail the COPY; values are cast to their fields'
types in the statement that writes them, where a failing row can be isolated.
"""

from __future__ import annotations

import io
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from apps.connectors.postgresql.reading import array_literal
from apps.connectors.sql_values import as_text
from apps.connectors.sql_writing import STALE, PreparedBatch, rejected

_CSV = pa_csv.WriteOptions(include_header=False, batch_size=4096)
_NUL = "\x00"


class Stage:
    """Staged rows of one batch: `n` the row number, `k`, `b` and `a` columns numbered from 0."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._connection = connection
        self._known: set[str] = set()
        self.name = ""

    def use_table(self, prepared: PreparedBatch, *, assigned_key: int = 0) -> None:
        """Make sure a table of the batch's shape exists. Outside of a transaction.

        assigned_key: how many key columns to leave free, where the target assigns the keys.
        """
        shape = (
            prepared.key.num_columns or assigned_key,
            prepared.before.num_columns,
            prepared.after.num_columns,
        )
        self.name = "pg_temp.lockstep_stage_{}_{}_{}".format(*shape)
        if self.name not in self._known:
            names = ", ".join(f"{name} text" for name in _column_names(shape))
            self._connection.execute(
                f"CREATE TEMP TABLE {self.name} (n int, {names}) ON COMMIT DELETE ROWS".encode()
            )
            self._known.add(self.name)

    def fill(self, prepared: PreparedBatch, rows: list[int]) -> None:
        """Copy the given rows of the batch in."""
        columns: list[Any] = [pa.array(rows, pa.int64())]
        names = ["n"]
        indices = None if len(rows) == prepared.num_rows else pa.array(rows, pa.int64())
        for letter, table in (("k", prepared.key), ("b", prepared.before), ("a", prepared.after)):
            for number, column in enumerate(table.columns):
                kept = column if indices is None else column.take(indices)
                columns.append(staged(kept))
                names.append(f"{letter}{number}")
        buffer = io.BytesIO()
        pa_csv.write_csv(pa.table(columns, names=names), buffer, _CSV)
        statement = f"COPY {self.name} ({', '.join(names)}) FROM STDIN (FORMAT csv)"
        with (
            self._connection.cursor() as cursor,
            cursor.copy(statement.encode()) as copy,
        ):
            copy.write(buffer.getbuffer())

    def discard(self, rows: list[int]) -> None:
        """Take rows out again, before a statement that must not see them."""
        if rows:
            # A literal, because PostgreSQL hashes a long list only when it is a constant.
            numbers = ",".join(map(str, rows))
            self._connection.execute(
                f"DELETE FROM {self.name} WHERE n = ANY('{{{numbers}}}'::int[])".encode()
            )


def _column_names(shape: tuple[int, int, int]) -> list[str]:
    return [
        f"{letter}{index}"
        for letter, count in zip("kba", shape, strict=True)
        for index in range(count)
    ]


def staged(column: pa.ChunkedArray) -> pa.Array:
    """A column in a type whose CSV form PostgreSQL reads back exactly."""
    values = column.combine_chunks()
    if pa.types.is_binary(values.type):
        return pc.binary_join_element_wise("\\x", as_text(values), "")
    if pa.types.is_list(values.type):
        return pa.array(_array_texts(values), pa.string())
    if pa.types.is_timestamp(values.type):
        return values.cast(pa.timestamp("us"))
    return values


def _array_texts(values: pa.ListArray) -> list[str | None]:
    items = as_text(values.flatten())
    if pa.types.is_binary(values.type.value_type):
        items = pc.binary_join_element_wise("\\x", items, "")
    texts = items.to_pylist()
    lengths = pc.list_value_length(values).to_pylist()
    rows: list[str | None] = []
    start = 0
    for length in lengths:
        if length is None:
            rows.append(None)
            continue
        rows.append(array_literal(texts[start : start + length]))
        start += length
    return rows


def refuse_nul(prepared: PreparedBatch) -> None:
    """Settle rows whose text holds a NUL: no PostgreSQL text can, so none equals it either."""
    refused = "The text holds the character NUL, which PostgreSQL cannot keep."
    for table in (prepared.key, prepared.after):
        for name in table.column_names:
            for row in _nul_rows(table.column(name)):
                prepared.settle(row, rejected("record.invalid", refused, name))
    for name in prepared.before.column_names:
        for row in _nul_rows(prepared.before.column(name)):
            prepared.settle(row, STALE)


def _nul_rows(column: pa.ChunkedArray) -> list[int]:
    if pa.types.is_string(column.type):
        found: list[int] = pc.indices_nonzero(
            pc.fill_null(pc.match_substring(column, _NUL), False)
        ).to_pylist()
        return found
    if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
        rows = column.to_pylist()
        return [i for i, row in enumerate(rows) if any(_NUL in (item or "") for item in row or ())]
    return []
