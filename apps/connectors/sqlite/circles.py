"""Records of one SQLite table that refer to one another in a circle.

SQLite checks a foreign key at the end of each statement, and a statement of ours writes one
record. So the check is put off, as SQLite allows within a transaction, until the circle is whole.
What it then does not look at before the commit is looked at here, where one circle can still be
refused without the rest of its batch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from apps.connectors.base import DatasetSchema, Operation
from apps.connectors.sql import find_fields
from apps.connectors.sql_writing import PreparedBatch, RowRefused, rejected
from apps.connectors.sqlite import discovery
from apps.connectors.sqlite.connection import quote
from apps.connectors.sqlite.reading import KEYS_TABLE, key_join, stage_keys

_GONE = "lockstep_gone"
_AMISS = rejected(
    "record.reference_missing",
    "A record that this one, or one of its circle, refers to, or is referred by, is amiss.",
)


def segments(prepared: PreparedBatch, rows: Sequence[int]) -> Iterator[tuple[list[int], bool]]:
    """The rows in their order, parted into circles (True) and what lies between them."""
    if not prepared.circles:
        yield list(rows), False
        return
    circle_of = {row: number for number, part in enumerate(prepared.circles) for row in part}
    part: list[int] = []
    for row in rows:
        if part and circle_of.get(part[-1]) != circle_of.get(row):
            yield part, part[-1] in circle_of
            part = []
        part.append(row)
    if part:
        yield part, part[-1] in circle_of


@contextmanager
def circle(
    connection: sqlite3.Connection,
    prepared: PreparedBatch,
    current: DatasetSchema,
    rows: Sequence[int],
) -> Iterator[None]:
    """Check the references of these rows after they are all written. Raises RowRefused."""
    keys = prepared.key.take(pa.array(rows, pa.int64()))
    stage_keys(connection, keys, current, rows)
    join = key_join(find_fields(current, keys.column_names))
    joined = f"{KEYS_TABLE} AS s CROSS JOIN {quote(current.name)} AS t ON {join}"
    is_delete = prepared.operation is Operation.DELETE
    if is_delete:
        connection.execute(f"DROP TABLE IF EXISTS temp.{_GONE}")
        connection.execute(f"CREATE TEMP TABLE {_GONE} AS SELECT t.* FROM {joined}")
    connection.execute("PRAGMA defer_foreign_keys = ON")
    try:
        yield
    finally:
        connection.execute("PRAGMA defer_foreign_keys = OFF")
    amiss = _left_behind(connection, current) if is_delete else _dangling(current, joined)
    for query in amiss:
        if connection.execute(query).fetchone() is not None:
            raise RowRefused(_AMISS)


def _dangling(current: DatasetSchema, joined: str) -> Iterator[str]:
    """Queries for those of the rows whose references lead nowhere."""
    for reference in current.references:
        given = " AND ".join(f"t.{quote(name)} IS NOT NULL" for name in reference.fields)
        equal = _equal("p", reference.target_fields, "t", reference.fields)
        yield (
            f"SELECT 1 FROM {joined} WHERE {given} AND NOT EXISTS "
            f"(SELECT 1 FROM {quote(reference.dataset)} AS p WHERE {equal}) LIMIT 1"
        )


def _left_behind(connection: sqlite3.Connection, current: DatasetSchema) -> Iterator[str]:
    """Queries for records, of any table, that refer to those that are gone."""
    for name in discovery.dataset_names(connection):
        for reference in discovery.references(connection, name):
            if reference.dataset.lower() == current.name.lower():
                equal = _equal("c", reference.fields, "g", reference.target_fields)
                yield f"SELECT 1 FROM temp.{_GONE} AS g JOIN {quote(name)} AS c ON {equal} LIMIT 1"


def _equal(left: str, left_names: Sequence[str], right: str, right_names: Sequence[str]) -> str:
    return " AND ".join(
        f"{left}.{quote(a)} = {right}.{quote(b)}"
        for a, b in zip(left_names, right_names, strict=True)
    )
