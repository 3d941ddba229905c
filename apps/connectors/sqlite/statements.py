"""What all writing statements on SQLite need: savepoints, refusals, and looking records up."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from apps.connectors.base import DatasetSchema, WriteProblem, WriteStatus
from apps.connectors.exchanging import Vacancy
from apps.connectors.returning import Found
from apps.connectors.sql import find_fields
from apps.connectors.sql_returning import found_records
from apps.connectors.sql_writing import PreparedBatch, RowRefused
from apps.connectors.sqlite.connection import quote, refusal, translate
from apps.connectors.sqlite.reading import KEYS_TABLE, key_match, to_batch
from apps.connectors.sqlite.types import bound_values

STALE_UNREADABLE = WriteProblem(WriteStatus.STALE, "record.malformed", "The record is unreadable.")


@contextmanager
def savepoint(connection: sqlite3.Connection, name: str) -> Iterator[None]:
    """Undo what is done inside when an exception leaves it."""
    connection.execute(f"SAVEPOINT {name}")
    try:
        yield
    except BaseException:
        if connection.in_transaction:
            connection.execute(f"ROLLBACK TO {name}")
            connection.execute(f"RELEASE {name}")
        raise
    connection.execute(f"RELEASE {name}")


@contextmanager
def refusing(connection: sqlite3.Connection, where: str) -> Iterator[None]:
    """A savepoint that raises RowRefused when a row's data is the trouble."""
    try:
        with savepoint(connection, "part"):
            yield
    except sqlite3.Error as error:
        problem = refusal(error)
        if problem is None:
            raise translate(error, where) from error
        raise RowRefused(problem) from error


def vacate(
    connection: sqlite3.Connection,
    prepared: PreparedBatch,
    current: DatasetSchema,
    vacancy: Vacancy,
) -> None:
    """Let a record that was judged give up its unique value for a moment. Raises RowRefused."""
    where, values = _one(prepared, current, vacancy)
    or_abort = overruling(connection, current.name)
    with refusing(connection, current.name):
        connection.execute(
            f"UPDATE {or_abort}{quote(current.name)} AS t SET {quote(vacancy.field.name)} = ?1 "
            f"WHERE {where}",
            values,
        )


def holds(
    connection: sqlite3.Connection,
    prepared: PreparedBatch,
    current: DatasetSchema,
    vacancy: Vacancy,
) -> bool:
    """Whether the record has what it was given for a moment."""
    where, values = _one(prepared, current, vacancy)
    found = connection.execute(
        f"SELECT 1 FROM {quote(current.name)} AS t "
        f"WHERE t.{quote(vacancy.field.name)} IS ?1 AND {where}",
        values,
    )
    return found.fetchone() is not None


def _one(
    prepared: PreparedBatch, current: DatasetSchema, vacancy: Vacancy
) -> tuple[str, list[Any]]:
    """The condition that finds a vacancy's record, and parameters: the vacancy's value, the key."""
    keys = find_fields(current, prepared.key.column_names)
    columns = prepared.key.slice(vacancy.row, 1)
    values = [bound_values(columns.column(field.name), field)[0] for field in keys]
    where = " AND ".join(key_match(field, f"?{i + 2}") for i, field in enumerate(keys))
    return where, [bound_values(vacancy.column, vacancy.field)[0], *values]


def overruling(connection: sqlite3.Connection, table: str) -> str:
    """What a statement says so that constraints of the table do not replace other records.

    Nothing where none of them says what to do on conflict: what a statement says holds for the
    table's triggers too, which may well rely on an INSERT OR IGNORE of their own.
    """
    row = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return "OR ABORT " if row is not None and "CONFLICT" in str(row[0]).upper() else ""


def read_staged(
    connection: sqlite3.Connection, current: DatasetSchema, join: str, names: Sequence[str]
) -> Found:
    """The fields of the records `t` that the staged rows `s` are joined with."""
    fields = find_fields(current, names)
    columns = "".join(f", t.{quote(field.name)}" for field in fields)
    rows = connection.execute(
        f"SELECT s.n{columns} FROM {KEYS_TABLE} AS s "
        f"CROSS JOIN {quote(current.name)} AS t ON {join}"
    ).fetchall()
    return found_records(
        [row[0] for row in rows],
        [row[1:] for row in rows],
        lambda part: to_batch(part, fields, current),
    )
