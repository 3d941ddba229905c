"""Between the values of neutral types and their text in files.

Both directions work on whole columns. A value that does not fit its type is a `Misfit` and NULL
in its place; it is never rounded, cut or guessed. The text of each kind:

boolean true/false · integer and decimal in digits · float shortest that reads back · bytes base64
· date, time, timestamp ISO 8601 (timestamptz in UTC, with Z) · json and arrays JSON.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.canonical import canonical_json, canonical_number, dump_json
from apps.connectors.files.json_text import NotJson, parse, quoted
from apps.connectors.types import Kind, NeutralType

OUT_OF_RANGE = "record.out_of_range"
INVALID = "record.invalid"
MALFORMED = "record.malformed"

_UUID = r"^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,4})?")
_INTEGER = re.compile(r"[+-]?\d+")
_KEEPS_EMPTY = (Kind.TEXT, Kind.BYTES)
_MAX_DIGITS = 400


@dataclass(frozen=True, slots=True)
class Misfit:
    """Why a value does not fit its type."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Converted:
    """A column in neutral storage, and what did not fit, by row."""

    values: pa.Array
    misfits: dict[int, Misfit] = field(default_factory=dict)


_SHAPES: dict[Kind, str] = {
    Kind.BOOLEAN: "^([01]|(?i:true|false))$",
    Kind.INTEGER: "^[+-]?[0-9]+$",
    Kind.DECIMAL: r"^[+-]?[0-9.]+([eE][+-]?[0-9]+)?$",
    Kind.FLOAT: r"^[+-]?([0-9.]+([eE][+-]?[0-9]+)?|(?i:nan|inf|infinity))$",
    Kind.DATE: "^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    Kind.TIME: "^[0-9]{2}:[0-9]{2}",
    Kind.TIMESTAMP: "^[0-9]{4}-[0-9]{2}-[0-9]{2}",
    Kind.TIMESTAMPTZ: "^[0-9]{4}-[0-9]{2}-[0-9]{2}",
    Kind.UUID: _UUID,
}
"""What a value must look like at least; only those that do are tried one by one."""

Cast = Callable[[pa.Array], pa.Array]


def from_text(column: pa.Array, type_: NeutralType) -> Converted:
    """Texts to values. An empty text is NULL but for text and bytes."""
    if type_.kind is Kind.TEXT:
        return Converted(column)
    if type_.kind not in _KEEPS_EMPTY:
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
    if type_.is_wide_decimal or type_.kind in _ONE_BY_ONE:
        return _one_by_one(column.to_pylist(), type_)
    return _cast_texts(column, type_)


def _cast_texts(column: pa.Array, type_: NeutralType) -> Converted:
    """The whole column at once; else without what cannot be of the type, one half at a time."""
    cast = _text_cast(type_)
    try:
        return Converted(cast(column))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        fits = pc.fill_null(pc.match_substring_regex(column, _SHAPES[type_.kind]), True)
    misfit = Misfit(INVALID, f"the value is not of type {type_}")
    hopeless = dict.fromkeys(pc.indices_nonzero(pc.invert(fits)).to_pylist(), misfit)
    column = pc.if_else(fits, column, pa.scalar(None, pa.string()))
    rest = cast_leniently(column, cast, lambda text: explain(text.as_py(), type_), type_.arrow)
    return Converted(rest.values, rest.misfits | hopeless)


def cast_leniently(
    column: pa.Array, cast: Cast, reason: Callable[[pa.Scalar], Misfit], target: pa.DataType
) -> Converted:
    """Cast what can be cast: halves the column around each value that cannot."""
    misfits: dict[int, Misfit] = {}
    pieces: list[pa.Array] = []

    def convert(part: pa.Array, start: int) -> None:
        try:
            pieces.append(cast(part))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            if len(part) == 1:
                misfits[start] = reason(part[0])
                pieces.append(pa.nulls(1, target))
                return
            middle = len(part) // 2
            convert(part.slice(0, middle), start)
            convert(part.slice(middle), start + middle)

    convert(column, 0)
    values = pieces[0] if len(pieces) == 1 else pa.concat_arrays(pieces)
    return Converted(values, misfits)


def _text_cast(type_: NeutralType) -> Cast:
    target = type_.arrow
    if type_.kind is Kind.INTEGER:
        return _cast_integer
    if type_.kind is Kind.FLOAT:
        return _cast_float
    if type_.kind is Kind.TIME:
        return _cast_time
    if type_.kind is Kind.UUID:
        return _cast_uuid
    return lambda column: pc.cast(column, target)


def _cast_integer(column: pa.Array) -> pa.Array:
    if pc.any(pc.match_substring_regex(column, "^[+]|[xX]")).as_py():
        plain = pc.replace_substring_regex(column, r"^\+([0-9])", r"\1")
        if pc.any(pc.match_substring_regex(plain, "[^0-9-]")).as_py():
            raise pa.ArrowInvalid("not an integer")
        column = plain
    return pc.cast(column, pa.int64())


def _cast_float(column: pa.Array) -> pa.Array:
    values = pc.cast(column, pa.float64())
    if pc.any(pc.is_inf(values)).as_py():
        overflown = pc.and_(pc.is_inf(values), pc.match_substring_regex(column, "[0-9]"))
        if pc.any(overflown).as_py():
            raise pa.ArrowInvalid("beyond float")
    return values


def _cast_time(column: pa.Array) -> pa.Array:
    moments = pc.binary_join_element_wise("1970-01-01", column, "T")
    return pc.cast(pc.cast(moments, pa.timestamp("us")), pa.time64("us"))


def _cast_uuid(column: pa.Array) -> pa.Array:
    if not pc.all(pc.match_substring_regex(column, _UUID), min_count=0).as_py():
        raise pa.ArrowInvalid("not a uuid")
    return pc.utf8_lower(column)


def explain(text: Any, type_: NeutralType) -> Misfit:
    """Why this text does not fit. The value itself is not repeated: it may be personal."""
    shown = f"the value is not of type {type_}"
    if type_.kind is Kind.INTEGER and _INTEGER.fullmatch(str(text)):
        return Misfit(OUT_OF_RANGE, "the whole number is beyond 64 bits")
    if type_.kind in (Kind.DECIMAL, Kind.FLOAT) and _NUMBER.fullmatch(str(text)):
        return Misfit(OUT_OF_RANGE, f"the number has more digits than {type_} holds")
    return Misfit(INVALID, shown)


def _bytes_of(text: str, _type: NeutralType) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NotJson("the value is not base64") from None


def _json_of(text: str, _type: NeutralType) -> str:
    try:
        return canonical_json(text)
    except ValueError as problem:
        raise NotJson(str(problem)) from None


def plain_number(text: str) -> str:
    """A number in canonical digits: no exponent, no needless zeros. Raises NotJson."""
    if not _NUMBER.fullmatch(text):
        raise NotJson("the value is not a number")
    if abs(Decimal(text).adjusted()) > _MAX_DIGITS:
        raise NotJson("the number's exponent is out of all range")
    return canonical_number(text)


_ONE_BY_ONE: dict[Kind, Callable[[str, NeutralType], Any]] = {
    Kind.BYTES: _bytes_of,
    Kind.JSON: _json_of,
    Kind.ARRAY: lambda text, _type: parse(text),
}


def _one_by_one(texts: list[str | None], type_: NeutralType) -> Converted:
    convert = (
        (lambda text, _type: plain_number(text))
        if type_.is_wide_decimal
        else _ONE_BY_ONE[type_.kind]
    )
    misfits: dict[int, Misfit] = {}
    values: list[Any] = []
    for row, text in enumerate(texts):
        try:
            values.append(None if text is None else convert(text, type_))
        except NotJson as problem:
            misfits[row] = Misfit(INVALID, f"the value is not of type {type_}: {problem}")
            values.append(None)
    if type_.kind is Kind.ARRAY:
        inner = from_json(values, type_)
        return Converted(inner.values, inner.misfits | misfits)
    return Converted(pa.array(values, type_.arrow), misfits)


# JSON values.


def from_json(values: Sequence[Any], type_: NeutralType) -> Converted:
    """Values of parsed JSON (`int`, `Decimal`, `str`, ...) to neutral storage."""
    if type_.kind is Kind.ARRAY:
        return _arrays_from_json(values, type_)
    kinds = set(map(type, values)) - {type(None)}
    native = _NATIVE_JSON.get(type_.kind)
    if native is not None and kinds <= {native}:
        try:
            return Converted(pa.array(values, type_.arrow))
        except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
            pass
    misfits: dict[int, Misfit] = {}
    texts: list[str | None] = []
    for row, value in enumerate(values):
        try:
            texts.append(None if value is None else _json_text_of(value, type_))
        except NotJson as problem:
            misfits[row] = Misfit(INVALID, str(problem))
            texts.append(None)
    converted = from_text(pa.array(texts, pa.string()), type_)
    return Converted(converted.values, converted.misfits | misfits)


_NATIVE_JSON: dict[Kind, type] = {Kind.BOOLEAN: bool, Kind.INTEGER: int, Kind.TEXT: str}
_NUMERIC = (Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT)


def _json_text_of(value: Any, type_: NeutralType) -> str:
    if type_.kind is Kind.JSON:
        text = _json_document(value)
    elif isinstance(value, bool):
        if type_.kind is not Kind.BOOLEAN:
            raise NotJson(f"true and false are not of type {type_}")
        text = "true" if value else "false"
    elif isinstance(value, str):
        if type_.kind is Kind.BOOLEAN or (type_.kind in _NUMERIC and not value):
            raise NotJson(f"a text is not of type {type_}")
        text = value
    elif isinstance(value, int | Decimal) and type_.kind in _NUMERIC:
        text = _digits(value) if type_.kind is Kind.INTEGER else str(value)
    else:
        raise NotJson(f"a {_NAMES.get(type(value), 'value')} is not of type {type_}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotJson("the text holds half of a surrogate pair, which is no character") from None
    return text


def _json_document(value: Any) -> str:
    try:
        return dump_json(value)
    except ValueError as problem:
        raise NotJson(str(problem)) from None


_NAMES: dict[type, str] = {
    dict: "JSON object",
    list: "JSON array",
    int: "number",
    Decimal: "number",
}


def _digits(value: int | Decimal) -> str:
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return format(value, "f").partition(".")[0]
    return str(value)


def _arrays_from_json(values: Sequence[Any], type_: NeutralType) -> Converted:
    item = type_.item
    if item is None:
        raise ValueError("an array without an item type")
    misfits: dict[int, Misfit] = {}
    flat: list[Any] = []
    owners: list[int] = []
    for row, value in enumerate(values):
        if isinstance(value, list):
            flat.extend(value)
            owners.extend([row] * len(value))
        elif value is not None:
            misfits[row] = Misfit(INVALID, f"the value is not of type {type_}")
    items = from_json(flat, item)
    for position, misfit in items.misfits.items():
        misfits.setdefault(owners[position], misfit)
    offsets, position = [], 0
    for row, value in enumerate(values):
        is_list = isinstance(value, list)
        offsets.append(position if is_list and row not in misfits else None)
        position += len(value) if is_list else 0
    return Converted(_lists(values, offsets, items.values, type_), misfits)


def _lists(
    values: Sequence[Any], offsets: list[int | None], items: pa.Array, type_: NeutralType
) -> pa.Array:
    sizes = [
        0 if offset is None else len(value) for offset, value in zip(offsets, values, strict=True)
    ]
    kept = pa.array(
        [
            position
            for offset, size in zip(offsets, sizes, strict=True)
            if offset is not None
            for position in range(offset, offset + size)
        ],
        pa.int64(),
    )
    starts: list[int] = [0]
    for size in sizes:
        starts.append(starts[-1] + size)
    return pa.ListArray.from_arrays(
        pa.array(starts, pa.int32()),
        items.take(kept),
        type=type_.arrow,
        mask=pa.array([offset is None for offset in offsets], pa.bool_()),
    )


# To text.


def to_text(column: pa.Array, type_: NeutralType) -> pa.Array:
    """Values to texts that `from_text` reads back exactly."""
    if pa.types.is_string(column.type):
        return column
    if type_.kind is Kind.ARRAY:
        return pa.array(_array_fragments(column, type_), pa.string())
    if type_.kind is Kind.BYTES:
        return pa.array(
            [None if v is None else base64.b64encode(v).decode() for v in column.to_pylist()],
            pa.string(),
        )
    if type_.kind is Kind.DECIMAL:
        return _decimal_text(column)
    text = pc.cast(column, pa.string())
    if type_.kind in (Kind.TIME, Kind.TIMESTAMP, Kind.TIMESTAMPTZ):
        text = pc.replace_substring_regex(text, r"\.000000(Z?)$", r"\1")
        text = pc.replace_substring(text, " ", "T")
    return text


def _decimal_text(column: pa.Array) -> pa.Array:
    text = pc.cast(column, pa.string())
    if pc.any(pc.match_substring(text, "E")).as_py():
        plain = [None if v is None else format(v, "f") for v in column.to_pylist()]
        return pa.array(plain, pa.string())
    return text


def to_json_fragments(column: pa.Array, type_: NeutralType) -> list[str]:
    """Values as pieces of JSON text; NULL is `null`."""
    texts = to_text(column, type_).to_pylist()
    if type_.kind is Kind.FLOAT:
        return ["null" if t is None else _FLOAT_WORDS.get(t, t) for t in texts]
    if type_.kind in _BARE_IN_JSON:
        return ["null" if text is None else text for text in texts]
    return ["null" if text is None else quoted(text) for text in texts]


_BARE_IN_JSON = (Kind.BOOLEAN, Kind.INTEGER, Kind.DECIMAL, Kind.JSON, Kind.ARRAY)
_FLOAT_WORDS = {"nan": '"NaN"', "inf": '"Infinity"', "-inf": '"-Infinity"', "-nan": '"NaN"'}


def _array_fragments(column: pa.Array, type_: NeutralType) -> list[str | None]:
    if type_.item is None:
        raise ValueError("an array without an item type")
    fragments = to_json_fragments(column.flatten(), type_.item)
    result: list[str | None] = []
    position = 0
    for size in pc.list_value_length(column).to_pylist():
        if size is None:
            result.append(None)
            continue
        result.append("[" + ",".join(fragments[position : position + size]) + "]")
        position += size
    return result


def identity(columns: Sequence[pa.Array], types: Sequence[NeutralType]) -> pa.Array:
    """One text per row that is equal exactly where all values are; never NULL."""
    parts = []
    for column, type_ in zip(columns, types, strict=True):
        if type_.kind is Kind.FLOAT:
            column = pc.add(column, 0.0)
        text = to_text(column, type_)
        length = pc.cast(pc.utf8_length(text), pa.string())
        marked = pc.binary_join_element_wise(length, text, ":")
        parts.append(pc.fill_null(marked, "-"))
    return pc.binary_join_element_wise(*parts, ";")
