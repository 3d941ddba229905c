"""Writing MySQL tables: stage, lock and compare, then one set-based statement per batch.

One transaction per batch:
1. The rows are staged in a temporary table of their own types.
2. The records of their keys are read and locked (FOR UPDATE) and compared here, in the same form
   in which Lockstep reads them, because the server's own comparison is blind to case, accents
   and trailing blanks.
3. What may be written is written by one statement that joins stage and target. InnoDB undoes a
   failed statement by itself, so halves of it can be tried until the bad rows stand alone.
4. The caller's fence is asked, and the transaction commits.

An insert by a key that the database keeps unique skips step 2 unless it fails.
The right to write is a lock of the server by name, which it frees when we die.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pymysql.err
from pymysql.connections import Connection

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
from apps.connectors.errors import SchemaMismatch, TargetBusy
from apps.connectors.mysql.connection import (
    MysqlSettings,
    connect,
    quote,
    refusal,
    translate,
    translated,
)
from apps.connectors.mysql.discovery import Table, is_mariadb, load_table
from apps.connectors.mysql.reading import literals, rows_to_batch
from apps.connectors.sql import find_fields
from apps.connectors.sql_writing import (
    ROW,
    PreparedBatch,
    RowRefused,
    judge,
    prepare,
    refuse_finer_times,
    rejected,
    write_isolating,
)

_DEADLINE_SHARE = 0.8
_STAGE = "lockstep_stage"
_STATEMENT_BYTES = 4 * 1024 * 1024


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
        self._lock = "lockstep_" + hashlib.blake2b(lock.encode(), digest_size=16).hexdigest()
        self._open: _OpenSession | None = None

    def __enter__(self) -> MysqlWriteSession:
        connection = connect(self._settings, raw=True)
        name = self._dataset.name
        try:
            with translated(name):
                self._take_lock(connection)
                table = load_table(connection, name)
                _run(connection, "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            if not table.schema.writable:
                raise SchemaMismatch("a view cannot be written", where=name)
            if not table.is_transactional:
                raise SchemaMismatch(
                    "the table's storage engine has no transactions",
                    where=name,
                    remedy="Convert the table to InnoDB.",
                )
        except BaseException:
            connection.close()
            raise
        self._open = _OpenSession(connection, table, self._lease_seconds)
        return self

    def _take_lock(self, connection: Connection[Any]) -> None:
        """Wait for the lock for what is left of the lease. Raises TargetBusy."""
        wait = max(math.floor(self._lease_seconds()), 0)
        taken = _fetch(connection, f"SELECT GET_LOCK('{self._lock}', {wait})")
        if str(taken[0][0]) != "1":
            raise TargetBusy("another writer holds this target's lock", where=self._dataset.name)

    def __exit__(self, *exc_info: object) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def apply(
        self, batch: ChangeBatch, fence: Fence, *, returning: Sequence[str] = ()
    ) -> WriteResult:
        if self._open is None:
            raise RuntimeError("the session has not been entered")
        if returning or batch.assigns_key:
            raise SchemaMismatch("this target gives nothing back", where=self._dataset.name)
        return self._open.apply(batch, fence)


def _run(connection: Connection[Any], statement: str) -> int:
    return int(connection.query(statement))


def _fetch(connection: Connection[Any], query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return [tuple(row) for row in cursor.fetchall()]


class _OpenSession:
    """A session that holds its lock."""

    def __init__(
        self, connection: Connection[Any], table: Table, lease_seconds: Callable[[], float]
    ) -> None:
        self._connection = connection
        self._table = table
        self._where = table.schema.name
        self._lease_seconds = lease_seconds
        self._is_mariadb = is_mariadb(connection)
        packet = _fetch(connection, "SELECT @@max_allowed_packet")[0][0]
        self._packet = int(packet)

    def close(self) -> None:
        """Hang up: the server rolls back, and frees the lock and the stage."""
        self._connection.close()

    def apply(self, batch: ChangeBatch, fence: Fence) -> WriteResult:
        prepared = prepare(batch, self._table.schema)
        self._refuse_what_mysql_alters(prepared)
        with translated(self._where):
            self._set_deadline()
            self._create_stage(prepared)
            self._connection.begin()
            try:
                self._fill_stage(prepared)
                self._write(prepared)
                fence()
                self._connection.commit()
            except BaseException:
                self._roll_back()
                raise
        return prepared.result()

    def _roll_back(self) -> None:
        if self._connection.open:
            try:
                self._connection.rollback()
            except (pymysql.err.MySQLError, OSError):
                self._connection.close()

    def _set_deadline(self) -> None:
        """Keep statement and lock deadlines below what is left of the lease."""
        left = self._lease_seconds() * _DEADLINE_SHARE
        if left <= 0:
            raise TargetBusy("the lease is over", where=self._where)
        statement = (
            f"max_statement_time = {left:.3f}"
            if self._is_mariadb
            else f"max_execution_time = {int(left * 1000)}"
        )
        lock_wait = max(math.floor(left), 1)
        _run(self._connection, f"SET SESSION innodb_lock_wait_timeout = {lock_wait}, {statement}")

    def _refuse_what_mysql_alters(self, prepared: PreparedBatch) -> None:
        for column in self._table.column_list(prepared.after.column_names):
            values = prepared.after.column(column.name)
            if column.fraction_digits is not None:
                refuse_finer_times(prepared, column.name, column.fraction_digits)
            if pa.types.is_floating(values.type):
                infinite = pc.fill_null(pc.invert(pc.is_finite(values)), False)
                for row in pc.indices_nonzero(infinite).to_pylist():
                    message = "MySQL has no infinite numbers and none that are not numbers."
                    prepared.settle(row, rejected("record.out_of_range", message, column.name))

    def _create_stage(self, prepared: PreparedBatch) -> None:
        columns = [
            f"{letter}{i} {column.staged_type}"
            for letter, names in (
                ("k", prepared.key.column_names),
                ("a", prepared.after.column_names),
            )
            for i, column in enumerate(self._table.column_list(names))
        ]
        _run(self._connection, f"DROP TEMPORARY TABLE IF EXISTS {_STAGE}")
        _run(
            self._connection,
            f"CREATE TEMPORARY TABLE {_STAGE} (n INT PRIMARY KEY, {', '.join(columns)}) "
            "ENGINE=InnoDB",
        )

    def _fill_stage(self, prepared: PreparedBatch) -> None:
        pending = prepared.pending()
        if not pending:
            return
        rows = pa.array(pending, pa.int64())
        values = [rows.cast(pa.string())]
        for table in (prepared.key, prepared.after):
            values.extend(literals(column) for column in table.take(rows).columns)
        joined = pc.binary_join_element_wise(
            *values, ",", null_handling="replace", null_replacement="NULL"
        )
        texts: list[str] = joined.to_pylist()
        for statement in self._insert_statements(texts, pending, prepared):
            self._connection.query(statement)

    def _insert_statements(
        self, texts: list[str], rows: list[int], prepared: PreparedBatch
    ) -> Iterator[bytes]:
        """Multi-row inserts into the stage, each well below the server's largest packet."""
        head = f"INSERT INTO {_STAGE} VALUES ".encode()
        largest = self._packet - len(head) - 64
        bound = min(_STATEMENT_BYTES, largest)
        parts: list[bytes] = []
        size = 0
        for row, text in zip(rows, texts, strict=True):
            part = b"(" + text.encode() + b")"
            if len(part) > largest:
                message = "The record is larger than the server's 'max_allowed_packet'."
                prepared.settle(row, rejected("record.too_long", message))
                continue
            if parts and size + len(part) > bound:
                yield head + b",".join(parts)
                parts, size = [], 0
            parts.append(part)
            size += len(part) + 1
        if parts:
            yield head + b",".join(parts)

    def _write(self, prepared: PreparedBatch) -> None:
        pending = prepared.pending()
        if not pending:
            return
        unique = self._table.is_unique(prepared.key.column_names)
        if prepared.operation is Operation.INSERT and unique and self._insert_at_once(prepared):
            return
        self._judge(prepared)
        self._discard(sorted(prepared.exceptions))
        statement = self._statement(prepared)
        write_isolating(
            prepared.pending(), lambda rows: self._attempt(statement, rows), prepared.settle
        )

    def _insert_at_once(self, prepared: PreparedBatch) -> bool:
        try:
            self._attempt(self._statement(prepared), prepared.pending())
        except RowRefused:
            return False
        return True

    def _attempt(self, statement: str, rows: Sequence[int]) -> None:
        """Run for a range of rows. Raises RowRefused when a row's data is the trouble."""
        try:
            _run(self._connection, f"{statement} s.n BETWEEN {rows[0]} AND {rows[-1]}")
        except pymysql.err.MySQLError as error:
            problem = refusal(error)
            if problem is None:
                raise translate(error, self._where) from error
            raise RowRefused(problem) from error

    def _statement(self, prepared: PreparedBatch) -> str:
        """The statement that writes staged rows, up to the condition on their numbers."""
        target = quote(self._where)
        after = self._table.column_list(prepared.after.column_names)
        if prepared.operation is Operation.INSERT:
            names = ", ".join(quote(column.name) for column in after)
            values = ", ".join(column.staged(f"s.a{i}") for i, column in enumerate(after))
            return f"INSERT INTO {target} ({names}) SELECT {values} FROM {_STAGE} s WHERE"
        match = self._match(prepared)
        if prepared.operation is Operation.DELETE:
            return f"DELETE t FROM {target} t JOIN {_STAGE} s ON {match} WHERE"
        values = ", ".join(
            f"t.{quote(column.name)} = {column.staged(f's.a{i}')}" for i, column in enumerate(after)
        )
        return f"UPDATE {target} t JOIN {_STAGE} s ON {match} SET {values} WHERE"

    def _match(self, prepared: PreparedBatch) -> str:
        keys = self._table.column_list(prepared.key.column_names)
        return " AND ".join(column.match(f"s.k{i}") for i, column in enumerate(keys))

    def _judge(self, prepared: PreparedBatch) -> None:
        names = list(dict.fromkeys([*prepared.before.column_names, *prepared.after.column_names]))
        columns = "".join(f", {column.read()}" for column in self._table.column_list(names))
        rows = _fetch(
            self._connection,
            f"SELECT s.n{columns} FROM {_STAGE} s STRAIGHT_JOIN {quote(self._where)} t "
            f"ON {self._match(prepared)} FOR UPDATE",
        )
        stored = pa.table(
            {
                column.name: column.stored(prepared.after.column(column.name))
                for column in self._table.column_list(prepared.after.column_names)
            }
        )
        found, unreadable = self._found(rows, names)
        for row in unreadable:
            prepared.settle(
                row,
                WriteProblem(WriteStatus.STALE, "record.malformed", "The record is unreadable."),
            )
        judge(prepared, found, stored)

    def _found(
        self, rows: list[tuple[Any, ...]], names: Sequence[str]
    ) -> tuple[pa.Table, list[int]]:
        """The readable records with their row numbers, and the numbers of the unreadable ones."""
        numbers = [int(row[0]) for row in rows]
        if not names:
            return pa.table({ROW: pa.array(numbers, pa.int64())}), []
        fields = find_fields(self._table.schema, names)
        whole = rows_to_batch([row[1:] for row in rows], fields, self._table)
        if not whole.rejected:
            table = pa.Table.from_batches([whole.records])
            return table.append_column(ROW, pa.array(numbers, pa.int64())), []
        readable: list[int] = []
        unreadable: list[int] = []
        parts = [whole.records.slice(0, 0)]
        for number, row in zip(numbers, rows, strict=True):
            single = rows_to_batch([row[1:]], fields, self._table)
            (unreadable if single.rejected else readable).append(number)
            parts.append(single.records)
        table = pa.Table.from_batches(parts)
        return table.append_column(ROW, pa.array(readable, pa.int64())), unreadable

    def _discard(self, rows: list[int]) -> None:
        if rows:
            numbers = ", ".join(map(str, rows))
            _run(self._connection, f"DELETE FROM {_STAGE} WHERE n IN ({numbers})")
