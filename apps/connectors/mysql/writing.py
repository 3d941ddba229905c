"""Writing MySQL tables: stage, lock and compare, then one set-based statement per batch.

One transaction per batch:
1. The rows are staged in a temporary table of their own types.
2. The records of their keys are read and locked (FOR UPDATE) and compared here, in the same form
   in which Lockstep reads them, because the server's own comparison is blind to case, accents
   and trailing blanks.
3. What may be written is written by one statement that joins stage and target. InnoDB undoes a
   failed statement by itself, so halves of it can be tried until the bad rows stand alone.
4. Where the caller wants to know what the target made of the records, they are read back.
5. The caller notes the outcome, its fence is asked, and the transaction commits.

An insert by a key that the database keeps unique skips step 2 unless it fails.
The right to write is a lock of the server by name, which it frees when we die.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Note,
    WriteResult,
    WriteSession,
)
from apps.connectors.errors import SchemaMismatch
from apps.connectors.mysql.assigning import AssignedInsert
from apps.connectors.mysql.batches import BatchWriter
from apps.connectors.mysql.connection import MysqlSettings, connect, translated
from apps.connectors.mysql.discovery import load_table
from apps.connectors.mysql.target import Target, take_lock
from apps.connectors.sql import find_fields
from apps.connectors.sql_ordering import ordered
from apps.connectors.sql_returning import (
    moves_keys,
    recognise_moved,
    result_of,
    write_and_read_back,
)
from apps.connectors.sql_writing import PreparedBatch, prepare, refuse_finer_times, rejected


class MysqlWriteSession(WriteSession):
    def __init__(
        self,
        settings: MysqlSettings,
        dataset: DatasetSchema,
        *,
        lock: str,
        lease_seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._dataset = dataset
        self._lease_seconds = lease_seconds
        self._lock = lock
        self._open: Target | None = None

    def __enter__(self) -> MysqlWriteSession:
        connection = connect(self._settings, raw=True)
        name = self._dataset.name
        try:
            with translated(name):
                take_lock(connection, self._lock, self._lease_seconds(), where=name)
                table = load_table(connection, name)
                connection.query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            if not table.schema.writable:
                raise SchemaMismatch("a view cannot be written", where=name)
            if not table.is_transactional:
                raise SchemaMismatch(
                    "the table's storage engine has no transactions",
                    where=name,
                    remedy="Convert the table to InnoDB.",
                )
            self._open = Target(connection, table, self._lease_seconds)
        except BaseException:
            connection.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def apply(
        self,
        batch: ChangeBatch,
        fence: Fence,
        *,
        returning: Sequence[str] = (),
        note: Note | None = None,
    ) -> WriteResult:
        target = self._open
        if target is None:
            raise RuntimeError("the session has not been entered")
        current = target.table.schema
        find_fields(current, returning)
        prepared, restored = ordered(prepare(batch, current), current)
        _refuse_what_mysql_alters(prepared, target)
        with translated(target.where):
            target.set_deadline()
            work = _work(target, batch, prepared, returning)
            with target.transaction():
                result = restored(work())
                if note is not None:
                    note(result)
                fence()
        return result


def _work(
    target: Target, batch: ChangeBatch, prepared: PreparedBatch, returning: Sequence[str]
) -> Callable[[], WriteResult]:
    """What is to be done inside the transaction; the temporary tables are made before it."""
    if batch.assigns_key:
        return AssignedInsert(target, batch, prepared, returning).apply
    looks_up = bool(returning) or moves_keys(prepared)
    writer = BatchWriter(target, prepared, looks_up=looks_up)

    def write() -> None:
        writer.write()
        recognise_moved(prepared, writer.read_back)

    def work() -> WriteResult:
        if not returning:
            write()
            return prepared.result()
        found = write_and_read_back(
            prepared, target.savepoint, write, lambda rows: writer.read_back(rows, returning)
        )
        return result_of(prepared, found, target.table.schema, returning=returning)

    return work


def _refuse_what_mysql_alters(prepared: PreparedBatch, target: Target) -> None:
    for column in target.table.column_list(prepared.after.column_names):
        values = prepared.after.column(column.name)
        if column.fraction_digits is not None:
            refuse_finer_times(prepared, column.name, column.fraction_digits)
        if pa.types.is_floating(values.type):
            infinite = pc.fill_null(pc.invert(pc.is_finite(values)), False)
            for row in pc.indices_nonzero(infinite).to_pylist():
                message = "MySQL has no infinite numbers and none that are not numbers."
                prepared.settle(row, rejected("record.out_of_range", message, column.name))
