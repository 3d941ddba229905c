"""Writing SQLite tables: compare-and-set inside one immediate transaction per batch.

The right to write is a lock on a small file beside the database, because SQLite's own lock ends
with each transaction. Inside a batch, BEGIN IMMEDIATE keeps every other writer out, so records
can be read, judged and written without one of them moving in between.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Note,
    Operation,
    WriteResult,
    WriteSession,
)
from apps.connectors.errors import RecordError, SchemaMismatch, TargetBusy
from apps.connectors.exchanging import Exchange, write_updates
from apps.connectors.returning import Found
from apps.connectors.sql import find_fields
from apps.connectors.sql_ordering import ordered
from apps.connectors.sql_returning import addresses, recognise_moved, result_of, write_and_read_back
from apps.connectors.sql_writing import (
    AMBIGUOUS,
    NOT_WRITTEN,
    PreparedBatch,
    RowRefused,
    judge,
    prepare,
    rejected,
    write_isolating,
)
from apps.connectors.sqlite import discovery
from apps.connectors.sqlite.assigning import insert_assigned
from apps.connectors.sqlite.circles import circle, segments
from apps.connectors.sqlite.connection import SqliteSettings, connect, quote, translated
from apps.connectors.sqlite.locking import FileLock
from apps.connectors.sqlite.reading import key_join, key_match, stage_keys
from apps.connectors.sqlite.statements import (
    STALE_UNREADABLE,
    holds,
    overruling,
    read_staged,
    refusing,
    savepoint,
    vacate,
)
from apps.connectors.sqlite.surroundings import loose_keys, on_update
from apps.connectors.sqlite.types import bound_values, keeps_exactly

_DEADLINE_SHARE = 0.8
_INSTRUCTIONS_PER_LOOK = 20_000


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

    def apply(
        self,
        batch: ChangeBatch,
        fence: Fence,
        *,
        returning: Sequence[str] = (),
        note: Note | None = None,
    ) -> WriteResult:
        connection = self._connection
        if connection is None:
            raise RuntimeError("the session has not been entered")
        find_fields(self._current, returning)
        prepared, restored = ordered(prepare(batch, self._current), self._current)
        _refuse_what_sqlite_alters(prepared, self._current)
        with translated(self._current.name):
            self._begin(connection)
            try:
                result = restored(_apply(connection, batch, prepared, self._current, returning))
                if note is not None:
                    note(result)
                fence()
                _commit(connection, self._current.name)
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            finally:
                connection.set_progress_handler(None, 0)
        return result

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
            if value is not None and not keeps(value) and target.name in prepared.written(row):
                message = f"SQLite cannot keep this value exactly in a '{target.native_type}'."
                prepared.settle(row, rejected("record.out_of_range", message, target.name))


def _apply(
    connection: sqlite3.Connection,
    batch: ChangeBatch,
    prepared: PreparedBatch,
    current: DatasetSchema,
    returning: Sequence[str],
) -> WriteResult:
    if batch.assigns_key:
        return insert_assigned(connection, batch, prepared, current, returning)

    def write() -> None:
        judge_current(connection, prepared, current)
        _write(connection, prepared, current)
        recognise_moved(
            prepared, lambda rows, names: _read_back(connection, prepared, current, rows, names)
        )

    if not returning:
        write()
        return prepared.result()
    found = write_and_read_back(
        prepared,
        lambda: savepoint(connection, "whole"),
        write,
        lambda rows: _read_back(connection, prepared, current, rows, returning),
    )
    return result_of(prepared, found, current, returning=returning)


def _read_back(
    connection: sqlite3.Connection,
    prepared: PreparedBatch,
    current: DatasetSchema,
    rows: list[int],
    returning: Sequence[str],
) -> Found:
    keys = addresses(prepared)
    stage_keys(connection, keys.take(pa.array(rows, pa.int64())), current, rows)
    join = key_join(find_fields(current, keys.column_names))
    return read_staged(connection, current, join, returning)


def judge_current(
    connection: sqlite3.Connection, prepared: PreparedBatch, current: DatasetSchema
) -> None:
    """Read the records of the pending keys and settle the rows that must not be written."""
    pending = prepared.pending()
    if not pending:
        return
    stage_keys(connection, prepared.key.take(pending), current, pending)
    names = list(dict.fromkeys([*prepared.before.column_names, *prepared.after.column_names]))
    join = key_join(find_fields(current, prepared.key.column_names))
    found = read_staged(connection, current, join, names)
    for row in found.unreadable:
        several = row in found.numbers or found.unreadable.count(row) > 1
        prepared.settle(row, AMBIGUOUS if several else STALE_UNREADABLE)
    judge(prepared, found.records, prepared.after)


def _write(connection: sqlite3.Connection, prepared: PreparedBatch, current: DatasetSchema) -> None:
    or_abort = overruling(connection, current.name)
    statement = cache(lambda names: _statement(prepared, current, names, or_abort))

    def run(rows: Sequence[int]) -> None:
        for names, part in prepared.alike(rows):
            text, parameters = statement(names)
            written = connection.executemany(text, (parameters[row] for row in part)).rowcount
            if written != len(part):
                raise RowRefused(NOT_WRITTEN)

    def write(rows: Sequence[int]) -> None:
        with refusing(connection, current.name):
            for part, is_circle in segments(prepared, rows):
                with circle(connection, prepared, current, part) if is_circle else nullcontext():
                    run(part)

    if prepared.operation is not Operation.UPDATE:
        write_isolating(prepared, write, prepared.pending())
        return
    exchange = Exchange(
        lambda: savepoint(connection, "exchange"),
        lambda vacancy: vacate(connection, prepared, current, vacancy),
        lambda vacancy: holds(connection, prepared, current, vacancy),
        lambda row: write([row]),
        lambda: loose_keys(connection, current),
        lambda: on_update(connection, current),
    )
    write_updates(prepared, current, write, exchange, prepared.pending())


def _statement(
    prepared: PreparedBatch, current: DatasetSchema, written: Sequence[str], or_abort: str
) -> tuple[str, list[tuple[Any, ...]]]:
    """The statement that writes these fields of a row, and its parameters for each row."""
    table = quote(current.name)
    keys = find_fields(current, prepared.key.column_names)
    after = find_fields(current, written)
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
