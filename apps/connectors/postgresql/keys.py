"""Keys of PostgreSQL tables: their order, their texts, and the parts that they are cut into."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

import psycopg

from apps.connectors.base import DigestsRefused, FieldSchema, KeyRange, KeyShare
from apps.connectors.digests import (
    SHARE_DIGITS,
    SHARE_SEPARATOR,
    Form,
    KeyColumn,
    has_length,
    range_sql,
)
from apps.connectors.postgresql.connection import literal, quote
from apps.connectors.postgresql.discovery import Table
from apps.connectors.postgresql.types import Column
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind

_SERVER = """
SELECT current_setting('server_encoding'),
       d.datcollate IN ('C', 'POSIX') AND coalesce(to_jsonb(d)->>'datlocprovider', 'c') = 'c'
FROM pg_database d WHERE d.datname = current_database()
"""
_BYTEWISE = {'pg_catalog."C"', 'pg_catalog."POSIX"'}
_DEFAULT_COLLATION = 'pg_catalog."default"'


def text_sql(column: Column, form: str) -> str:
    """SQL of a column's text in a form."""
    value = f"t.{quote(column.name)}"
    if form == Form.IEEE754:
        return f"encode(float8send({value}::float8 + 0), 'hex')"
    if form == Form.HEX:
        return f"'x' || encode({value}, 'hex')"
    if column.type.kind is Kind.BOOLEAN:
        return f"{value}::int"
    if column.type.kind is Kind.DECIMAL:
        return f"trim_scale({value})::text"
    if column.type.kind is Kind.JSON:
        return f"{value}::jsonb::text"
    return f"{value}::text" if has_length(form) and column.native.name != "text" else value


def key_column(column: Column, field: FieldSchema, *, is_bytewise: bool) -> tuple[KeyColumn, bool]:
    """How a key field is ordered, and whether its index serves that order.

    is_bytewise: whether the database's default collation orders bytes.
    """
    name = f"t.{quote(column.name)}"
    if field.type.kind is not Kind.TEXT:
        return KeyColumn(field, name, column.read(), value_literal), True
    own = column.collation in _BYTEWISE or (column.collation == _DEFAULT_COLLATION and is_bytewise)
    plain = column.native.name in {"text", "character varying"}
    if own and plain:
        return KeyColumn(field, name, name, value_literal), True
    order = f'{name}::text COLLATE "C"' if not plain else f'{name} COLLATE "C"'
    return KeyColumn(field, order, column.read(), value_literal), plain and own


def value_literal(value: Any) -> str:
    """A key's value in SQL, of the type that compares with its field by value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return f"({value:f})" if isinstance(value, Decimal) else f"({value})"
    if isinstance(value, bytes):
        return f"'\\x{value.hex()}'::bytea"
    if isinstance(value, datetime):
        kind = "timestamptz" if value.tzinfo else "timestamp"
        return f"'{value.isoformat(' ')}'::{kind}"
    if isinstance(value, date):
        return f"'{value.isoformat()}'::date"
    if isinstance(value, time):
        return f"'{value.isoformat()}'::time"
    return literal(str(value))


def part_conditions(
    part: KeyRange | KeyShare, table: Table, catalog: psycopg.Connection[Any]
) -> list[str]:
    """SQL of whether a record belongs to a part. catalog: any connection to the database."""
    if isinstance(part, KeyShare):
        return [_share_sql(part, table)]
    fields = find_fields(table.schema, part.fields)
    is_text = any(field.type.kind is Kind.TEXT for field in fields)
    is_bytewise = is_text and orders_bytes(catalog)
    key = [
        key_column(table.columns[field.name], field, is_bytewise=is_bytewise)[0] for field in fields
    ]
    return range_sql(key, part)


def _share_sql(part: KeyShare, table: Table) -> str:
    names = [field.name for field in part.fields]
    find_fields(table.schema, names)
    columns = table.column_list(names)
    texts = [text_sql(column, f.form) for column, f in zip(columns, part.fields, strict=True)]
    joined = f", '{SHARE_SEPARATOR}', ".join(texts)
    digits = f"substr(md5(convert_to(concat({joined}), 'UTF8')), 1, {SHARE_DIGITS})"
    number = f"('x' || {digits})::bit({4 * SHARE_DIGITS})::bigint"
    return f"{number} % {int(part.shares)} = {int(part.number)}"


def orders_bytes(catalog: psycopg.Connection[Any]) -> bool:
    """Whether the default collation orders bytes. Raises DigestsRefused for other encodings."""
    row = catalog.execute(_SERVER).fetchone()
    encoding, is_bytewise = row or ("", False)
    if encoding != "UTF8":
        raise DigestsRefused(f"the server keeps text as {encoding}, not as UTF-8")
    return bool(is_bytewise)
