"""The rows of a result, cut into columns without a Python object per value.

The server sends a packet per row: a header of four bytes (length, number), then each value with
its length before it. One pass finds where the packets begin. Then one column after another is cut
out of all rows of a block at once: its lengths are taken from where the values begin, which gives
where those of the next column begin. Begin and end of each value, alternating, are the offsets of
an Arrow array over the block itself, every second element of which is a value.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pymysql.err

from apps.connectors.sql import BATCH_BYTES

_HEADER = 4
_LONGEST = 0xFFFFFF  # of a packet; another one follows that goes on with it
_READ_BYTES = 1024 * 1024
_NULL, _END, _ERROR = 251, 254, 255
_LONGEST_END = 9
_LENGTH_BYTES = {252: 2, 253: 3, 254: 4}
"""Bytes of a length after its mark; of the eight after the last one, four are always zero."""

_SKIPPED = {254: 8}


def row_blocks(
    connection: Any, query: str, batch_rows: int
) -> Iterator[tuple[bytearray, list[int]]]:
    """Run a query: blocks of its result, and where in them each row's first value begins.

    PyMySQL's own cursors build a tuple of converted values for each row, at many times the time.
    """
    connection.query(query, unbuffered=True)
    result = connection._result
    try:
        yield from _Cutter(connection, batch_rows).blocks()
    finally:
        # Else the result reads its unwanted rest when it is collected.
        result.unbuffered_active = False
        result.connection = None


class _Cutter:
    """What has come of a result, and how far it has been looked through."""

    def __init__(self, connection: Any, batch_rows: int) -> None:
        self._read = connection._rfile.read1
        self._batch_rows = batch_rows
        self._block = bytearray()
        self._starts: list[int] = []
        self._position = 0

    def blocks(self) -> Iterator[tuple[bytearray, list[int]]]:
        while not self._scan():
            if len(self._starts) >= self._batch_rows or self._position >= BATCH_BYTES:
                yield self._cut()
            else:
                self._block += self._more()
        if self._starts:
            yield self._cut()

    def _more(self) -> bytes:
        piece: bytes = self._read(_READ_BYTES)
        if not piece:
            raise pymysql.err.OperationalError(2013, "the server closed the connection")
        return piece

    def _cut(self) -> tuple[bytearray, list[int]]:
        """The rows found so far; what came after them stays."""
        found = self._block[: self._position], self._starts
        self._block, self._starts, self._position = self._block[self._position :], [], 0
        return found

    def _scan(self) -> bool:
        """Find rows until a batch is full or the next one has not come whole; True at the end."""
        block, starts, position = self._block, self._starts, self._position
        whole = len(block)
        room = self._batch_rows - len(starts)
        while room > 0 and position < BATCH_BYTES and position + _HEADER < whole:
            length = block[position] | block[position + 1] << 8 | block[position + 2] << 16
            begin = position + _HEADER
            end = begin + length
            if end > whole:
                break
            mark = block[begin]
            if mark >= _END and (mark == _ERROR or length < _LONGEST_END):
                self._position = position
                return self._finish(bytes(block[begin:end]))
            if length == _LONGEST:
                joined = _join(block, end)
                if joined is None:
                    break
                end = joined
                whole = len(block)
            starts.append(begin)
            position = end
            room -= 1
        self._position = position
        return False

    @staticmethod
    def _finish(packet: bytes) -> bool:
        if packet[0] == _ERROR:
            pymysql.err.raise_mysql_exception(packet)
        return True


def _join(block: bytearray, end: int) -> int | None:
    """Take the headers out of a row of several packets; its end, None when it is not there yet."""
    headers = []
    length = _LONGEST
    while length == _LONGEST:
        if end + _HEADER > len(block):
            return None
        headers.append(end)
        length = int.from_bytes(block[end : end + 3], "little")
        end += _HEADER + length
    if end > len(block):
        return None
    for header in reversed(headers):
        del block[header : header + _HEADER]
    return end - _HEADER * len(headers)


def split_rows(block: bytearray, starts: list[int], columns: int) -> list[pa.Array]:
    """The values of each column as bytes; `starts` ascend."""
    data = pa.py_buffer(block)
    octets = pa.Array.from_buffers(pa.uint8(), len(block), [None, data])
    values_at = pa.array(range(0, 2 * len(starts), 2), pa.int32())
    position = pa.array(starts, pa.int32())
    found = []
    for _ in range(columns):
        mark = octets.take(position)
        begin, length = _lengths(octets, position, mark)
        position = pc.add(begin, length)
        # Read as 32 bit numbers, each sum is a begin and an end (the low half comes first).
        pairs = pc.add(begin.cast(pa.int64()), pc.shift_left(position.cast(pa.int64()), 32))
        alternating = pa.Array.from_buffers(
            pa.binary(), 2 * len(starts) - 1, [None, pairs.buffers()[1], data]
        )
        values = alternating.take(values_at)
        is_null = pc.equal(mark, _NULL)
        found.append(pc.if_else(is_null, None, values) if pc.any(is_null).as_py() else values)
    return found


def _lengths(octets: pa.Array, position: pa.Array, mark: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Where each value begins, and its length; a NULL is an empty one."""
    begin = pc.add(position, pa.scalar(1, pa.int32()))
    length = mark.cast(pa.int32())
    if pc.max(mark).as_py() < _NULL:
        return begin, length
    length = pc.if_else(pc.equal(mark, _NULL), pa.scalar(0, pa.int32()), length)
    for long, width in _LENGTH_BYTES.items():
        these = pc.equal(mark, long)
        if not pc.any(these).as_py():
            continue
        at = begin.filter(these)
        size = pa.array([0] * len(at), pa.int32())
        for octet in range(width):
            part = octets.take(pc.add(at, pa.scalar(octet, pa.int32()))).cast(pa.int32())
            size = pc.add(size, pc.shift_left(part, pa.scalar(8 * octet, pa.int32())))
        length = pc.replace_with_mask(length, these, size)
        after = pc.add(at, pa.scalar(_SKIPPED.get(long, width), pa.int32()))
        begin = pc.replace_with_mask(begin, these, after)
    return begin, length
