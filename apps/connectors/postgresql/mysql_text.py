r"""Handing a PostgreSQL table on as the text that MySQL's LOAD DATA reads.

The two text formats are nearly one: tabs, newlines, `\N` and backslashes mean the same. The query
gives each value in the form that MySQL reads exactly, and no type is handed on that has none. What
is left is `\v` and `\f`, which PostgreSQL writes and MySQL takes for the letters: they become the
characters themselves. A value outside MySQL's ranges (infinity, a year BC, NaN) goes out as it is,
because MySQL warns of it, which refuses the load; what MySQL would take as JSON without a word is
put out as something that is none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg

from apps.connectors.base import ExportPiece, LoadRefused
from apps.connectors.postgresql.connection import quote
from apps.connectors.postgresql.discovery import Table
from apps.connectors.postgresql.export_keys import ExportKeys, LineKeys
from apps.connectors.postgresql.exporting import PostgresqlExport
from apps.connectors.postgresql.types import Column
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind, NeutralType

FORMAT = "mysql-text"

_TEXTS = {"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum"}
_INTEGERS = {"tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year", "bit"}
_WHOLE_DECIMALS = {"bigint unsigned", "bit(64)"}
_TAKEN_BY: dict[Kind, set[str]] = {
    Kind.BOOLEAN: {"tinyint(1)", "bit(1)"},
    Kind.INTEGER: {*_INTEGERS, *_WHOLE_DECIMALS, "decimal"},
    Kind.DECIMAL: {*_WHOLE_DECIMALS, "decimal"},
    Kind.FLOAT: {"double", "float"},
    Kind.TEXT: _TEXTS,
    Kind.BYTES: {"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"},
    Kind.DATE: {"date"},
    Kind.TIME: {"time"},
    Kind.TIMESTAMP: {"datetime"},
    Kind.TIMESTAMPTZ: {"timestamp", "datetime"},
    Kind.UUID: {"uuid", *_TEXTS},
    Kind.JSON: {"json"},
    Kind.ARRAY: {"json"},
}
"""The MySQL types that hold a kind's values in the form in which they are handed on here."""

_FOREIGN_ESCAPE = re.compile(rb"\\[vf]")
_PLAIN_ITEMS = {Kind.INTEGER, Kind.BOOLEAN, Kind.FLOAT, Kind.DECIMAL}
_TEXT_ITEMS = {Kind.TEXT, Kind.UUID}


class MysqlTextExport(PostgresqlExport):
    """A snapshot of a table as COPY text, mended for MySQL."""

    def _select(self, connection: psycopg.Connection[Any], table: Table) -> str:
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            raise LoadRefused("the source does not say how its texts are encoded (SQL_ASCII)")
        find_fields(table.schema, self._fields)
        columns = table.column_list(self._fields)
        values = [
            _value(column, wanted) for column, wanted in zip(columns, self._wanted, strict=True)
        ]
        return f"COPY (SELECT {', '.join(values)} FROM {self._from}) TO STDOUT"

    def _key_cutter(self, connection: psycopg.Connection[Any], table: Table) -> ExportKeys:
        return LineKeys(find_fields(table.schema, self._key))

    def pieces(self) -> Iterator[ExportPiece]:
        for piece in super().pieces():
            yield replace(piece, data=mended(piece.data))


def mended(lines: bytes) -> bytes:
    r"""Whole lines of COPY text with `\v` and `\f` as the characters that they stand for."""
    if _FOREIGN_ESCAPE.search(lines) is None:
        return lines
    # Between escaped backslashes, a backslash always begins an escape.
    parts = lines.split(b"\\\\")
    return b"\\\\".join(
        part.replace(b"\\v", b"\v").replace(b"\\f", b"\f") if b"\\" in part else part
        for part in parts
    )


def _value(column: Column, wanted: str) -> str:
    """The expression whose text MySQL reads as this value. Raises LoadRefused."""
    value = _expression(column, wanted) if wanted in _TAKEN_BY[column.type.kind] else None
    if value is None:
        raise LoadRefused(f"the field '{column.name}' has no exact form as {wanted}")
    return value


def _expression(column: Column, wanted: str) -> str | None:
    name = f"t.{quote(column.name)}"
    kind = column.type
    if kind.kind is Kind.DECIMAL:
        # MySQL rounds to a whole number in silence, but not to fewer decimals.
        is_whole = kind.precision is not None and not kind.scale
        return name if is_whole or wanted not in _WHOLE_DECIMALS else None
    if kind.kind is Kind.FLOAT:
        if column.native.name == "real":
            return f"{name}::float8"
        return name if wanted == "double" else None
    if kind.kind is Kind.TEXT:
        return column.read()
    if kind.kind is Kind.JSON:
        return name if column.native.name == "jsonb" else f"{name}::jsonb"
    if kind.kind is Kind.ARRAY:
        return _array(name, kind)
    return _FORMS.get(kind.kind, "{name}").format(name=name)


_FORMS = {
    Kind.BOOLEAN: "{name}::int",
    Kind.BYTES: "encode({name}, 'hex')",
    Kind.TIMESTAMPTZ: "{name} AT TIME ZONE 'UTC'",
}


def _array(name: str, kind: NeutralType) -> str | None:
    """Its JSON, where the items have a form in JSON that needs no thought.

    A table or a NaN has none: what is put out is no JSON, and refused by MySQL.
    """
    item = kind.item
    if item is None or item.is_wide_decimal:
        return None
    if item.kind in _PLAIN_ITEMS:
        strange = f"array_ndims({name}) > 1 OR {name}::text[] && '{{NaN,Infinity,-Infinity}}'"
        return f"CASE WHEN {strange} THEN 'none' ELSE array_to_json({name})::text END"
    if item.kind in _TEXT_ITEMS:
        texts = f"array_to_json({name}::text[])::text"
        return f"CASE WHEN array_ndims({name}) > 1 THEN 'none' ELSE {texts} END"
    return None
