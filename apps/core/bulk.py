"""Many rows at once, all or none: COPY on PostgreSQL, prepared statements on SQLite.

The ORM builds an object per row; a run of a million changes has no time for that. Table and
column names come from model metadata, never from a caller's text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import connection, models, transaction

Row = Sequence[Any]
COPY_ROWS = 1_000
_COPY_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def bulk_insert(model: type[models.Model], columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Insert rows; values as psycopg or sqlite3 take them, UUIDs as `uuid.UUID`."""
    names = [_column(model, name) for name in columns]
    table = connection.ops.quote_name(model._meta.db_table)
    target = f"{table} ({', '.join(names)})"
    if connection.vendor == "postgresql":
        with _cursor() as cursor:
            _copy(cursor, target, rows)
        return
    marks = ", ".join(["?"] * len(names))
    _executemany(f"INSERT INTO {target} VALUES ({marks})", rows)  # noqa: S608  # nosec B608  # names of our own models


def bulk_upsert(
    model: type[models.Model],
    columns: Sequence[str],
    conflict: Sequence[str],
    update: Sequence[str],
    rows: Iterable[Row],
) -> None:
    """Insert rows, or update the columns `update` of those that clash on `conflict`.

    Without columns to update, those that clash stay as they are. Else the rows given must not
    clash among themselves: PostgreSQL refuses that.
    """
    names = [_column(model, name) for name in columns]
    table = connection.ops.quote_name(model._meta.db_table)
    sets = ", ".join(f"{_column(model, n)} = excluded.{_column(model, n)}" for n in update)
    clash = ", ".join(_column(model, name) for name in conflict)
    tail = f"ON CONFLICT ({clash}) DO "
    tail += f"UPDATE SET {sets}" if update else "NOTHING"  # nosec B608  # names of our own models
    if connection.vendor != "postgresql":
        marks = ", ".join(["?"] * len(names))
        head = f"INSERT INTO {table} ({', '.join(names)})"
        _executemany(f"{head} VALUES ({marks}) {tail}", rows)
        return
    with _cursor() as cursor, _staged(cursor, table, names, rows):
        cursor.execute(
            f"INSERT INTO {table} ({', '.join(names)}) "  # noqa: S608  # nosec B608  # names of our own models
            f"SELECT {', '.join(names)} FROM bulk_stage {tail}"
        )


def bulk_update(
    model: type[models.Model], key: Sequence[str], update: Sequence[str], rows: Iterable[Row]
) -> None:
    """Set the columns `update` of the rows that `key` names, where there are such.

    rows: values of `key`, then of `update`; each key at most once.
    """
    keys, values = ([_column(model, name) for name in names] for names in (key, update))
    table = connection.ops.quote_name(model._meta.db_table)
    if connection.vendor != "postgresql":
        sets = ", ".join(f"{name} = ?" for name in values)
        wheres = " AND ".join(f"{name} = ?" for name in keys)
        ordered = ([*row[len(keys) :], *row[: len(keys)]] for row in rows)
        _executemany(f"UPDATE {table} SET {sets} WHERE {wheres}", ordered)  # noqa: S608  # nosec B608  # names of our own models
        return
    sets = ", ".join(f"{name} = s.{name}" for name in values)
    wheres = " AND ".join(f"t.{name} = s.{name}" for name in keys)
    with _cursor() as cursor, _staged(cursor, table, [*keys, *values], rows):
        cursor.execute(f"UPDATE {table} t SET {sets} FROM bulk_stage s WHERE {wheres}")  # noqa: S608  # nosec B608  # names of our own models


def bulk_exchange(
    model: type[models.Model], name: str, rows: Sequence[tuple[Any, bytes, bytes]]
) -> int:
    """Set a column of bytes to a new value where it still holds the old one; how many were set.

    rows: primary key, old value, new value. A row that another transaction holds is left alone:
    whoever waits while holding rows can be waited for in a circle.
    """
    pk = model._meta.pk
    table = connection.ops.quote_name(model._meta.db_table)
    key, column = connection.ops.quote_name(str(pk.column)), _column(model, name)
    if connection.vendor != "postgresql":
        with _cursor() as cursor:
            marks = ([_sqlite(v) for v in (new, key_value, old)] for key_value, old, new in rows)
            sql = f"UPDATE {table} SET {column} = ? WHERE {key} = ? AND {column} = ?"  # noqa: S608  # nosec B608  # names of our own models
            return int(cursor.cursor.connection.executemany(sql, marks).rowcount)
    with _cursor() as cursor:
        cursor.execute(
            f"WITH given AS (SELECT * FROM unnest(%s::{pk.rel_db_type(connection)}[], "  # noqa: S608  # nosec B608  # names of our own models
            f"%s::bytea[], %s::bytea[]) g(pk, old, new)), "
            f"free AS (SELECT t.{key} AS pk FROM {table} t JOIN given g ON t.{key} = g.pk "
            f"WHERE t.{column} = g.old FOR UPDATE OF t SKIP LOCKED) "
            f"UPDATE {table} t SET {column} = g.new FROM given g JOIN free USING (pk) "
            f"WHERE t.{key} = g.pk AND t.{column} = g.old",
            [list(values) for values in zip(*rows, strict=True)],
        )
        return int(cursor.rowcount)


@contextmanager
def _staged(cursor: Any, table: str, names: Sequence[str], rows: Iterable[Row]) -> Iterator[None]:
    """The rows in a temporary table `bulk_stage` with columns like those of `table`."""
    columns = ", ".join(names)
    cursor.execute(
        f"CREATE TEMP TABLE bulk_stage ON COMMIT DROP AS SELECT {columns} "  # noqa: S608  # nosec B608  # names of our own models
        f"FROM {table} WITH NO DATA"
    )
    _copy(cursor, f"bulk_stage ({columns})", rows)
    yield
    cursor.execute("DROP TABLE bulk_stage")


@contextmanager
def _cursor() -> Iterator[Any]:
    """A cursor within a transaction, whose errors are Django's also past Django's own calls."""
    with transaction.atomic(), connection.cursor() as cursor, connection.wrap_database_errors:
        yield cursor


def _copy(cursor: Any, target: str, rows: Iterable[Row]) -> None:
    """COPY in text form, many rows a message: five times faster than a row a message."""
    texts: dict[UUID, str] = {}
    with cursor.copy(f"COPY {target} FROM STDIN") as copy:
        for block in _blocks(rows):
            lines = ["\t".join([_copy_text(value, texts) for value in row]) for row in block]
            copy.write("\n".join(lines) + "\n")


def _blocks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    iterator = iter(rows)
    while block := list(islice(iterator, COPY_ROWS)):
        yield block


def _copy_text(value: Any, texts: dict[UUID, str]) -> str:
    """A value as COPY's text form has it; `texts` remembers the identities that repeat."""
    if isinstance(value, str):
        return value.translate(_COPY_ESCAPES)
    if isinstance(value, bytes):
        return f"\\\\x{value.hex()}"
    if value is None:
        return "\\N"
    if isinstance(value, UUID):
        text = texts.get(value)
        if text is None:
            text = texts[value] = str(value)
        return text
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _executemany(sql: str, rows: Iterable[Row]) -> None:
    """Past Django's per-statement conversion: sqlite3 takes the rows as they are."""
    with _cursor() as cursor:
        cursor.cursor.connection.executemany(sql, ([_sqlite(v) for v in row] for row in rows))


def _sqlite(value: Any) -> Any:
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    return value


def _column(model: type[models.Model], name: str) -> str:
    field = model._meta.get_field(name)
    return connection.ops.quote_name(str(field.column))  # type: ignore[union-attr]
