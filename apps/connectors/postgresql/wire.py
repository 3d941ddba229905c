"""Columns as binary COPY carries them from one server to another.

A form is the same on every server only for the types that all of them have. Enumerations and
citext travel as the texts that they are; other types of a database's own do not travel at all,
because an array or a composite names them by a number that only its own server knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psycopg

from apps.connectors.postgresql.connection import quote
from apps.connectors.postgresql.types import Column, NativeType

FORMAT = "postgresql-binary"

_KINDS = """
SELECT t.typtype = 'e' OR t.typname = 'citext', n.nspname = 'pg_catalog' AND t.typtype IN ('b', 'r')
FROM unnest(%(types)s::text[]) WITH ORDINALITY AS given(name, place)
JOIN pg_type t ON t.oid = given.name::regtype JOIN pg_namespace n ON n.oid = t.typnamespace
ORDER BY given.place
"""

_TEXTS = {"text", "character varying"}
_EXACT_CASTS: dict[str, set[str]] = {
    "smallint": {"integer", "bigint", "numeric", "real", "double precision"},
    "integer": {"bigint", "numeric", "double precision"},
    "bigint": {"numeric"},
    "real": {"double precision"},
    "text": _TEXTS,
    "character varying": _TEXTS,
    "character": _TEXTS | {"bpchar"},
    "bpchar": _TEXTS,
    "uuid": _TEXTS,
    "json": {"jsonb"},
    "jsonb": {"json"},
}
"""Casts after which a value is read as what it was read as before, or as the same number or text.

Numbers that a shorter type could hold are not cast to it: a value that it does not hold would
fail, or be rounded.
"""


@dataclass(frozen=True, slots=True)
class WireColumn:
    """A column, and how it travels."""

    column: Column
    as_text: bool  # its form is that of a text
    everywhere: bool  # every server has this type

    @property
    def native(self) -> NativeType:
        """The type whose form the column has."""
        return NativeType("text") if self.as_text else self.column.native

    @property
    def target(self) -> str | None:
        """What an export is to give for the column; None where the server could alter it."""
        if self.as_text:
            return "text"
        if not self.everywhere or self.column.native.rounds_unseen:
            return None
        return self.column.cast

    def source(self, wanted: str, alias: str = "t") -> str | None:
        """The expression that gives the column as the type wanted; None where none is exact."""
        name = f"{alias}.{quote(self.column.name)}"
        native = self.column.native
        given = "text" if self.as_text else self.column.cast
        if self.as_text and wanted in _TEXTS:
            return f"{name}::{wanted}"
        if self.everywhere and wanted == given:
            return name
        suffix = "[]" if native.is_array else ""
        exact = self.everywhere and any(
            wanted == f"{cast}{suffix}" for cast in _EXACT_CASTS.get(native.name, ())
        )
        return f"{name}::{wanted}" if exact else None


def wire_columns(
    connection: psycopg.Connection[Any], columns: Sequence[Column]
) -> list[WireColumn]:
    """How each of these columns travels."""
    types = [column.cast for column in columns]
    found = connection.execute(_KINDS, {"types": types}).fetchall()
    return [
        WireColumn(column, as_text=text, everywhere=everywhere)
        for column, (text, everywhere) in zip(columns, found, strict=True)
    ]
