"""Filling an empty table by one LOAD DATA LOCAL INFILE, in one transaction.

1. The server's named lock is taken, as by every writer of Lockstep. A locking read of the whole,
   empty table keeps everybody else's inserts out until the transaction ends (InnoDB locks the gap
   in which they would lie), and nobody sees ours.
2. Records are fed to one statement: an export byte by byte (`relay`), or batches as the same text
   from a queue, while the statement runs in a thread of its own (`write`).
3. LOCAL makes the server store what it can of a bad value, and skip duplicates, with a warning,
   whatever its mode. So any warning, note or skipped record refuses the load, as does a number of
   records that is not the number of lines sent; the transaction is rolled back. What is altered
   without a warning is kept from the statement by `load_columns`.
4. The caller's fence is asked, and the transaction commits.

A guard kills the connection when the lease ends while the statement runs.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

import pyarrow as pa
import pymysql.err

from apps.connectors.base import DatasetSchema, Fence, LoadRefused, LoadSession, WireFormat
from apps.connectors.errors import LockstepError, TargetBusy
from apps.connectors.lease_guard import LeaseGuard
from apps.connectors.mysql.connection import (
    MysqlSettings,
    connect,
    connect_as,
    quote,
    refusal,
    translate,
    translated,
)
from apps.connectors.mysql.discovery import load_table
from apps.connectors.mysql.infile import InfileConnection, LoadOutcome
from apps.connectors.mysql.load_columns import LoadColumn
from apps.connectors.mysql.load_target import NOT_LOCAL, load_columns, refuse_filled
from apps.connectors.mysql.load_text import encode
from apps.connectors.mysql.target import Target, take_lock

_SESSION = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    # The server waits net_read_timeout seconds for the next records.
    "SET SESSION sql_notes = 1, max_error_count = 64, net_read_timeout = 600",
)
_LOCAL_REFUSED = {1148, 3948, 4166}
_QUEUED_BATCHES = 3
_POLL_SECONDS = 1.0


class MysqlLoadSession(LoadSession):
    def __init__(
        self,
        settings: MysqlSettings,
        dataset: DatasetSchema,
        fields: Sequence[str],
        *,
        lock: str,
        lease_seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._dataset = dataset
        self._fields = tuple(fields)
        self._lock = lock
        self._lease_seconds = lease_seconds
        self._load: _Load | None = None
        self._feed: _Feed | None = None
        self._lines = 0
        self._is_finished = False

    def __enter__(self) -> MysqlLoadSession:
        connection = connect_as(InfileConnection, self._settings, raw=True)
        name = self._dataset.name
        try:
            with translated(name):
                take_lock(connection, self._lock, self._lease_seconds(), where=name)
                for statement in _SESSION:
                    connection.query(statement)
                target = Target(connection, load_table(connection, name), self._lease_seconds)
                target.set_deadline()
                connection.begin()
                refuse_filled(target)
                # From here on nobody can alter the table, or give it a trigger.
                target.table = load_table(connection, name)
                columns = load_columns(target, self._fields)
                target.lift_statement_deadline()
                number = int(target.fetch("SELECT CONNECTION_ID()")[0][0])
        except BaseException:
            connection.close()
            raise
        guard = LeaseGuard(self._lease_seconds, lambda: self._kill(connection, number))
        self._load = _Load(connection, target, columns, guard)
        guard.start()
        return self

    def _kill(self, connection: InfileConnection, number: int) -> None:
        """End the transaction on the server, and wake whoever waits for it here."""
        with (
            suppress(LockstepError, pymysql.err.MySQLError, OSError),
            closing(connect(self._settings)) as second,
        ):
            second.query(f"KILL {number}")
        connection.cut()

    def __exit__(self, *exc_info: object) -> None:
        if self._load is None:
            return
        self._load.guard.stop()
        if self._feed is not None and self._feed.is_running:
            self._load.connection.cut()
            self._feed.abandon()
        self._load.target.close()
        self._load = None

    @property
    def _entered(self) -> _Load:
        if self._load is None:
            raise RuntimeError("the session has not been entered")
        return self._load

    @property
    def wire(self) -> WireFormat | None:
        return WireFormat("mysql-text", tuple(column.wire for column in self._entered.columns))

    def write(self, records: pa.RecordBatch) -> None:
        text = encode(records, self._entered.columns)
        if not text:
            return
        if self._feed is None:
            self._feed = _Feed(self._entered.run)
        self._feed.put(text)

    def relay(self, chunks: Iterator[bytes]) -> None:
        self._lines = self._entered.run(chunks)

    def finish(self) -> int:
        load = self._entered
        if self._feed is not None:
            self._lines = self._feed.end()
        with load.watched():
            count = int(load.target.fetch(f"SELECT COUNT(*) FROM {load.target.name}")[0][0])
        if count != self._lines:
            raise LoadRefused("the target holds another number of records than was sent")
        self._is_finished = True
        return count

    def commit(self, fence: Fence) -> None:
        load = self._entered
        if not self._is_finished:
            raise RuntimeError("the load has not been finished")
        with load.watched():
            load.target.set_deadline()
        load.guard.stop()
        fence()
        with load.watched():
            load.connection.commit()


@dataclass(frozen=True, slots=True)
class _Load:
    """An open transaction on the empty table."""

    connection: InfileConnection
    target: Target
    columns: Sequence[LoadColumn]
    guard: LeaseGuard

    def run(self, pieces: Iterator[bytes]) -> int:
        """Load all of a text; gives its number of records. Raises LoadRefused."""
        counted = _Counted(pieces)
        with self.watched():
            try:
                outcome = self.connection.load(
                    self._statement(), counted, largest_packet=self.target.largest_packet
                )
            except pymysql.err.MySQLError as error:
                raise _refused(error) or error from error
            self._refuse_doubts(outcome, counted.lines)
        return counted.lines

    def _statement(self) -> str:
        places = [
            f"@v{number}" if column.expression else quote(column.field.name)
            for number, column in enumerate(self.columns)
        ]
        values = [
            f"{quote(column.field.name)} = {column.value(f'@v{number}')}"
            for number, column in enumerate(self.columns)
            if column.expression
        ]
        return (
            f"LOAD DATA LOCAL INFILE 'lockstep' INTO TABLE {self.target.name} "
            r"CHARACTER SET utf8mb4 FIELDS TERMINATED BY '\t' ENCLOSED BY '' ESCAPED BY '\\' "
            rf"LINES STARTING BY '' TERMINATED BY '\n' ({', '.join(places)})"
            + (f" SET {', '.join(values)}" if values else "")
        )

    def _refuse_doubts(self, outcome: LoadOutcome, lines: int) -> None:
        if outcome.warnings:
            raise self._warned()
        if outcome.skipped or outcome.deleted or outcome.records != lines:
            raise LoadRefused("the server left records out")

    def _warned(self) -> LoadRefused:
        """What the first warning is about, without the value that it names."""
        unknown = LoadRefused("the server warns of a record")
        with suppress(UnicodeDecodeError):  # the message repeats the value
            for _, code, message in self.target.fetch("SHOW WARNINGS LIMIT 1"):
                return _refused(pymysql.err.DataError(int(code), str(message))) or unknown
        return unknown

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise the driver's errors as ours: as TargetBusy when the guard is their cause."""
        try:
            yield
        except (pymysql.err.MySQLError, ConnectionError, TimeoutError) as error:
            if self.guard.has_ended:
                raise TargetBusy(
                    "the lease ended before the load did", where=self.target.where
                ) from error
            raise translate(error, self.target.where) from error


def _refused(error: pymysql.err.MySQLError) -> LoadRefused | None:
    """The refusal that an error or a warning stands for; None when records are not its matter."""
    if error.args and error.args[0] in _LOCAL_REFUSED:
        return LoadRefused(NOT_LOCAL)
    problem = refusal(error)
    if problem is None:
        return None
    clause = problem.message[0].lower() + problem.message[1:].rstrip(".")
    return LoadRefused(f"{clause} ('{problem.field}')" if problem.field else clause)


class _Counted:
    """The pieces of a text as they come, and how many lines they had: each ends in a newline."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self.lines = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.lines += piece.count(b"\n")
            yield piece


class _Feed:
    """A statement in a thread of its own, and the queue that feeds it."""

    def __init__(self, run: Callable[[Iterator[bytes]], int]) -> None:
        self._queue: queue.Queue[bytes | None] = queue.Queue(_QUEUED_BATCHES)
        self._is_abandoned = False
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="load-data")
        self._result = self._pool.submit(run, self._pieces())

    def _pieces(self) -> Iterator[bytes]:
        while (piece := self._queue.get()) is not None:
            yield piece
        if self._is_abandoned:
            raise InterruptedError("the load was abandoned")

    @property
    def is_running(self) -> bool:
        return not self._result.done()

    def put(self, piece: bytes | None) -> None:
        """Hand a piece on; raises what the statement raised."""
        while True:
            if self._result.done():
                self._result.result()
                raise RuntimeError("the statement has ended")
            with suppress(queue.Full):
                self._queue.put(piece, timeout=_POLL_SECONDS)
                return

    def end(self) -> int:
        """No more pieces come: what the statement gives, or raises."""
        self.put(None)
        lines = self._result.result()
        self._pool.shutdown()
        return lines

    def abandon(self) -> None:
        """Wait for the statement to fail. The connection has been cut, and nobody puts any more."""
        self._is_abandoned = True
        with suppress(queue.Empty):
            while True:
                self._queue.get_nowait()
        self._queue.put_nowait(None)
        self._pool.shutdown()
