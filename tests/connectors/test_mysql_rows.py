"""Cutting MySQL's rows into columns: any lengths, NULLs, packets that come in pieces."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pymysql.err
import pytest

from apps.connectors.mysql.rows import row_blocks, split_rows

Row = Sequence[bytes | None]
END = b"\xfe\0\0\x02\0"
ERROR = b"\xff" + (1317).to_bytes(2, "little") + b"#70100Query execution was interrupted"
LONGEST = 0xFFFFFF


def prefixed(value: bytes | None) -> bytes:
    if value is None:
        return b"\xfb"
    size = len(value)
    for mark, width, bound in ((b"\xfc", 2, 1 << 16), (b"\xfd", 3, 1 << 24), (b"\xfe", 8, 1 << 63)):
        if size > 250 and size < bound:
            return mark + size.to_bytes(width, "little") + value
    return bytes([size]) + value


def packets(payload: bytes) -> bytes:
    parts = [payload[at : at + LONGEST] for at in range(0, len(payload) + 1, LONGEST)]
    return b"".join(len(part).to_bytes(3, "little") + b"\7" + part for part in parts)


class Wire(io.BytesIO):
    """Gives a result in pieces of this size."""

    def __init__(self, data: bytes, size: int) -> None:
        super().__init__(data)
        self.size = size

    def read1(self, size: int | None = -1, /) -> bytes:
        return self.read(self.size)


def read(wire: bytes, columns: int, *, batch_rows: int = 100, piece: int = 1 << 20) -> list[Any]:
    connection = SimpleNamespace(
        query=lambda *_, **__: None, _result=SimpleNamespace(), _rfile=Wire(wire, piece)
    )
    found: list[Any] = []
    for block, starts in row_blocks(connection, "SELECT", batch_rows):
        assert 0 < len(starts) <= batch_rows
        found.extend(zip(*(c.to_pylist() for c in split_rows(block, starts, columns)), strict=True))
    return found


def encode(rows: Sequence[Row], end: bytes = END) -> bytes:
    return b"".join(packets(b"".join(map(prefixed, row))) for row in rows) + packets(end)


def test_random_rows_are_cut_as_they_were_joined() -> None:
    chance = random.Random(7)
    sizes = [0, 1, 2, 250, 251, 252, 300, 65_535, 65_536, 70_000]
    for _ in range(40):
        columns = chance.randint(1, 5)
        rows = [
            tuple(
                None
                if chance.random() < 0.2
                else chance.randbytes(chance.choice(sizes[: 3 + part]))
                for part in range(columns)
            )
            for _ in range(chance.randint(0, 40))
        ]
        batch, piece = chance.choice([1, 7, 100]), chance.choice([1, 5, 4096, 1 << 20])
        if sum(len(value or b"") for row in rows for value in row) > 100_000:
            piece = 1 << 20
        assert read(encode(rows), columns, batch_rows=batch, piece=piece) == rows


@pytest.mark.parametrize("size", [LONGEST - 10, LONGEST - 4, LONGEST, 2 * LONGEST, 2 * LONGEST + 9])
def test_rows_of_several_packets_are_joined(size: int) -> None:
    rows = [(b"a", None), (b"x" * size, b"tail"), (None, b"y" * size), (b"b", b"c")]
    assert read(encode(rows), 2) == rows


def test_an_error_in_the_middle_of_a_result_is_raised() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="interrupted"):
        read(encode([(b"a",)], end=ERROR), 1)


def test_a_result_that_is_cut_off_is_a_lost_connection() -> None:
    whole = encode([(b"a" * 300,), (b"b",)])
    for length in (0, 3, 4, 20, len(whole) - 1):
        with pytest.raises(pymysql.err.OperationalError, match="closed the connection"):
            read(whole[:length], 1)
