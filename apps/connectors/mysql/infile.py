"""A connection that feeds `LOAD DATA LOCAL INFILE` from memory.

The server answers such a statement with the name of a file that the client is to send, and a
hostile server may answer any statement so, with any name. Here no file is ever opened: the driver
refuses every such request, and `load` sends the bytes that its caller gave it and nothing else.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pymysql.err
from pymysql.constants import COMMAND
from pymysql.protocol import OKPacketWrapper

from apps.connectors.mysql.connection import CheckedConnection

PACKET_BYTES = 1024 * 1024

_NUMBERS = re.compile(r"\d+")
_LENGTH_BYTES = 1  # before the text of the answer


@dataclass(frozen=True, slots=True)
class LoadOutcome:
    """What the server says of a LOAD DATA, in rows. Notes count as warnings."""

    records: int
    deleted: int
    skipped: int
    warnings: int


class InfileConnection(CheckedConnection):
    """Offers the server LOAD DATA LOCAL, but sends nothing for a statement other than `load`'s."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options, local_infile=True, defer_connect=True)
        # The server has to be told that we can; the driver, that it must not.
        self._local_infile = False
        self.connect()

    def load(self, statement: str, pieces: Iterable[bytes], *, largest_packet: int) -> LoadOutcome:
        """Run a LOAD DATA LOCAL INFILE with `pieces` as the file; its name is no matter.

        When `pieces` raises, the connection is closed, so that nothing of it stays. Raises the
        driver's errors, also where the server does not ask for the file.
        """
        driver: Any = self
        driver._execute_command(COMMAND.COM_QUERY, statement)
        try:
            if not driver._read_packet().is_load_local_packet():
                raise pymysql.err.InternalError("the server did not ask for the records")
            for packet in packets(pieces, min(PACKET_BYTES, largest_packet // 2)):
                driver.write_packet(packet)
            driver.write_packet(b"")
            answer = OKPacketWrapper(driver._read_packet())
        except pymysql.err.MySQLError:
            raise
        except BaseException:
            driver._force_close()
            raise
        return _outcome(answer)

    def cut(self) -> None:
        """Wake another thread that waits for this connection: its statement fails."""
        with suppress(AttributeError, OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]


def packets(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in packets of `size` or less; pieces far below it are joined.

    None is empty: to the server, that is the end of the file.
    """
    waiting: list[bytes] = []
    length = 0
    for piece in pieces:
        if not waiting and max(size // 8, 1) <= len(piece) <= size:
            yield piece
            continue
        waiting.append(piece)
        length += len(piece)
        if length >= size:
            yield from _cut(b"".join(waiting), size)
            waiting, length = [], 0
    yield from _cut(b"".join(waiting), size)


def _cut(joined: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(joined), size):
        yield joined[start : start + size]


def _outcome(answer: Any) -> LoadOutcome:
    """Read "Records: 3  Deleted: 0  Skipped: 0  Warnings: 0", in whatever language it is."""
    text = bytes(answer.message or b"")[_LENGTH_BYTES:].decode("utf-8", "replace")
    numbers = [int(number) for number in _NUMBERS.findall(text)]
    if len(numbers) != 4:
        raise pymysql.err.InternalError("the server did not say how many records it took")
    records, deleted, skipped, warnings = numbers
    return LoadOutcome(records, deleted, skipped, max(warnings, int(answer.warning_count)))
