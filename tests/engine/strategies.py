"""Values of neutral types for property tests, as Arrow arrays in their storage."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from apps.connectors.canonical import canonical_json
from apps.connectors.types import (
    BOOLEAN,
    BYTES,
    DATE,
    FLOAT,
    INTEGER,
    JSON,
    TEXT,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    Kind,
    NeutralType,
    array,
    decimal,
)

WIDE = NeutralType(Kind.DECIMAL)
SCALARS = (
    BOOLEAN,
    INTEGER,
    decimal(10, 2),
    decimal(38, 38),
    decimal(38, 0),
    decimal(1, 1),
    decimal(4, 4),
    WIDE,
    FLOAT,
    TEXT,
    BYTES,
    DATE,
    TIME,
    TIMESTAMP,
    TIMESTAMPTZ,
    UUID,
    JSON,
)
TYPES = (*SCALARS, *(array(item) for item in SCALARS), array(array(TEXT)))

MIN_MICROS, MAX_MICROS = -9223372022400000000, 9223372036854775806
MAX_DAYS = 2_147_483_646
"""DuckDB's bounds of dates and timestamps; one beyond is its infinity."""

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", " ", "null", '"', "\\", "\x00", "\x1f\x7f", "👩‍👩‍👧", "é", "\u2028", "a,b", "[]"]
)


def _integers(least: int, most: int) -> st.SearchStrategy[int]:
    return st.integers(least, most) | st.sampled_from([least, most, 0])


def storage_values(neutral: NeutralType) -> st.SearchStrategy[Any]:
    """Python values from which `to_array` builds the storage; None is NULL."""
    return st.none() | _present(neutral)


def _present(neutral: NeutralType) -> st.SearchStrategy[Any]:
    if neutral.kind is Kind.ARRAY:
        assert neutral.item is not None
        return st.lists(storage_values(neutral.item), max_size=3)
    if neutral.is_wide_decimal:
        return st.integers(-(10**60), 10**60).map(str)
    if neutral.kind is Kind.DECIMAL:
        most = 10 ** (neutral.precision or 1) - 1
        scale = neutral.scale or 0
        return _integers(-most, most).map(
            lambda number: Decimal((number < 0, tuple(map(int, str(abs(number)))), -scale))
        )
    return {
        Kind.BOOLEAN: st.booleans(),
        Kind.INTEGER: _integers(-(2**63), 2**63 - 1),
        Kind.FLOAT: st.floats(),
        Kind.TEXT: texts,
        Kind.BYTES: st.binary(max_size=8),
        Kind.DATE: _integers(-MAX_DAYS, MAX_DAYS) | st.integers(-800_000, 3_000_000),
        Kind.TIME: _integers(0, 86_399_999_999),
        Kind.TIMESTAMP: _integers(MIN_MICROS, MAX_MICROS) | st.integers(-(10**17), 10**17),
        Kind.TIMESTAMPTZ: _integers(MIN_MICROS, MAX_MICROS) | st.integers(-(10**17), 10**17),
        Kind.UUID: st.uuids().map(str),
        Kind.JSON: st.dictionaries(texts, st.integers() | st.none()).map(
            lambda value: canonical_json(json.dumps(value))
        ),
    }[neutral.kind]


_INTEGER_STORAGE = {
    Kind.DATE: pa.int32(),
    Kind.TIME: pa.int64(),
    Kind.TIMESTAMP: pa.int64(),
    Kind.TIMESTAMPTZ: pa.int64(),
}


def _plain(neutral: NeutralType) -> pa.DataType:
    if neutral.kind is Kind.ARRAY:
        assert neutral.item is not None
        return pa.list_(_plain(neutral.item))
    return _INTEGER_STORAGE.get(neutral.kind, neutral.arrow)


def to_array(values: list[Any], neutral: NeutralType) -> pa.Array:
    """Values of `storage_values` in the storage of their type."""
    return pa.array(values, _plain(neutral)).cast(neutral.arrow)


def plain_values(column: pa.ChunkedArray, neutral: NeutralType) -> list[Any]:
    """The values of a column in the form of `storage_values`; NaN as the text 'nan'."""
    return _without_nan(column.cast(_plain(neutral)).to_pylist())


def _without_nan(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return "nan" if isinstance(value, float) and value != value else value
