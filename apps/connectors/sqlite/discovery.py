"""What tables and views a SQLite database has."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from typing import Any

from apps.connectors.base import DatasetSchema, FieldSchema, Reference
from apps.connectors.errors import DatasetMissing
from apps.connectors.sqlite.connection import quote
from apps.connectors.sqlite.types import content_type, declared_type
from apps.connectors.types import NeutralType

_SAMPLED_ROWS = 1_000
_HIDDEN, _GENERATED = 1, (2, 3)


def dataset_names(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') "
        "AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY name"
    )
    return [row[0] for row in rows]


def describe(connection: sqlite3.Connection, name: str, *, measure: bool = True) -> DatasetSchema:
    """One table or view. Raises DatasetMissing.

    measure: count the rows as well.
    """
    found = connection.execute(
        "SELECT type FROM sqlite_schema WHERE name = ? AND type IN ('table', 'view')", (name,)
    ).fetchone()
    if found is None:
        raise DatasetMissing(f"there is no table '{name}'", where=name)
    columns = [
        row for row in connection.execute(f"PRAGMA table_xinfo({quote(name)})") if row[6] != _HIDDEN
    ]
    indexes = connection.execute(f"PRAGMA index_list({quote(name)})").fetchall()
    key = tuple(row[1] for row in sorted(columns, key=lambda row: row[5]) if row[5])
    rowid_key = len(key) == 1 and not any(index[3] == "pk" for index in indexes)
    return DatasetSchema(
        name=name,
        fields=tuple(
            _field(connection, name, row, is_rowid=rowid_key and row[5] > 0) for row in columns
        ),
        key=key,
        unique_keys=_unique_keys(connection, indexes, key),
        references=references(connection, name),
        row_count=_count(connection, name) if measure else None,
        format=found[0],
        writable=found[0] == "table",
    )


def _field(
    connection: sqlite3.Connection, table: str, row: tuple[Any, ...], *, is_rowid: bool
) -> FieldSchema:
    _, name, declared, not_null, default, _, hidden = row
    return FieldSchema(
        name=name,
        type=_type(connection, table, name, declared or ""),
        native_type=declared or "",
        nullable=not not_null and not is_rowid,
        has_default=default is not None or is_rowid,
        server_assigned=is_rowid,
        generated=hidden in _GENERATED,
    )


def _type(connection: sqlite3.Connection, table: str, name: str, declared: str) -> NeutralType:
    known = declared_type(declared.replace("GENERATED ALWAYS", ""))
    if known is not None:
        return known
    column = quote(name)
    classes = connection.execute(
        f"SELECT DISTINCT typeof({column}) "
        f"FROM (SELECT {column} FROM {quote(table)} LIMIT {_SAMPLED_ROWS})"
    )
    return content_type(row[0] for row in classes)


def _unique_keys(
    connection: sqlite3.Connection, indexes: list[tuple[Any, ...]], key: tuple[str, ...]
) -> tuple[tuple[str, ...], ...]:
    found: set[tuple[str, ...]] = set()
    for _, index, unique, _, partial in indexes:
        if not unique or partial:
            continue
        rows = connection.execute(f"PRAGMA index_info({quote(index)})").fetchall()
        names = tuple(row[2] for row in rows)
        if None not in names and names != key:
            found.add(names)
    return tuple(sorted(found))


def references(connection: sqlite3.Connection, table: str) -> tuple[Reference, ...]:
    """The foreign keys of a table."""
    grouped: dict[int, list[tuple[Any, ...]]] = defaultdict(list)
    for row in connection.execute(f"PRAGMA foreign_key_list({quote(table)})"):
        grouped[row[0]].append(row)
    found = []
    for number in sorted(grouped):
        rows = sorted(grouped[number], key=lambda row: row[1])
        target = rows[0][2]
        targets = tuple(row[4] for row in rows)
        if None in targets:
            targets = _primary_key(connection, target)
        found.append(Reference(tuple(row[3] for row in rows), target, targets))
    return tuple(found)


def _primary_key(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    rows = connection.execute(f"PRAGMA table_xinfo({quote(table)})").fetchall()
    return tuple(row[1] for row in sorted(rows, key=lambda row: row[5]) if row[5])


def _count(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"SELECT count(*) FROM {quote(name)}").fetchone()[0])
