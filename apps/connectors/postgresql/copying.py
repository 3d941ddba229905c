"""One COPY into a table, fed from a thread of its own while its rows are still being made."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg

_DEPTH = 4
"""Batches that may wait: enough to level out, and some megabytes each."""

_POLL_SECONDS = 0.1
_PATIENCE_SECONDS = 2.0


class _Abandoned(Exception):
    """The COPY is to end without effect."""


class CopyIn:
    """A running COPY. After `send` has raised, or `abandon`, nothing more may be sent."""

    def __init__(self, connection: psycopg.Connection[Any], statement: str) -> None:
        self._connection = connection
        self._statement = statement.encode()
        self._queue: queue.Queue[bytes | None] = queue.Queue(_DEPTH)
        self._failure: BaseException | None = None
        self._abandoned = False
        self._count = 0
        self._thread = threading.Thread(target=self._run, name="lockstep-copy", daemon=True)
        self._thread.start()

    def send(self, data: bytes) -> None:
        """Hand a piece over. Raises what an earlier piece met with."""
        if data:
            self._put(data)

    def finish(self) -> int:
        """Wait for the server to have taken everything; gives the number of rows."""
        self._put(None)
        self._thread.join()
        self._raise_failure()
        return self._count

    def _put(self, piece: bytes | None) -> None:
        while True:
            self._raise_failure()
            try:
                self._queue.put(piece, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return

    def abandon(self, cancel: Callable[[], None]) -> None:
        """Take it back. `cancel` ends the statement where the server does not come to an end."""
        self._abandoned = True
        with suppress(queue.Full):
            self._queue.put_nowait(None)
        self._thread.join(_PATIENCE_SECONDS)
        if self._thread.is_alive():
            cancel()
            self._thread.join(_PATIENCE_SECONDS)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            self._count = copy_in(self._connection, self._statement, self._pieces())
        except BaseException as error:
            self._failure = error

    def _pieces(self) -> Iterator[bytes]:
        while (data := self._queue.get()) is not None:
            if self._abandoned:
                break
            yield data
        if self._abandoned:
            raise _Abandoned


def copy_in(connection: psycopg.Connection[Any], statement: bytes, pieces: Iterator[bytes]) -> int:
    """Run a COPY FROM STDIN with these pieces; gives the number of rows that the server took."""
    with connection.cursor() as cursor:
        with cursor.copy(statement) as copy:
            for piece in pieces:
                copy.write(piece)
        return cursor.rowcount
