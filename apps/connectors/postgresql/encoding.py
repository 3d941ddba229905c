"""Record batches as the rows of a binary COPY.

Binary COPY casts nothing: each value must come in the wire form of its column's own type. `pgpq`
lays rows out and knows the forms of plain types; what it does not know (arrays, UUIDs, decimals of
any width) is given to it as bytes. The server still applies what the column's type limits, and
does so in silence where a scale or trailing blanks are concerned, so that is looked at here.

The forms are those of the server's `..._recv` functions; an array is: dimensions, whether there
are NULLs, the item's type, length, lower bound, then each item's length and form.
"""

from __future__ import annotations

import binascii
import struct
import sys
from array import array
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pgpq
import pgpq.encoders
import pgpq.schema
import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import FieldSchema, LoadRefused
from apps.connectors.postgresql.types import NativeType
from apps.connectors.sql_values import DAY_MICROSECONDS, decode, outside_years
from apps.connectors.types import NeutralType

ITEM_TYPES: dict[str, int] = {
    "boolean": 16,
    "bytea": 17,
    "bigint": 20,
    "smallint": 21,
    "integer": 23,
    "text": 25,
    "json": 114,
    "real": 700,
    "double precision": 701,
    "bpchar": 1042,
    "character": 1042,
    "character varying": 1043,
    "date": 1082,
    "time without time zone": 1083,
    "timestamp without time zone": 1114,
    "timestamp with time zone": 1184,
    "numeric": 1700,
    "uuid": 2950,
    "jsonb": 3802,
}
"""The types that records are encoded for, and the numbers that arrays name them by."""

_INTEGERS = {"smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64()}
_BLANK_PADDED = {"character", "bpchar"}
_EPOCH_DAYS = 10_957  # from 1970 to 2000, which PostgreSQL counts from
_EPOCH = _EPOCH_DAYS * DAY_MICROSECONDS
_NEGATIVE = 0x4000
_NOTHING = pa.scalar(b"", pa.binary())


class RowEncoder:
    """Batches of these fields as one binary COPY."""

    def __init__(self, fields: Sequence[FieldSchema], natives: Sequence[NativeType]) -> None:
        """Raises LoadRefused for a type whose wire form is not known."""
        self._fields = list(fields)
        self._natives = list(natives)
        for field, native in zip(fields, natives, strict=True):
            refuse_unknown(field, native)
        self._schema = pa.schema(
            (str(place), encoded_type(field.type, native))
            for place, (field, native) in enumerate(zip(fields, natives, strict=True))
        )
        encoders = {
            arrow.name: _encoder(arrow, native)
            for arrow, native in zip(self._schema, natives, strict=True)
        }
        self._rows = pgpq.ArrowToPostgresBinaryEncoder.new_with_encoders(self._schema, encoders)

        self._header = self._rows.write_header()

    def encode(self, records: pa.RecordBatch) -> bytes:
        """What there is to send of the batches up to this one. Raises LoadRefused."""
        columns = [
            _checked(values, field, native)
            for values, field, native in zip(
                records.columns, self._fields, self._natives, strict=True
            )
        ]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        try:
            header, self._header = self._header, b""
            return header + self._rows.write_batch(batch)
        except BaseException as error:
            # A panic of the encoder is no Exception, and must not end the thread.
            if isinstance(error, Exception) or type(error).__module__ == "pyo3_runtime":
                raise LoadRefused("a record has no binary form") from None
            raise

    def footer(self) -> bytes:
        """The rows that are left, and the end of the COPY."""
        return self._rows.finish()


def refuse_unknown(field: FieldSchema, native: NativeType) -> None:
    """Raises LoadRefused where a value could not be encoded, or the server would alter it."""
    rounded = native.name == "numeric" and native.rounds_unseen
    if native.name not in ITEM_TYPES or rounded:
        raise LoadRefused(f"the field '{field.name}' is of a type that is loaded row by row")


def encoded_type(kind: NeutralType, native: NativeType) -> pa.DataType:
    """The Arrow type in which a column is laid out in rows."""
    if native.is_array or native.name == "uuid" or kind.is_wide_decimal:
        return pa.binary()
    if native.name in _INTEGERS:
        return _INTEGERS[native.name]
    return pa.float32() if native.name == "real" else kind.arrow


def _encoder(field: pa.Field, native: NativeType) -> Any:
    if native.name == "jsonb" and not native.is_array:
        return pgpq.encoders.StringEncoderBuilder.new_with_output(field, pgpq.schema.Jsonb())
    return pgpq.ArrowToPostgresBinaryEncoder.infer_encoder(field)


def _checked(values: pa.Array, field: FieldSchema, native: NativeType) -> pa.Array:
    """A column as it is laid out. Raises LoadRefused, naming the field and no value."""
    try:
        if values.type != field.type.arrow:
            decoded = decode(values, field.type)
            if decoded.bad:
                raise ValueError("a value of another type")
            values = decoded.values
        if native.is_array:
            return _array_form(values, native)
        scalars = _fitting(values, native)
        if encoded_type(field.type, native) == pa.binary():
            return _FORMS[native.name](scalars)
        return scalars
    except (ValueError, TypeError, OverflowError, struct.error, pa.ArrowException):
        raise LoadRefused(f"a value does not fit the field '{field.name}'") from None


def _fitting(values: pa.Array, native: NativeType) -> pa.Array:
    """Scalar values in the width of their type. Raises where one would not stay what it is."""
    name = native.name
    if name in _INTEGERS:
        return values.cast(_INTEGERS[name])
    if name == "real":
        return _single(values)
    if name == "numeric":
        return _scaled(values, native)
    if pa.types.is_string(values.type):
        _refuse_cut_text(values, native)
    dated = pa.types.is_timestamp(values.type) or pa.types.is_date(values.type)
    if dated and outside_years(values).bad:
        raise ValueError("a date outside the years 1 to 9999")
    if native.fraction_digits is not None:
        _refuse_finer_times(values, native.fraction_digits)
    return values


def _scaled(values: pa.Array, native: NativeType) -> pa.Array:
    if not native.arguments:
        return values
    precision, scale = native.arguments
    if pa.types.is_decimal(values.type):
        return values.cast(pa.decimal128(precision, scale))
    point = pc.find_substring(values, ".")
    digits = pc.subtract(pc.subtract(pc.binary_length(values), point), 1)
    if pc.any(pc.and_(pc.greater_equal(point, 0), pc.greater(digits, scale))).as_py():
        raise ValueError("a number that would be rounded")
    return values


def _single(values: pa.Array) -> pa.Array:
    narrow = values.cast(pa.float32())
    wide = narrow.cast(pa.float64())
    kept = pc.or_(pc.equal(wide, values), pc.and_(pc.is_nan(wide), pc.is_nan(values)))
    if not pc.all(pc.fill_null(kept, True)).as_py():
        raise ValueError("a number that would be rounded")
    return narrow


def _refuse_cut_text(values: pa.Array, native: NativeType) -> None:
    if native.arguments and (pc.max(pc.utf8_length(values)).as_py() or 0) > native.arguments[0]:
        raise ValueError("a text that would be cut")
    if native.name in _BLANK_PADDED and pc.any(pc.ends_with(values, " ")).as_py():
        raise ValueError("a text that would lose its blanks")


def _refuse_finer_times(values: pa.Array, digits: int) -> None:
    step = 10 ** max(6 - digits, 0)
    numbers = values.cast(pa.int64())
    whole = pc.multiply(pc.divide(numbers, step), step)
    if not pc.all(pc.fill_null(pc.equal(whole, numbers), True)).as_py():
        raise ValueError("a time that would be rounded")


def _array_form(values: pa.Array, native: NativeType) -> pa.Array:
    """Lists as the server takes arrays."""
    lengths = pc.fill_null(pc.list_value_length(values), 0).cast(pa.int32())
    scalar = NativeType(native.name, native.arguments)
    items = _FORMS[native.name](_fitting(values.flatten(), scalar))
    forms = _joined(_sizes(items), items)
    ends = pc.cumulative_sum(lengths)
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends.cast(pa.int32())])
    bodies = pc.binary_join(pa.ListArray.from_arrays(offsets, forms), _NOTHING)
    fixed = struct.pack("!iiI", 1, 1 if items.null_count else 0, ITEM_TYPES[native.name])
    arrays = _joined(fixed, _swapped(lengths, "i"), struct.pack("!i", 1), bodies)
    return _with_nulls(arrays, values)


def _joined(*parts: pa.Array | bytes) -> pa.Array:
    """Bytes one after the other, row by row; a NULL adds none."""
    return pc.binary_join_element_wise(
        *(pa.scalar(part, pa.binary()) if isinstance(part, bytes) else part for part in parts),
        _NOTHING,
        null_handling="replace",
        null_replacement=b"",
    )


def _with_nulls(forms: pa.Array, values: pa.Array) -> pa.Array:
    """The forms, NULL where the values are."""
    if not values.null_count:
        return forms
    return pc.if_else(values.is_valid(), forms, pa.scalar(None, pa.binary()))


def _sizes(forms: pa.Array) -> pa.Array:
    """The length of each form in four bytes; -1 for NULL."""
    return _swapped(pc.fill_null(pc.binary_length(forms), -1).cast(pa.int32()), "i")


def _fixed_width(data: bytes, count: int, width: int) -> pa.Array:
    buffers = [None, pa.py_buffer(data)]
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, buffers).cast(pa.binary())


def _swapped(values: pa.Array, code: str) -> pa.Array:
    """Numbers as bytes, the highest first. `code` is their type as the module `array` names it."""
    numbers = array(code)
    if len(values):
        start, count = values.offset * numbers.itemsize, len(values) * numbers.itemsize
        numbers.frombytes(memoryview(values.buffers()[1]).cast("B")[start : start + count])
    if sys.byteorder == "little":
        numbers.byteswap()
    forms = _fixed_width(numbers.tobytes(), len(values), numbers.itemsize)
    return _with_nulls(forms, values)


def _uuid_form(values: pa.Array) -> pa.Array:
    """Sixteen bytes. Raises ValueError for what is no UUID."""
    digits = pc.replace_substring(pc.fill_null(values, "0" * 32), "-", "")
    if not pc.all(pc.equal(pc.binary_length(digits), 32)).as_py():
        raise ValueError("a text that is no UUID")
    rows = pa.ListArray.from_arrays(pa.array([0, len(digits)], pa.int32()), digits)
    data = binascii.unhexlify(pc.binary_join(rows, "")[0].as_buffer())
    return _with_nulls(_fixed_width(data, len(values), 16), values)


def _numeric_form(values: pa.Array) -> pa.Array:
    return pa.array(
        [None if value is None else numeric_form(value) for value in values.to_pylist()],
        pa.binary(),
    )


def numeric_form(value: Decimal | str) -> bytes:
    """A decimal: count, weight, sign and scale, then groups of four digits.

    The weight is the power of 10,000 of the first group; groups of zeros at either end are the
    server's to take away.
    """
    text = format(value, "f") if isinstance(value, Decimal) else value
    sign = _NEGATIVE if text.startswith("-") else 0
    whole, _, fraction = text.lstrip("-").partition(".")
    padded = whole.zfill(-(-len(whole) // 4) * 4)
    digits = padded + fraction.ljust(-(-len(fraction) // 4) * 4, "0")
    groups = [int(digits[start : start + 4]) for start in range(0, len(digits), 4)]
    weight = len(padded) // 4 - 1
    return struct.pack(f"!hhHH{len(groups)}h", len(groups), weight, sign, len(fraction), *groups)


def _moved(values: pa.Array, arrow: pa.DataType, epoch: int) -> pa.Array:
    return pc.subtract(values.cast(arrow), pa.scalar(epoch, arrow))


def _text_form(values: pa.Array) -> pa.Array:
    return values.cast(pa.binary())


def _stamp_form(values: pa.Array) -> pa.Array:
    return _swapped(_moved(values, pa.int64(), _EPOCH), "q")


_FORMS: dict[str, Callable[[pa.Array], pa.Array]] = {
    "boolean": lambda values: _swapped(values.cast(pa.uint8()), "B"),
    "smallint": lambda values: _swapped(values, "h"),
    "integer": lambda values: _swapped(values, "i"),
    "bigint": lambda values: _swapped(values, "q"),
    "real": lambda values: _swapped(values, "f"),
    "double precision": lambda values: _swapped(values, "d"),
    "numeric": _numeric_form,
    "text": _text_form,
    "character varying": _text_form,
    "character": _text_form,
    "bpchar": _text_form,
    "json": _text_form,
    "jsonb": lambda values: pc.binary_join_element_wise(b"\x01", _text_form(values), b""),
    "bytea": lambda values: values,
    "date": lambda values: _swapped(_moved(values, pa.int32(), _EPOCH_DAYS), "i"),
    "time without time zone": lambda values: _swapped(values.cast(pa.int64()), "q"),
    "timestamp without time zone": _stamp_form,
    "timestamp with time zone": _stamp_form,
    "uuid": _uuid_form,
}
