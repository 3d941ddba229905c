"""Cutting SQLite tables into key ranges: by one integer, of which every table knows the order."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from apps.connectors.base import DatasetSchema, DigestsRefused, FieldSchema, KeyBounds, KeySpan
from apps.connectors.digests import KeyColumn, sample_sql
from apps.connectors.sqlite.connection import quote
from apps.connectors.types import Kind


def split_integers(
    connection: sqlite3.Connection, key: Sequence[FieldSchema], current: DatasetSchema, parts: int
) -> KeyBounds:
    """Bounds of ranges of equal numbers of rows, by all of its keys. Raises DigestsRefused."""
    if len(key) != 1 or key[0].type.kind is not Kind.INTEGER:
        raise DigestsRefused("SQLite reads ranges of a key of one integer only")
    name = f"t.{quote(key[0].name)}"
    query = sample_sql(
        [KeyColumn(key[0], name, name, str)],
        [KeySpan()],
        table=quote(current.name),
        parts=parts,
        chosen=f"typeof({name}) = 'integer'",
        divided="/",
    )
    found = dict.fromkeys(row[1] for row in connection.execute(query)) if parts > 1 else {}
    return KeyBounds(tuple((value,) for value in found), indexed=True)
