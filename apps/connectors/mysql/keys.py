"""Keys of MySQL tables: their order, their texts, and the parts that they are cut into."""

from __future__ import annotations

from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from apps.connectors.base import FieldSchema, KeyRange, KeyShare
from apps.connectors.digests import (
    SHARE_DIGITS,
    SHARE_SEPARATOR,
    Form,
    KeyColumn,
    has_length,
    range_sql,
)
from apps.connectors.mysql.connection import quote
from apps.connectors.mysql.discovery import Table
from apps.connectors.mysql.types import Column, binary
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind

_BYTEWISE = {"utf8mb4_0900_bin", "utf8mb4_nopad_bin", "utf8mb3_nopad_bin"}


def text_sql(column: Column, form: str) -> str:
    """SQL of a column's text in a form, as bytes where the encoding writes its length."""
    value = column.read()
    kind = column.type.kind
    if form == Form.HEX:
        return f"CONCAT('x', LOWER(HEX({value})))"
    if kind is Kind.DECIMAL and column.type.scale:
        return _trimmed(value)
    if kind in {Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        text = _trimmed(value) if column.fraction_digits else value
        return f"CONCAT({text}, '+00')" if kind is Kind.TIMESTAMPTZ else text
    if column.base == "year":
        return f"({value} + 0)"
    if kind is Kind.UUID or (kind is Kind.FLOAT and has_length(form)):
        return f"CAST({value} AS CHAR)"
    if not has_length(form) or kind in {Kind.INTEGER, Kind.DECIMAL}:
        return value
    return f"CAST({value} AS BINARY)" if column.charset == "utf8mb4" else binary(value)


def _trimmed(value: str) -> str:
    """A number with decimals, or a time with a fraction, without trailing zeros in these."""
    return f"TRIM(TRAILING '.' FROM TRIM(TRAILING '0' FROM {value}))"


def key_column(column: Column, field: FieldSchema) -> tuple[KeyColumn, bool]:
    """How a key field is ordered, and whether its index serves that order."""
    name = f"t.{quote(column.name)}"
    if field.type.kind is Kind.UUID:
        order = f"CAST(CAST({name} AS CHAR) AS BINARY)"
        return KeyColumn(field, order, name, value_literal), False
    if field.type.kind is not Kind.TEXT:
        return KeyColumn(field, name, column.read(), value_literal), True
    if column.collation in _BYTEWISE and column.base != "char":

        def collated(value: Any) -> str:
            charset = f"CONVERT({text_literal(value)} USING {column.charset})"
            return f"{charset} COLLATE {column.collation}"

        return KeyColumn(field, name, name, collated), True
    return KeyColumn(field, binary(name), column.read(), value_literal), False


def text_literal(value: str) -> str:
    """A text in SQL."""
    escaped = value.replace("\\", "\\\\").replace("'", "''")
    return f"'{escaped}'"


def value_literal(value: Any) -> str:
    """A key's value in SQL, of the type that compares with its field by value; text as bytes."""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, int | Decimal):
        return f"({value:f})" if isinstance(value, Decimal) else f"({value})"
    if isinstance(value, bytes):
        return f"X'{value.hex()}'"
    if isinstance(value, datetime):
        return f"TIMESTAMP'{value.replace(tzinfo=None).isoformat(' ')}'"
    if isinstance(value, date):
        return f"DATE'{value.isoformat()}'"
    if isinstance(value, time):
        return f"TIME'{value.isoformat()}'"
    return f"X'{str(value).encode().hex()}'"


def part_conditions(part: KeyRange | KeyShare, table: Table) -> list[str]:
    """SQL of whether a record belongs to a part."""
    if isinstance(part, KeyShare):
        return [_share_sql(part, table)]
    fields = find_fields(table.schema, part.fields)
    return range_sql([key_column(table.columns[field.name], field)[0] for field in fields], part)


def _share_sql(part: KeyShare, table: Table) -> str:
    names = [field.name for field in part.fields]
    find_fields(table.schema, names)
    columns = table.column_list(names)
    texts = [
        f"IFNULL({text_sql(column, field.form)}, '')"
        for column, field in zip(columns, part.fields, strict=True)
    ]
    joined = f", '{SHARE_SEPARATOR}', ".join(texts)
    digits = f"SUBSTR(MD5(CONCAT({joined})), 1, {SHARE_DIGITS})"
    number = f"CAST(CONV({digits}, 16, 10) AS UNSIGNED)"
    return f"{number} MOD {int(part.shares)} = {int(part.number)}"
