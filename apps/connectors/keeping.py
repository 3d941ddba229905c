"""Connections that serve several reads, within one step of work.

A step of a run reads each of its sources more than once, and to connect takes longer than to read
a few records. While `keep_connections` runs, a connection that a read is done with is kept for the
next one like it in the same thread. It is never used by two at a time; one under which anything
failed, or whose read stopped early, is closed; and at the end all are. Elsewhere nothing is kept.

Only steps that write nothing to their sources keep any: so what a partition holds of a source is
one that reads and one that describes what is read, or one that writes and one that reads.

What a read is promised stays the same: the connection begins a transaction of its own for each,
and the address is resolved and judged anew before a kept connection to it is used.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

IDLE_SECONDS = 10.0
"""What has lain longer is closed: the way there may have been cut in the meantime."""


class Closeable(Protocol):
    def close(self) -> None: ...


Connection = TypeVar("Connection", bound=Closeable)
_Shelf = dict[tuple[str, str], tuple[float, Any]]  # since when it lies there, and what

_kept = threading.local()  # .shelf: only within keep_connections


@contextmanager
def keep_connections() -> Iterator[None]:
    """Keep connections of this thread's reads for each other until this ends."""
    if _shelf() is not None:
        yield
        return
    shelf: _Shelf = {}
    _kept.shelf = shelf
    try:
        yield
    finally:
        _kept.shelf = None
        for _, connection in shelf.values():
            _close(connection)


@contextmanager
def borrowed(
    kind: str,
    address: str,
    connect: Callable[[], Connection],
    *,
    begin: Callable[[Connection], object],
    end: Callable[[Connection], object],
) -> Iterator[Connection]:
    """A connection to this address: a kept one, or one that `connect` makes.

    begin: called for a kept one; where it raises, that is gone, and another one is made.
    end: called where the body was done, before it is kept.
    """
    connection = _taken(kind, address, begin) or connect()
    done = False
    try:
        yield connection
        done = True
    finally:
        if not (done and _was_put_back(kind, address, connection, end)):
            connection.close()


def _shelf() -> _Shelf | None:
    shelf: _Shelf | None = getattr(_kept, "shelf", None)
    return shelf


def _taken(kind: str, address: str, begin: Callable[[Connection], object]) -> Any:
    shelf = _shelf()
    if not shelf or (kind, address) not in shelf:
        return None
    since, connection = shelf.pop((kind, address))
    if time.monotonic() - since <= IDLE_SECONDS:
        with suppress(Exception):  # drivers differ in what they raise; another one is made
            begin(connection)
            return connection
    _close(connection)
    return None


def _was_put_back(
    kind: str, address: str, connection: Connection, end: Callable[[Connection], object]
) -> bool:
    shelf = _shelf()
    if shelf is None or (kind, address) in shelf:
        return False
    with suppress(Exception):  # the read is done, whatever the driver raises now
        end(connection)
        shelf[kind, address] = (time.monotonic(), connection)
    return (kind, address) in shelf


def _close(connection: Closeable) -> None:
    with suppress(Exception):  # the server may have closed it already
        connection.close()
