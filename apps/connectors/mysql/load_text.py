r"""Record batches as the text that LOAD DATA reads: `\t` between fields, `\n` after records.

A backslash goes before what would end a field or a record, and before itself; every other byte,
control characters included, stands as it is. NULL is `\N`. Bytes are hexadecimal digits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import LoadRefused
from apps.connectors.mysql.load_columns import LoadColumn
from apps.connectors.sql_values import as_text, decode
from apps.connectors.types import Kind

_ESCAPED = (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"))
_NULL = "\\N"
_MICROSECOND_DIGITS = 6


def encode(records: pa.RecordBatch, columns: Sequence[LoadColumn]) -> bytes:
    """The records as text. Raises LoadRefused where a value does not fit its column exactly."""
    if not records.num_rows:
        return b""
    texts = [
        pc.fill_null(_column_text(values, column), _NULL)
        for values, column in zip(records.columns, columns, strict=True)
    ]
    texts[-1] = pc.binary_join_element_wise(texts[-1], "", "\n")
    return _bytes_of(pc.binary_join_element_wise(*texts, "\t")).tobytes()


def _column_text(values: pa.Array, column: LoadColumn) -> pa.Array:
    kind = column.field.type
    if values.type != kind.arrow:
        decoded = decode(values, kind)
        if decoded.bad:
            raise LoadRefused(f"values of the field '{column.field.name}' do not fit a {kind}")
        values = decoded.values
    special = _SPECIAL.get(kind.kind)
    return special(values, column) if special else as_text(values)


def _float(values: pa.Array, column: LoadColumn) -> pa.Array:
    if not pc.all(pc.fill_null(pc.is_finite(values), True)).as_py():
        raise LoadRefused(f"the field '{column.field.name}' has numbers that are not finite")
    stored = column.column.stored(pa.chunked_array([values]))
    if not pc.all(pc.fill_null(pc.equal(stored, values), True)).as_py():
        raise LoadRefused(f"the field '{column.field.name}' keeps fewer digits than its numbers")
    return as_text(values)


def _time(values: pa.Array, column: LoadColumn) -> pa.Array:
    """With as many digits of a second as the column has: all others are zero."""
    texts = as_text(values)
    digits = column.column.fraction_digits
    if digits is None or digits >= _MICROSECOND_DIGITS:
        return texts
    kept = -(_MICROSECOND_DIGITS - digits) - (0 if digits else 1)
    rest = pc.utf8_trim(pc.utf8_slice_codeunits(texts, kept, None), ".0")
    if not pc.all(pc.fill_null(pc.equal(rest, ""), True)).as_py():
        raise LoadRefused(
            f"the field '{column.field.name}' keeps fewer digits of a second than its times"
        )
    return pc.utf8_slice_codeunits(texts, 0, kept)


def _text(values: pa.Array, _: LoadColumn) -> pa.Array:
    data = _bytes_of(values).tobytes()
    for plain, escaped in _ESCAPED:
        if plain.encode() in data:
            values = pc.replace_substring(values, plain, escaped)
    return values


def _bytes(values: pa.Array, _: LoadColumn) -> pa.Array:
    """Hexadecimal digits: twice the bytes, at twice the offsets."""
    ends = pc.cumulative_sum(pc.fill_null(pc.binary_length(values), 0).cast(pa.int32()))
    ends = pc.multiply(ends, pa.scalar(2, pa.int32()))
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), ends])
    compact = pc.fill_null(values, b"")  # nothing stands under a NULL
    digits = _bytes_of(compact).hex().encode()
    texts = pa.StringArray.from_buffers(
        len(values), offsets.buffers()[1], pa.py_buffer(digits), None, 0, 0
    )
    return pc.if_else(values.is_null(), pa.scalar(None, pa.string()), texts)


def _bytes_of(values: pa.Array) -> memoryview:
    """All values of a text or binary array one after the other."""
    _, offsets, data = values.buffers()
    if data is None or not len(values):
        return memoryview(b"")
    bounds = memoryview(offsets).cast("i")
    return memoryview(data)[bounds[values.offset] : bounds[values.offset + len(values)]]


_SPECIAL: dict[Kind, Callable[[Any, LoadColumn], Any]] = {
    Kind.BOOLEAN: lambda values, _: values.cast(pa.int8()).cast(pa.string()),
    Kind.FLOAT: _float,
    Kind.TEXT: _text,
    Kind.JSON: _text,
    Kind.UUID: _text,
    Kind.BYTES: _bytes,
    Kind.TIME: _time,
    Kind.TIMESTAMP: _time,
    Kind.TIMESTAMPTZ: _time,
}
