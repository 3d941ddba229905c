"""SQLite's declared types and storage classes against the neutral types.

SQLite keeps any value in any column; a declared type only suggests. The neutral type comes from
the declared one, and a value of another kind makes its record a rejection. A column without a
type (or with an unknown one) gets the type of what it holds, where that is of one kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import pyarrow as pa

from apps.connectors import types as neutral
from apps.connectors.base import FieldSchema
from apps.connectors.canonical import canonical_decimal
from apps.connectors.sql_values import Decoded, as_text, decode
from apps.connectors.types import Kind, NeutralType

REAL_DIGITS = 15
"""Decimals with at most this many digits survive a binary double."""

_DECLARED = re.compile(r"^\s*([^()]*?)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*$")

_EXACT_NAMES: dict[str, NeutralType] = {
    "BOOL": neutral.BOOLEAN,
    "BOOLEAN": neutral.BOOLEAN,
    "DATE": neutral.DATE,
    "TIME": neutral.TIME,
    "DATETIME": neutral.TIMESTAMP,
    "TIMESTAMP": neutral.TIMESTAMP,
    "TIMESTAMPTZ": neutral.TIMESTAMPTZ,
    "TIMESTAMP WITH TIME ZONE": neutral.TIMESTAMPTZ,
    "UUID": neutral.UUID,
    "GUID": neutral.UUID,
    "JSON": neutral.JSON,
    "JSON TEXT": neutral.JSON,
    "STRING": neutral.TEXT,
    "VARBINARY": neutral.BYTES,
    "BINARY": neutral.BYTES,
    "BYTEA": neutral.BYTES,
}
_BY_CONTENT = {
    "integer": neutral.INTEGER,
    "real": neutral.FLOAT,
    "text": neutral.TEXT,
    "blob": neutral.BYTES,
}


def declared_type(declared: str) -> NeutralType | None:
    """The neutral type of a declared one; None when only the content can tell."""
    match = _DECLARED.match(declared.upper())
    if match is None or not match[1]:
        return None
    name, first, second = match.groups()
    if name in _EXACT_NAMES:
        return _EXACT_NAMES[name]
    if name in {"NUMERIC", "DECIMAL", "NUMBER", "DECIMAL TEXT"}:
        if first is None:
            return NeutralType(Kind.DECIMAL)
        return neutral.decimal(int(first), int(second or 0))
    return _by_affinity(name, first)


def _by_affinity(name: str, length: str | None) -> NeutralType | None:
    """The rules of https://www.sqlite.org/datatype3.html, section 3.1."""
    if "INT" in name:
        return neutral.INTEGER
    if any(part in name for part in ("CHAR", "CLOB", "TEXT")):
        return NeutralType(Kind.TEXT, length=int(length) if length else None)
    if "BLOB" in name:
        return neutral.BYTES
    if any(part in name for part in ("REAL", "FLOA", "DOUB")):
        return neutral.FLOAT
    return None


def content_type(storage_classes: Iterable[str]) -> NeutralType:
    """The neutral type of a column that holds values of these storage classes."""
    kinds = set(storage_classes) - {"null"}
    if kinds == {"integer", "real"}:
        return neutral.FLOAT
    return _BY_CONTENT[kinds.pop()] if len(kinds) == 1 else neutral.TEXT


def has_text_affinity(declared: str) -> bool:
    name = declared.upper()
    return "INT" not in name and any(part in name for part in ("CHAR", "CLOB", "TEXT"))


_CREATED = {
    Kind.BOOLEAN: "BOOLEAN",
    Kind.INTEGER: "INTEGER",
    Kind.FLOAT: "DOUBLE",
    Kind.BYTES: "BLOB",
    Kind.DATE: "DATE",
    Kind.TIME: "TIME",
    Kind.TIMESTAMP: "TIMESTAMP",
    Kind.TIMESTAMPTZ: "TIMESTAMPTZ",
    Kind.UUID: "UUID",
    Kind.JSON: "JSON TEXT",
    Kind.ARRAY: "JSON TEXT",
}


def created_type(kind: NeutralType) -> str:
    """The type to declare so that values of a neutral type are kept exactly."""
    if kind.kind is Kind.TEXT:
        return f"VARCHAR({kind.length})" if kind.length else "TEXT"
    if kind.kind is Kind.DECIMAL:
        if kind.precision is None:
            return "DECIMAL TEXT"
        name = "NUMERIC" if kind.precision <= REAL_DIGITS else "DECIMAL TEXT"
        return f"{name}({kind.precision},{kind.scale or 0})"
    return _CREATED[kind.kind]


_ACCEPTED: dict[Kind, frozenset[type]] = {
    Kind.BOOLEAN: frozenset({int}),
    Kind.INTEGER: frozenset({int}),
    Kind.DECIMAL: frozenset({int, float, str}),
    Kind.FLOAT: frozenset({int, float}),
    Kind.BYTES: frozenset({bytes}),
    Kind.JSON: frozenset({str, int, float}),
}
_TEXT_ONLY = frozenset({str})
_NONE = frozenset({type(None)})


def column_of(values: Sequence[Any], kind: NeutralType) -> Decoded:
    """A column of the neutral type from SQLite's values; those of a wrong kind are bad."""
    accepted = _ACCEPTED.get(kind.kind, _TEXT_ONLY)
    bad: set[int] = set()
    if not set(map(type, values)) <= accepted | _NONE:
        kept = accepted | _NONE
        bad = {row for row, value in enumerate(values) if type(value) not in kept}
        values = [None if row in bad else value for row, value in enumerate(values)]
    if kind.kind in {Kind.DECIMAL, Kind.JSON}:
        values = [v if v is None or type(v) is str else repr(v) for v in values]
    elif kind.kind is Kind.FLOAT:
        bad |= {r for r, v in enumerate(values) if type(v) is int and int(float(v)) != v}
        values = [None if r in bad else v for r, v in enumerate(values)] if bad else values
    decoded, broken = _to_arrow(values, kind)
    bad |= broken
    result = decode(decoded, kind)
    return Decoded(result.values, tuple(sorted(bad | set(result.bad))))


def _to_arrow(values: Sequence[Any], kind: NeutralType) -> tuple[pa.Array, set[int]]:
    storage = {Kind.BOOLEAN: pa.int64(), Kind.INTEGER: pa.int64(), Kind.FLOAT: pa.float64()}
    arrow = storage.get(kind.kind, pa.binary() if kind.kind is Kind.BYTES else pa.string())
    try:
        return pa.array(values, arrow), set()
    except UnicodeEncodeError:
        bad = {r for r, v in enumerate(values) if isinstance(v, str) and not _is_unicode(v)}
        kept = [None if row in bad else value for row, value in enumerate(values)]
        return pa.array(kept, arrow), bad


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def bound_values(column: pa.ChunkedArray, field: FieldSchema) -> list[Any]:
    """The values of a column as parameters of a statement."""
    kind = field.type.kind
    if kind is Kind.DECIMAL and not field.type.is_wide_decimal:
        return [None if v is None else canonical_decimal(v) for v in column.to_pylist()]
    if kind in {Kind.DATE, Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}:
        suffix = "+00:00" if kind is Kind.TIMESTAMPTZ else ""
        texts = as_text(column.combine_chunks()).to_pylist()
        return [None if text is None else text + suffix for text in texts]
    values: list[Any] = column.to_pylist()
    return values


def keeps_exactly(field: FieldSchema) -> Callable[[Any], bool] | None:
    """A test whether SQLite keeps a bound value exactly; None where it always does."""
    if field.type.kind is Kind.FLOAT:
        return lambda value: not math.isnan(value)
    if field.type.kind is Kind.DECIMAL and not has_text_affinity(field.native_type):
        return _fits_numeric_affinity
    return None


def _fits_numeric_affinity(text: str) -> bool:
    number = Decimal(text)
    if number == number.to_integral_value():
        return abs(number) < 2**63
    return len(number.as_tuple().digits) <= REAL_DIGITS
