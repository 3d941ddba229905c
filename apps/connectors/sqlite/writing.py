"""Writing SQLite tables: compare-and-set inside one immediate transaction per batch.

The right to write is a lock on a small file beside the database, because SQLite's own lock ends
with each transaction. Inside a batch, BEGIN IMMEDIATE keeps every other writer out, so records
can be read, judged and written without one of them moving in between.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Operation,
    WriteProblem,
    WriteResult,
    WriteSession,
    WriteStatus,
)
from apps.connectors.errors import PermissionRefused, RecordError, SchemaMismatch, TargetBusy
from apps.connectors.sql import find_fields
from apps.connectors.sql_writing import (
    AMBIGUOUS,
    ROW,
    PreparedBatch,
    RowRefused,
    judge,
    prepare,
    rejected,
    write_isolating,
)
from apps.connectors.sqlite import discovery
from apps.connectors.sqlite.connection import (
    SqliteSettings,
    connect,
    quote,
    refusal,
    translate,
    translated,
)
from apps.connectors.sqlite.reading import KEYS_TABLE, key_join, key_match, stage_keys, to_batch
from apps.connectors.sqlite.types import bound_values, keeps_exactly

_DEADLINE_SHARE = 0.8
_INSTRUCTIONS_PER_LOOK = 20_000
_NOT_WRITTEN = rejected("record.not_written", "A trigger of the table keeps it from being written.")


class FileLock:
    """An exclusive lock that the operating system drops when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def acquire(self, seconds: float) -> None:
        """Raises TargetBusy after that many seconds."""
        deadline = time.monotonic() + seconds
        while not self._try():
            if time.monotonic() >= deadline:
                raise TargetBusy("another writer holds this target's lock", where=str(self._path))
            time.sleep(0.05)

    def _try(self) -> bool:
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise PermissionRefused(
                "the lock file cannot be made",
                where=str(self._path),
                remedy="Let the workers' user write to the database's folder.",
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = os.fstat(descriptor).st_ino == os.stat(self._path).st_ino
        except OSError:
            held = False
        if held:
            self._descriptor = descriptor
        else:
            os.close(descriptor)
        return held

    def release(self) -> None:
        if self._descriptor >= 0:
            self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1


class SqliteWriteSession(WriteSession):
    def __init__(
        self,
        settings: SqliteSettings,
        dataset: DatasetSchema,
        *,
        lock: str,
        lease_seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._dataset = dataset
        self._lease_seconds = lease_seconds
        path = Path(settings.path)
        digest = hashlib.blake2b(lock.encode(), digest_size=8).hexdigest()
        self._lock = FileLock(path.with_name(f".{path.name}.lockstep-{digest}"))
        self._connection: sqlite3.Connection | None = None
        self._current = dataset

    def __enter__(self) -> SqliteWriteSession:
        connection = connect(self._settings, write=True)
        try:
            with translated(self._dataset.name):
                self._current = discovery.describe(connection, self._dataset.name, measure=False)
            if not self._current.writable:
                raise SchemaMismatch("a view cannot be written", where=self._dataset.name)
            self._lock.acquire(max(self._lease_seconds(), 0.0))
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._lock.release()

    def apply(self, batch: ChangeBatch, fence: Fence) -> WriteResult:
        connection = self._connection
        if connection is None:
            raise RuntimeError("the session has not been entered")
        prepared = prepare(batch, self._current)
        _refuse_what_sqlite_alters(prepared, self._current)
        with translated(self._current.name):
            self._begin(connection)
            try:
                judge_current(connection, prepared, self._current)
                _write(connection, prepared, self._current)
                fence()
                _commit(connection, self._current.name)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                connection.set_progress_handler(None, 0)
        return prepared.result()

    def _begin(self, connection: sqlite3.Connection) -> None:
        left = self._lease_seconds() * _DEADLINE_SHARE
        if left <= 0:
            raise TargetBusy("the lease is over", where=self._current.name)
        deadline = time.monotonic() + left
        connection.execute(f"PRAGMA busy_timeout = {int(left * 1000)}")
        connection.set_progress_handler(
            lambda: int(time.monotonic() > deadline), _INSTRUCTIONS_PER_LOOK
        )
        connection.execute("BEGIN IMMEDIATE")


def _commit(connection: sqlite3.Connection, where: str) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.IntegrityError as error:
        raise RecordError(
            "a deferred foreign key refuses the batch",
            where=where,
            remedy="Declare the foreign key as immediate, or sync the referenced dataset first.",
        ) from error


def _refuse_what_sqlite_alters(prepared: PreparedBatch, current: DatasetSchema) -> None:
    for target in find_fields(current, prepared.after.column_names):
        keeps = keeps_exactly(target)
        if keeps is None:
            continue
        for row, value in enumerate(bound_values(prepared.after.column(target.name), target)):
            if value is not None and not keeps(value):
                message = f"SQLite cannot keep this value exactly in a '{target.native_type}'."
                prepared.settle(row, rejected("record.out_of_range", message, target.name))


def judge_current(
    connection: sqlite3.Connection, prepared: PreparedBatch, current: DatasetSchema
) -> None:
    """Read the records of the pending keys and settle the rows that must not be written."""
    pending = prepared.pending()
    if not pending:
        return
    stage_keys(connection, prepared.key.take(pending), current, pending)
    names = list(dict.fromkeys([*prepared.before.column_names, *prepared.after.column_names]))
    fields = find_fields(current, names)
    columns = "".join(f", t.{quote(field.name)}" for field in fields)
    join = key_join(find_fields(current, prepared.key.column_names))
    rows = connection.execute(
        f"SELECT s.n{columns} FROM {KEYS_TABLE} AS s "
        f"CROSS JOIN {quote(current.name)} AS t ON {join}"
    ).fetchall()
    numbers = [row[0] for row in rows]
    found, unreadable = _found_table([row[1:] for row in rows], numbers, fields, current)
    for row in unreadable:
        stale = WriteProblem(WriteStatus.STALE, "record.malformed", "The record is unreadable.")
        prepared.settle(row, AMBIGUOUS if numbers.count(row) > 1 else stale)
    judge(prepared, found, prepared.after)


def _found_table(
    rows: list[tuple[Any, ...]],
    numbers: list[int],
    fields: Sequence[Any],
    current: DatasetSchema,
) -> tuple[pa.Table, list[int]]:
    """The readable records with their row numbers, and the numbers of the unreadable ones."""
    if not fields:
        return pa.table({ROW: pa.array(numbers, pa.int64())}), []
    readable: list[int] = []
    unreadable: list[int] = []
    whole = to_batch(rows, fields, current)
    if not whole.rejected:
        table = pa.Table.from_batches([whole.records])
        return table.append_column(ROW, pa.array(numbers, pa.int64())), []
    parts = [whole.records.slice(0, 0)]
    for number, row in zip(numbers, rows, strict=True):
        single = to_batch([row], fields, current)
        (unreadable if single.rejected else readable).append(number)
        parts.append(single.records)
    table = pa.Table.from_batches(parts)
    return table.append_column(ROW, pa.array(readable, pa.int64())), unreadable


def _write(connection: sqlite3.Connection, prepared: PreparedBatch, current: DatasetSchema) -> None:
    or_abort = "OR ABORT " if _resolves_conflicts(connection, current.name) else ""
    statement, parameters = _statement(prepared, current, or_abort)

    def write(rows: Sequence[int]) -> None:
        connection.execute("SAVEPOINT part")
        try:
            written = connection.executemany(statement, (parameters[row] for row in rows)).rowcount
        except sqlite3.Error as error:
            connection.execute("ROLLBACK TO part")
            connection.execute("RELEASE part")
            problem = refusal(error)
            if problem is None:
                raise translate(error, current.name) from error
            raise RowRefused(problem) from error
        if written != len(rows):
            connection.execute("ROLLBACK TO part")
        connection.execute("RELEASE part")
        if written != len(rows):
            raise RowRefused(_NOT_WRITTEN)

    write_isolating(prepared.pending(), write, prepared.settle)


def _resolves_conflicts(connection: sqlite3.Connection, table: str) -> bool:
    """Whether constraints of the table say what to do on conflict, such as replace other records.

    Only then do our statements overrule that: what they say holds for the table's triggers too,
    which may well rely on an INSERT OR IGNORE of their own.
    """
    row = connection.execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    return row is not None and "CONFLICT" in str(row[0]).upper()


def _statement(
    prepared: PreparedBatch, current: DatasetSchema, or_abort: str
) -> tuple[str, list[tuple[Any, ...]]]:
    table = quote(current.name)
    keys = find_fields(current, prepared.key.column_names)
    after = find_fields(current, prepared.after.column_names)
    key_values = [bound_values(prepared.key.column(field.name), field) for field in keys]
    after_values = [bound_values(prepared.after.column(field.name), field) for field in after]
    if prepared.operation is Operation.INSERT:
        names = ", ".join(quote(field.name) for field in after)
        marks = ", ".join("?" for _ in after)
        statement = f"INSERT {or_abort}INTO {table} ({names}) VALUES ({marks})"
        return statement, list(zip(*after_values, strict=True))
    where = " AND ".join(key_match(field, f"?{i + 1}") for i, field in enumerate(keys))
    if prepared.operation is Operation.DELETE:
        return f"DELETE FROM {table} AS t WHERE {where}", list(zip(*key_values, strict=True))
    marks = ", ".join(
        f"{quote(field.name)} = ?{len(keys) + i + 1}" for i, field in enumerate(after)
    )
    statement = f"UPDATE {or_abort}{table} AS t SET {marks} WHERE {where}"
    return statement, list(zip(*key_values, *after_values, strict=True))
