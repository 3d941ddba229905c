"""Values between a database's wire form and the storage of their neutral types.

Both directions work on whole columns. A value that its neutral type cannot hold exactly never
becomes NULL or another value: its row is named, and the caller rejects it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors import canonical
from apps.connectors.types import Kind, NeutralType

FIRST_DAY = -719_162  # 0001-01-01, in days since 1970
LAST_DAY = 2_932_896  # 9999-12-31
DAY_MICROSECONDS = 86_400_000_000

_CANONICAL_DECIMAL = r"^(-?(0|[1-9][0-9]*)\.[0-9]*[1-9]|-?[1-9][0-9]*|0)$"
_UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


@dataclass(frozen=True, slots=True)
class Decoded:
    """A column in neutral storage; `bad` are the rows (now NULL) that it could not hold."""

    values: pa.Array
    bad: tuple[int, ...] = ()


def decode(values: pa.Array, kind: NeutralType) -> Decoded:
    """Bring a column from any sensible Arrow type into the storage of a neutral type."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if kind.kind is Kind.ARRAY:
        return _decode_array(values, kind)
    return _DECODERS[kind.kind](values, kind)


def convert_or_find(values: pa.Array, convert: Callable[[pa.Array], pa.Array]) -> Decoded:
    """Convert a column; where that raises, halve it until the bad rows are found."""
    try:
        return Decoded(convert(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError, ValueError, OverflowError, UnicodeError):
        if len(values) <= 1:
            nothing = pa.nulls(len(values), convert(values.slice(0, 0)).type)
            return Decoded(nothing, (0,) * len(values))
    half = len(values) // 2
    left = convert_or_find(values.slice(0, half), convert)
    right = convert_or_find(values.slice(half), convert)
    return Decoded(
        pa.concat_arrays([left.values, right.values]),
        (*left.bad, *(row + half for row in right.bad)),
    )


def blank(values: pa.Array, mask: pa.Array) -> Decoded:
    """Set the rows where `mask` is true to NULL and name them."""
    rows = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    if not rows:
        return Decoded(values)
    kept = pc.if_else(pc.fill_null(mask, False), pa.scalar(None, values.type), values)
    return Decoded(kept, tuple(rows))


def merge(first: Decoded, then: Callable[[pa.Array], Decoded]) -> Decoded:
    """Apply another step to what a first step gave; bad rows of both are bad."""
    second = then(first.values)
    return Decoded(second.values, tuple(sorted({*first.bad, *second.bad})))


def _decode_boolean(values: pa.Array, _: NeutralType) -> Decoded:
    if pa.types.is_boolean(values.type):
        return Decoded(values)
    if not _is_text(values.type):
        as_numbers = convert_or_find(values, lambda part: part.cast(pa.int64()))
        return merge(
            as_numbers,
            lambda numbers: merge(
                blank(numbers, pc.invert(pc.is_in(numbers, pa.array([0, 1, None], pa.int64())))),
                lambda good: Decoded(good.cast(pa.bool_())),
            ),
        )
    return convert_or_find(pc.utf8_lower(values), lambda part: part.cast(pa.bool_()))


def _decode_integer(values: pa.Array, _: NeutralType) -> Decoded:
    return convert_or_find(values, lambda part: part.cast(pa.int64()))


def _decode_decimal(values: pa.Array, kind: NeutralType) -> Decoded:
    if kind.is_wide_decimal:
        return _decode_wide_decimal(values)
    if values.type == kind.arrow:
        return Decoded(values)
    if pa.types.is_integer(values.type):
        # Arrow wants nineteen digits for an int64, whatever the values are.
        values = values.cast(pa.string())
    if pa.types.is_floating(values.type):
        values = values.cast(pa.float64()).cast(pa.string())
    return convert_or_find(values, lambda part: part.cast(kind.arrow))


def _decode_wide_decimal(values: pa.Array) -> Decoded:
    if not _is_text(values.type):
        values = values.cast(pa.string())
    regular = pc.match_substring_regex(values, _CANONICAL_DECIMAL)
    if pc.all(pc.fill_null(regular, True)).as_py():
        return Decoded(values.cast(pa.string()))
    return convert_each(values, pa.string(), canonical.canonical_number)


def _decode_float(values: pa.Array, _: NeutralType) -> Decoded:
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.string())
    return convert_or_find(values, lambda part: part.cast(pa.float64()))


def _decode_text(values: pa.Array, _: NeutralType) -> Decoded:
    return convert_or_find(values, lambda part: part.cast(pa.string()))


def _decode_bytes(values: pa.Array, _: NeutralType) -> Decoded:
    return Decoded(values.cast(pa.binary()))


def _decode_date(values: pa.Array, _: NeutralType) -> Decoded:
    if pa.types.is_timestamp(values.type):
        days = values.cast(pa.date32())
        return blank(days, pc.not_equal(days.cast(values.type), values))
    dates = convert_or_find(values, lambda part: part.cast(pa.date32()))
    return merge(dates, outside_years)


def outside_years(values: pa.Array) -> Decoded:
    """Dates or timestamps outside the years 1 to 9999 (and 'infinity') are bad."""
    dates = pa.types.is_date(values.type)
    numbers = values.cast(pa.int32() if dates else pa.int64())
    low, high = (
        (FIRST_DAY, LAST_DAY)
        if dates
        else (FIRST_DAY * DAY_MICROSECONDS, (LAST_DAY + 1) * DAY_MICROSECONDS - 1)
    )
    bounds = pc.min_max(numbers).as_py()
    if bounds["min"] is None or (bounds["min"] >= low and bounds["max"] <= high):
        return Decoded(values)
    return blank(values, pc.or_(pc.less(numbers, low), pc.greater(numbers, high)))


def _decode_time(values: pa.Array, kind: NeutralType) -> Decoded:
    if not _is_text(values.type):
        return convert_or_find(values, lambda part: part.cast(kind.arrow))

    def parse(part: pa.Array) -> pa.Array:
        day = pc.binary_join_element_wise("1970-01-01", part.cast(pa.string()), " ")
        return day.cast(pa.timestamp("us")).cast(kind.arrow)

    return convert_or_find(values, parse)


def _decode_timestamp(values: pa.Array, kind: NeutralType) -> Decoded:
    if _is_text(values.type) and kind.kind is Kind.TIMESTAMPTZ:
        zoned = convert_or_find(values, lambda part: part.cast(kind.arrow))
        return merge(zoned, outside_years)
    stamps = convert_or_find(values, lambda part: part.cast(pa.timestamp("us")))
    return merge(
        merge(stamps, lambda part: Decoded(part.cast(kind.arrow))),
        outside_years,
    )


def _decode_uuid(values: pa.Array, _: NeutralType) -> Decoded:
    lowered = pc.utf8_lower(values.cast(pa.string()))
    return blank(lowered, pc.invert(pc.match_substring_regex(lowered, _UUID)))


def _decode_json(values: pa.Array, _: NeutralType) -> Decoded:
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return Decoded(list_to_json(values))
    texts = values.cast(pa.string())
    distinct = texts.dictionary_encode()
    if len(distinct.dictionary) > len(texts) // 2:
        return _canonical_documents(texts)
    # Settings, labels and the like repeat: each document is read once.
    decoded = _canonical_documents(distinct.dictionary)
    bad = pc.is_in(distinct.indices, pa.array(decoded.bad, pa.int32()))
    return Decoded(
        decoded.values.take(distinct.indices), tuple(pc.indices_nonzero(bad).to_pylist())
    )


def _canonical_documents(texts: pa.Array) -> Decoded:
    exact = pc.fill_null(pc.match_substring_regex(texts, canonical.NEEDS_EXACT), False)
    if not pc.any(exact).as_py():
        return convert_each(texts, pa.string(), canonical.canonical_plain_json)
    return convert_each(texts, pa.string(), canonical.canonical_json)


def _decode_array(values: pa.Array, kind: NeutralType) -> Decoded:
    if kind.item is None:
        raise ValueError("an array without an item type")
    if _is_text(values.type):
        return convert_each(values, kind.arrow, lambda text: _list_from_json(text, kind))
    items = decode(values.flatten(), kind.item)
    rebuilt = pa.ListArray.from_arrays(_offsets(values), items.values, mask=values.is_null())
    rebuilt = rebuilt.cast(kind.arrow)
    if not items.bad:
        return Decoded(rebuilt)
    parents = pc.list_parent_indices(values)
    bad_rows = sorted({parents[item].as_py() for item in items.bad})
    mask = pc.is_in(pa.array(range(len(values))), pa.array(bad_rows, pa.int64()))
    return Decoded(blank(rebuilt, mask).values, tuple(bad_rows))


def _offsets(values: pa.Array) -> pa.Array:
    """Offsets into `values.flatten()`, which leaves out what stands under NULL lists."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).cast(pa.int32())
    ends = pc.cumulative_sum(lengths)
    return pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])


def _list_from_json(text: str, kind: NeutralType) -> list[Any]:
    loaded = canonical.load_json(text)
    item = kind.item
    if not isinstance(loaded, list) or item is None:
        raise ValueError("not a list")
    texts = [_json_item_text(value, item) for value in loaded]
    decoded = decode(pa.array(texts, pa.string()), item)
    if decoded.bad:
        raise ValueError("an item that does not fit the type")
    items: list[Any] = decoded.values.to_pylist()
    return items


def _json_item_text(value: Any, item: NeutralType) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and item.kind is not Kind.JSON:
        return value
    return canonical.dump_json(value)


def convert_each(values: pa.Array, arrow: pa.DataType, convert: Callable[[str], Any]) -> Decoded:
    """Convert value by value, for what no vectorised function does."""
    converted: list[Any] = []
    bad: list[int] = []
    for row, value in enumerate(values.to_pylist()):
        try:
            converted.append(None if value is None else convert(value))
        except ValueError:
            converted.append(None)
            bad.append(row)
    return Decoded(pa.array(converted, arrow), tuple(bad))


def list_to_json(values: pa.Array) -> pa.Array:
    """Lists as canonical JSON text; items that JSON has no form for become text."""
    item = values.type.value_type
    numbers = pa.types.is_integer(item) or pa.types.is_decimal(item) or pa.types.is_floating(item)
    if pa.types.is_binary(item):
        return pa.array([_hex_list(row) for row in values.to_pylist()], pa.string())
    if not (numbers or pa.types.is_boolean(item) or _is_text(item)):
        values = pa.ListArray.from_arrays(
            _offsets(values), as_text(values.flatten()), mask=values.is_null()
        )
    return pa.array(
        [None if row is None else _dump_list(row) for row in values.to_pylist()], pa.string()
    )


def _dump_list(row: list[Any]) -> str:
    return canonical.dump_json([_json_number(v) if isinstance(v, float) else v for v in row])


def _json_number(value: float) -> Any:
    return Decimal(repr(value)) if abs(value) < float("inf") else str(value)


def _hex_list(row: list[bytes | None] | None) -> str | None:
    if row is None:
        return None
    return canonical.dump_json([None if v is None else v.hex() for v in row])


def as_text(values: pa.Array) -> pa.Array:
    """Scalar values as text that every SQL database reads back exactly (bytes as hex).

    Instants are written in UTC without an offset: the session's time zone is UTC.
    """
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if pa.types.is_timestamp(values.type) and values.type.tz is not None:
        values = values.cast(pa.timestamp("us"))
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        return pa.array([None if v is None else v.hex() for v in values.to_pylist()], pa.string())
    if _is_text(values.type):
        return values
    return values.cast(pa.string())


def _is_text(arrow: pa.DataType) -> bool:
    return bool(pa.types.is_string(arrow) or pa.types.is_large_string(arrow))


_DECODERS: dict[Kind, Callable[[pa.Array, NeutralType], Decoded]] = {
    Kind.BOOLEAN: _decode_boolean,
    Kind.INTEGER: _decode_integer,
    Kind.DECIMAL: _decode_decimal,
    Kind.FLOAT: _decode_float,
    Kind.TEXT: _decode_text,
    Kind.BYTES: _decode_bytes,
    Kind.DATE: _decode_date,
    Kind.TIME: _decode_time,
    Kind.TIMESTAMP: _decode_timestamp,
    Kind.TIMESTAMPTZ: _decode_timestamp,
    Kind.UUID: _decode_uuid,
    Kind.JSON: _decode_json,
}
