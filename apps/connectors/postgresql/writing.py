"""Writing PostgreSQL tables: COPY into a stage, then one compare-and-set statement per batch.

One transaction per batch:
1. The rows are copied into a temporary table (`staging`).
2. The whole batch is written by one statement that joins stage and target on the key. An insert
   skips what conflicts; an update or delete demands that the before-image still holds.
3. Only when that statement wrote fewer rows than it was given are the others looked at, and told
   apart as already done, moved, gone, or in conflict with another record.
4. When the data of some row makes the statement fail, halves of the batch are tried under
   savepoints until the bad rows stand alone.
5. The caller's fence is asked, and the transaction commits.

The right to write is an advisory lock of the session, so the server frees it when we die.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import psycopg

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    Operation,
    WriteResult,
    WriteSession,
)
from apps.connectors.errors import SchemaMismatch, TargetBusy
from apps.connectors.postgresql.connection import (
    PostgresqlSettings,
    connect,
    literal,
    quote,
    refusal,
    translate,
    translated,
)
from apps.connectors.postgresql.discovery import Table, load_table
from apps.connectors.postgresql.staging import Stage, refuse_nul
from apps.connectors.postgresql.types import Column
from apps.connectors.sql_writing import (
    ALREADY,
    AMBIGUOUS,
    DUPLICATE,
    GONE,
    STALE,
    TAKEN,
    PreparedBatch,
    RowRefused,
    prepare,
    refuse_finer_times,
    write_isolating,
)

_DEADLINE_SHARE = 0.8
_REFRESH_SECONDS = 1.0
_NO_ARBITER = "55000"  # a deferrable unique constraint cannot serve ON CONFLICT


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
        digest = hashlib.blake2b(lock.encode(), digest_size=8).digest()
        self._lock = int.from_bytes(digest, "big", signed=True)
        self._open: _OpenSession | None = None

    def __enter__(self) -> PostgresqlWriteSession:
        connection = connect(self._settings)
        name = self._dataset.name
        try:
            with translated(name):
                self._take_lock(connection)
                table = load_table(connection, self._settings.schema_name, name)
            if not table.schema.writable:
                raise SchemaMismatch("a view cannot be written", where=name)
        except BaseException:
            connection.close()
            raise
        self._open = _OpenSession(
            connection, self._settings.schema_name, table, self._lease_seconds
        )
        return self

    def _take_lock(self, connection: psycopg.Connection[Any]) -> None:
        """Wait for the lock for what is left of the lease. Raises TargetBusy."""
        wait = max(int(self._lease_seconds() * 1000), 1)
        connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{wait}ms",))
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (self._lock,))
        except psycopg.errors.LockNotAvailable:
            raise TargetBusy(
                "another writer holds this target's lock", where=self._dataset.name
            ) from None

    def __exit__(self, *exc_info: object) -> None:
        if self._open is not None:
            self._open.connection.close()
            self._open = None

    def apply(self, batch: ChangeBatch, fence: Fence) -> WriteResult:
        if self._open is None:
            raise RuntimeError("the session has not been entered")
        return self._open.apply(batch, fence)


class _OpenSession:
    """A session that holds its lock."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        schema: str,
        table: Table,
        lease_seconds: Callable[[], float],
    ) -> None:
        self.connection = connection
        self._table = table
        self._target = f"{quote(schema)}.{quote(table.schema.name)}"
        self._where = table.schema.name
        self._lease_seconds = lease_seconds
        self._stage = Stage(connection)
        self._deadline_set = 0.0

    def apply(self, batch: ChangeBatch, fence: Fence) -> WriteResult:
        prepared = prepare(batch, self._table.schema)
        refuse_nul(prepared)
        for column in self._table.column_list(prepared.after.column_names):
            if column.native.fraction_digits is not None:
                refuse_finer_times(prepared, column.name, column.native.fraction_digits)
        with translated(self._where):
            self._stage.use_table(prepared)
            with self.connection.transaction():
                self._set_deadline(force=True)
                self.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
                pending = prepared.pending()
                if pending:
                    self._stage.fill(prepared, pending)
                    _BatchWriter(self, prepared).write(pending)
                fence()
        return prepared.result()

    def _set_deadline(self, *, force: bool = False) -> None:
        """Keep statement and lock deadlines below what is left of the lease."""
        now = time.monotonic()
        if not force and now - self._deadline_set < _REFRESH_SECONDS:
            return
        left = self._lease_seconds() * _DEADLINE_SHARE
        if left <= 0:
            raise TargetBusy("the lease is over", where=self._where)
        self._deadline_set = now
        wait = f"{max(int(left * 1000), 1)}ms"
        self.connection.execute(
            "SELECT set_config('statement_timeout', %s, true), "
            "set_config('lock_timeout', %s, true)",
            (wait, wait),
        )

    def run(self, statement: str) -> psycopg.Cursor[Any]:
        """Run a statement without parameters, whose names may therefore hold percent signs."""
        self._set_deadline()
        return self.connection.execute(statement.encode())

    @property
    def stage(self) -> Stage:
        return self._stage

    @property
    def table(self) -> Table:
        return self._table

    @property
    def target(self) -> str:
        return self._target

    @property
    def where(self) -> str:
        return self._where


class _BatchWriter:
    """The statements of one batch inside its transaction."""

    def __init__(self, session: _OpenSession, prepared: PreparedBatch) -> None:
        self._session = session
        self._prepared = prepared
        table = session.table
        self._keys = table.column_list(prepared.key.column_names)
        self._before = table.column_list(prepared.before.column_names)
        self._after = table.column_list(prepared.after.column_names)
        self._match = " AND ".join(c.match(f"s.k{i}") for i, c in enumerate(self._keys))
        self._join = f"{session.stage.name} s JOIN {session.target} t ON {self._match}"
        self._is_unique = table.is_unique(prepared.key.column_names)
        self._written: set[int] = set()

    def write(self, rows: list[int]) -> None:
        if self._prepared.operation is Operation.INSERT:
            self._insert(rows)
            return
        if not self._is_unique:
            self._settle_ambiguous(rows)
            rows = self._prepared.pending()
        statement = (
            self._update_statement()
            if self._prepared.operation is Operation.UPDATE
            else self._delete_statement()
        )
        write_isolating(rows, lambda part: self._change(statement, part), self._prepared.settle)
        left = [row for row in self._prepared.pending() if row not in self._written]
        if left:
            self._judge_unchanged(left)

    def _insert(self, rows: list[int]) -> None:
        if not (self._is_unique and self._insert_at_once(rows)):
            self._settle_existing()
            rows = self._prepared.pending()
            self._session.stage.discard(sorted(self._prepared.exceptions))
            write_isolating(rows, self._insert_part, self._prepared.settle)
        self._advance_sequences()

    def _insert_at_once(self, rows: list[int]) -> bool:
        """Insert all rows; leave nothing and say False when even one of them was not new."""
        count = -1
        try:
            with self._session.connection.transaction():
                count = self._run_insert(rows)
                if count != len(rows):
                    raise psycopg.Rollback
        except psycopg.Error as error:
            if refusal(error) is None and error.sqlstate != _NO_ARBITER:
                raise
        return count == len(rows)

    def _run_insert(self, rows: Sequence[int], *, skip_conflicts: bool = True) -> int:
        names = ", ".join(quote(column.name) for column in self._after)
        values = ", ".join(column.staged(f"s.a{i}") for i, column in enumerate(self._after))
        override = any(column.identity_always for column in self._after)
        statement = (
            f"INSERT INTO {self._session.target} ({names}) "
            f"{'OVERRIDING SYSTEM VALUE ' if override else ''}"
            f"SELECT {values} FROM {self._session.stage.name} s WHERE {_between(rows)}"
            f"{' ON CONFLICT DO NOTHING' if skip_conflicts else ''}"
        )
        return self._session.run(statement).rowcount

    def _settle_existing(self) -> None:
        same = _all(column.same(f"s.a{i}") for i, column in enumerate(self._after))
        found = self._session.run(f"SELECT s.n, bool_or({same}) FROM {self._join} GROUP BY s.n")
        for row, equal in found:
            self._prepared.settle(row, ALREADY if equal else TAKEN)

    def _insert_part(self, rows: Sequence[int]) -> None:
        def insert() -> None:
            try:
                with self._session.connection.transaction():
                    count = self._run_insert(rows)
            except psycopg.errors.ObjectNotInPrerequisiteState:
                count = self._run_insert(rows, skip_conflicts=False)
            if count != len(rows):
                self._settle_conflicting(rows, count)

        self._guarded(insert)

    def _settle_conflicting(self, rows: Sequence[int], inserted: int) -> None:
        """Rows that were skipped although their key was free clash in another unique key."""
        absent = self._session.run(
            f"SELECT s.n FROM {self._session.stage.name} s WHERE {_between(rows)} "
            f"AND NOT EXISTS (SELECT 1 FROM {self._session.target} t WHERE {self._match})"
        ).fetchall()
        if len(rows) - len(absent) != inserted:
            raise TargetBusy(
                "another writer inserted the same keys at the same time", where=self._session.where
            )
        for (row,) in absent:
            self._prepared.settle(row, DUPLICATE)

    def _guarded(self, statement: Callable[[], None]) -> None:
        """Run under a savepoint. Raises RowRefused when a row's data is the trouble."""
        try:
            with self._session.connection.transaction():
                statement()
        except psycopg.Error as error:
            problem = refusal(error)
            if problem is None:
                raise translate(error.sqlstate, self._session.where) from error
            raise RowRefused(problem) from error

    def _settle_ambiguous(self, rows: list[int]) -> None:
        found = self._session.run(f"SELECT s.n FROM {self._join} GROUP BY s.n HAVING count(*) > 1")
        ambiguous = [row for (row,) in found]
        for row in ambiguous:
            self._prepared.settle(row, AMBIGUOUS)
        self._session.stage.discard(ambiguous)

    def _unchanged(self) -> str:
        return _all(column.same(f"s.b{i}") for i, column in enumerate(self._before))

    def _update_statement(self) -> str:
        values = ", ".join(
            f"{quote(column.name)} = {column.staged(f's.a{i}')}"
            for i, column in enumerate(self._after)
        )
        return (
            f"UPDATE {self._session.target} t SET {values} FROM {self._session.stage.name} s "
            f"WHERE {self._match} AND {self._unchanged()}"
        )

    def _delete_statement(self) -> str:
        return (
            f"DELETE FROM {self._session.target} t USING {self._session.stage.name} s "
            f"WHERE {self._match} AND {self._unchanged()}"
        )

    def _change(self, statement: str, rows: Sequence[int]) -> None:
        written: list[int] = []

        def change() -> None:
            done = self._session.run(f"{statement} AND {_between(rows)} RETURNING s.n")
            written.extend(row for (row,) in done)

        self._guarded(change)
        self._written.update(written)

    def _judge_unchanged(self, rows: list[int]) -> None:
        """Tell apart the rows that the statement passed over."""
        is_update = self._prepared.operation is Operation.UPDATE
        same = _all(column.same(f"s.a{i}") for i, column in enumerate(self._after))
        found = dict(
            self._session.run(
                f"SELECT s.n, bool_and({same if is_update else 'false'}) FROM {self._join} "
                f"WHERE s.n = ANY('{{{','.join(map(str, rows))}}}'::int[]) GROUP BY s.n"
            ).fetchall()
        )
        for row in rows:
            if row not in found:
                self._prepared.settle(row, GONE if is_update else ALREADY)
            else:
                self._prepared.settle(row, ALREADY if found[row] else STALE)

    def _advance_sequences(self) -> None:
        """Move sequences past the numbers just written, so that the next one given out is new."""
        fields = {field.name: field for field in self._session.table.schema.fields}
        for index, column in enumerate(self._after):
            if fields[column.name].server_assigned:
                self._advance(column, f"a{index}")

    def _advance(self, column: Column, staged: str) -> None:
        target, name = literal(self._session.target), literal(column.name)
        found = self._session.run(f"SELECT pg_get_serial_sequence({target}, {name})").fetchone()
        if found is None or found[0] is None:
            return
        highest = f"(SELECT max({staged}::bigint) FROM {self._session.stage.name})"
        try:
            with self._session.connection.transaction():
                self._session.run(
                    f"SELECT setval({literal(found[0])}::regclass, {highest}) FROM {found[0]} "
                    f"WHERE last_value < {highest}"
                )
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.DataError):
            return  # a sequence that is not ours to move, or that ends before this number


def _between(rows: Sequence[int]) -> str:
    return f"s.n BETWEEN {rows[0]} AND {rows[-1]}"


def _all(conditions: Any) -> str:
    return " AND ".join(conditions) or "true"
