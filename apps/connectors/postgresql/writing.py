"""Writing PostgreSQL tables: COPY into a stage, then one compare-and-set statement per batch.

One transaction per batch:
1. The rows are copied into a temporary table (`staging`).
2. The whole batch is written by one statement that joins stage and target on the key. An insert
   skips what conflicts; an update or delete demands that the before-image still holds.
3. Only when that statement wrote fewer rows than it was given are the others looked at, and told
   apart as already done, moved, gone, or in conflict with another record.
4. When the data of some row makes the statement fail, halves of the batch are tried under
   savepoints until the bad rows stand alone.
5. Where the caller wants to know what the target made of the records, they are read back.
6. The caller notes the outcome, its fence is asked, and the transaction commits.

The right to write is an advisory lock of the session, so the server frees it when we die.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Note,
    WriteResult,
    WriteSession,
)
from apps.connectors.errors import SchemaMismatch
from apps.connectors.postgresql.assigning import insert_assigned
from apps.connectors.postgresql.batches import BatchWriter
from apps.connectors.postgresql.connection import PostgresqlSettings, connect, translated
from apps.connectors.postgresql.discovery import load_table
from apps.connectors.postgresql.locking import take_lock
from apps.connectors.postgresql.returning import read_by_key
from apps.connectors.postgresql.staging import refuse_nul
from apps.connectors.postgresql.target import Target
from apps.connectors.postgresql.transactions import current_transaction, was_committed
from apps.connectors.returning import Found
from apps.connectors.sql import find_fields
from apps.connectors.sql_ordering import ordered
from apps.connectors.sql_returning import addresses, recognise_moved, result_of, write_and_read_back
from apps.connectors.sql_writing import PreparedBatch, prepare, refuse_finer_times


class PostgresqlWriteSession(WriteSession):
    def __init__(
        self,
        settings: PostgresqlSettings,
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

    def __enter__(self) -> PostgresqlWriteSession:
        connection = connect(self._settings)
        name = self._dataset.name
        try:
            with translated(name):
                take_lock(connection, self._lock, self._lease_seconds, where=name)
                table = load_table(connection, self._settings.schema_name, name)
            if not table.schema.writable:
                raise SchemaMismatch("a view cannot be written", where=name)
        except BaseException:
            connection.close()
            raise
        self._open = Target(connection, self._settings.schema_name, table, self._lease_seconds)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._open is not None:
            self._open.connection.close()
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
        refuse_nul(prepared)
        for column in target.table.column_list(prepared.after.column_names):
            if column.native.fraction_digits is not None:
                refuse_finer_times(prepared, column.name, column.native.fraction_digits)
        with translated(target.where):
            target.stage.use_table(prepared, assigned_key=_assigned_key(batch, target))
            with target.connection.transaction():
                target.set_deadline(force=True)
                target.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                result = restored(_apply(target, batch, prepared, returning))
                if note is not None:
                    result = replace(result, transaction=current_transaction(target.connection))
                    note(result)
                fence()
        return result

    def committed(self, transaction: str) -> bool | None:
        if self._open is None:
            raise RuntimeError("the session has not been entered")
        with translated(self._open.where):
            return was_committed(self._open.connection, transaction)


def _assigned_key(batch: ChangeBatch, target: Target) -> int:
    return len(target.table.schema.key) if batch.assigns_key else 0


def _apply(
    target: Target, batch: ChangeBatch, prepared: PreparedBatch, returning: Sequence[str]
) -> WriteResult:
    if batch.assigns_key:
        return insert_assigned(target, batch, prepared, returning)

    def read(rows: list[int], names: Sequence[str]) -> Found:
        return read_by_key(target, addresses(prepared), rows, names)

    def write() -> None:
        pending = prepared.pending()
        if pending:
            target.stage.fill(prepared, pending)
            BatchWriter(target, prepared, holds=bool(returning)).write(pending)
            recognise_moved(prepared, read)

    if not returning:
        write()
        return prepared.result()
    found = write_and_read_back(
        prepared,
        target.connection.transaction,
        write,
        lambda rows: read(rows, returning),
    )
    return result_of(prepared, found, target.table.schema, returning=returning)
