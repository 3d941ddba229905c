"""The keys of an export, cut out of its bytes, so that nothing is read twice.

The key's columns come first in every row. Seen are keys of whole numbers, texts and UUIDs; those
of another type would have to be computed anew as the reader has them.
"""

from __future__ import annotations

import binascii
import struct
import sys
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import SEEN_KEYS, FieldSchema, LoadRefused

_SIGNATURE = b"PGCOPY\n\xff\r\n\x00"
_HEADER_BYTES = 19  # signature, flags, length of what may follow them
_TRAILER_BYTES = 2
_COUNT_BYTES, _SIZE_BYTES = 2, 4
_WIDTHS = {"smallint": 2, "integer": 4, "bigint": 8, "uuid": 16}
_TEXTS = {"text", "character varying"}
_NUMBERS = {2: ("h", pa.int16()), 4: ("i", pa.int32()), 8: ("q", pa.int64())}
_UUID_PARTS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))
_HEAD_BYTES = 128  # of a line, where its key most likely ends
SEEN_TYPES = {*_WIDTHS, *_TEXTS}

_EMPTY = "a key of the source is empty"


class ExportKeys(ABC):
    """Cuts the keys out of pieces of whole rows."""

    def __init__(self, fields: Sequence[FieldSchema]) -> None:
        """Raises LoadRefused for a field whose values are not seen."""
        for field in fields:
            if field.type.kind not in SEEN_KEYS:
                raise unseen(field.name)
        self._schema = pa.schema((field.name, field.type.arrow) for field in fields)

    @abstractmethod
    def _columns(self, data: bytes, sizes: Sequence[int]) -> Sequence[pa.Array]: ...

    def cut(self, data: bytes, sizes: Sequence[int]) -> pa.RecordBatch:
        """The keys in neutral storage; sizes: of the rows that are joined in `data`, in bytes.

        Raises LoadRefused for a NULL and for what has no plain form.
        """
        columns = self._columns(data, sizes)
        typed = [c.cast(f.type) for c, f in zip(columns, self._schema, strict=True)]
        return pa.RecordBatch.from_arrays(typed, schema=self._schema)


def unseen(name: str) -> LoadRefused:
    return LoadRefused(f"the key field '{name}' is of a type that is not seen on its way")


class BinaryKeys(ExportKeys):
    """Of a binary COPY: a count of fields, then each field's size and form."""

    def __init__(self, fields: Sequence[FieldSchema], wire_types: Sequence[str]) -> None:
        super().__init__(fields)
        for field, wire_type in zip(fields, wire_types, strict=True):
            if wire_type not in SEEN_TYPES:
                raise unseen(field.name)
        self._widths = [_WIDTHS.get(wire_type) for wire_type in wire_types]
        self._forms = [_form(wire_type) for wire_type in wire_types]

    def _columns(self, data: bytes, sizes: Sequence[int]) -> Sequence[pa.Array]:
        rows = _rows(data, sizes)
        widths = [width for width in self._widths if width is not None]
        fixed = len(widths) == len(self._widths)
        cut = _at_fixed_places(rows, widths) if fixed else _walked(rows, len(self._widths))
        return [form(values) for form, values in zip(self._forms, cut, strict=True)]


def _rows(data: bytes, sizes: Sequence[int]) -> pa.Array:
    """The rows of a piece, without the header that begins the first and the trailer at the end."""
    bounds = array("i", accumulate(sizes, initial=0))
    if data.startswith(_SIGNATURE):  # no row does: that would be 20,551 fields
        extra = int.from_bytes(data[_HEADER_BYTES - _SIZE_BYTES : _HEADER_BYTES], "big")
        bounds[0] = _HEADER_BYTES + extra
        if bounds[0] == bounds[1]:
            del bounds[0]
    if len(bounds) > 1 and bounds[-1] - bounds[-2] == _TRAILER_BYTES:
        bounds.pop()
    return _slices(data, bounds)


def _slices(data: bytes, bounds: array[int]) -> pa.Array:
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers)


def _at_fixed_places(rows: pa.Array, widths: Sequence[int]) -> list[pa.Array]:
    found, place = [], _COUNT_BYTES
    for width in widths:
        sizes = pc.binary_slice(rows, place, place + _SIZE_BYTES)
        if not pc.all(pc.equal(sizes, struct.pack("!i", width)), min_count=0).as_py():
            raise LoadRefused(_EMPTY)
        place += _SIZE_BYTES + width
        found.append(pc.binary_slice(rows, place - width, place))
    return found


def _walked(rows: pa.Array, fields: int) -> list[pa.Array]:
    """The first fields of each row, one row after the other: each begins where the last ends."""
    found: list[list[bytes]] = [[] for _ in range(fields)]
    for row in rows.to_pylist():
        place = _COUNT_BYTES
        for values in found:
            start = place + _SIZE_BYTES
            size = int.from_bytes(row[place:start], "big", signed=True)
            if size < 0:
                raise LoadRefused(_EMPTY)
            place = start + size
            values.append(row[start:place])
    return [pa.array(values, pa.binary()) for values in found]


def _form(wire_type: str) -> Callable[[pa.Array], pa.Array]:
    if wire_type in _TEXTS:
        return lambda forms: forms.cast(pa.string())
    if wire_type == "uuid":
        return _uuids
    code, arrow = _NUMBERS[_WIDTHS[wire_type]]
    return lambda forms: _numbers(forms, code, arrow)


def _joined(forms: pa.Array) -> bytes:
    """All values, one after the other."""
    rows = pa.ListArray.from_arrays(pa.array([0, len(forms)], pa.int32()), forms)
    return bytes(pc.binary_join(rows, b"")[0].as_buffer())


def _numbers(forms: pa.Array, code: str, arrow: pa.DataType) -> pa.Array:
    numbers = array(code, _joined(forms))
    if sys.byteorder == "little":
        numbers.byteswap()
    return pa.Array.from_buffers(arrow, len(forms), [None, pa.py_buffer(numbers)])


def _uuids(forms: pa.Array) -> pa.Array:
    digits = binascii.hexlify(_joined(forms))
    texts = _slices(digits, array("i", range(0, len(digits) + 1, 32)))
    parts = [pc.binary_slice(texts, start, stop) for start, stop in _UUID_PARTS]
    return pc.binary_join_element_wise(*parts, b"-").cast(pa.string())


class LineKeys(ExportKeys):
    """Of a COPY as text: fields end with a tab, the last one with a newline."""

    def _columns(self, data: bytes, sizes: Sequence[int]) -> Sequence[pa.Array]:
        keys = len(self._schema)
        if not keys:
            return []
        lines = _slices(data, array("i", accumulate(sizes, initial=0)))
        parts = pc.split_pattern(pc.binary_slice(lines, 0, _HEAD_BYTES), "\t", max_splits=keys)
        if (pc.min(pc.list_value_length(parts)).as_py() or 0) <= keys:  # a long key, or it is all
            parts = pc.split_pattern(lines, "\t", max_splits=keys)
        columns = [
            pc.utf8_rtrim(pc.list_element(parts, place).cast(pa.string()), characters="\n")
            for place in range(keys)
        ]
        for column in columns:  # an escape, or NULL
            if pc.any(pc.match_substring(column, "\\")).as_py():
                raise LoadRefused("a key of the source is empty or has no plain form")
        return columns
