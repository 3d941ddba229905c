"""What the keys of a SQLite table stand among: indexes of a kind of their own, foreign keys."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator

from apps.connectors.base import DatasetSchema
from apps.connectors.sqlite import discovery
from apps.connectors.sqlite.connection import quote

_WHERE = re.compile(r"\bWHERE\b", re.IGNORECASE)
_WORD = re.compile(r"\w+")


def loose_keys(connection: sqlite3.Connection, current: DatasetSchema) -> Iterator[list[str]]:
    """The fields of unique indexes that are partial, or on expressions whose text names them."""
    for _, index, unique, _, partial in connection.execute(
        f"PRAGMA index_list({quote(current.name)})"
    ).fetchall():
        columns = connection.execute(f"PRAGMA index_info({quote(index)})").fetchall()
        names = [row[2] for row in columns]
        if unique and None in names:
            yield _named(connection, index, current)
        elif unique and partial:
            yield names


def _named(connection: sqlite3.Connection, index: str, current: DatasetSchema) -> list[str]:
    query = "SELECT sql FROM sqlite_schema WHERE type = 'index' AND name = ?"
    text = str(connection.execute(query, (index,)).fetchone()[0])
    made_of = _WHERE.split(text.partition("(")[2])[0]
    words = {word.lower() for word in _WORD.findall(made_of)}
    return [name for name in current.field_names if name.lower() in words]


def on_update(connection: sqlite3.Connection, current: DatasetSchema) -> Iterator[tuple[str, str]]:
    """The fields that foreign keys, or triggers, may follow, each with its ON UPDATE."""
    spelled = {name.lower(): name for name in current.field_names}
    for table in discovery.dataset_names(connection):
        for row in connection.execute(f"PRAGMA foreign_key_list({quote(table)})").fetchall():
            _, _, target, _, field, action, *_ = row
            if target.lower() == current.name.lower() and field is not None:
                yield spelled.get(field.lower(), field), action
    triggers = "SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND lower(tbl_name) = lower(?)"
    if connection.execute(triggers, (current.name,)).fetchone():
        yield from ((name, "CASCADE") for name in current.field_names)
