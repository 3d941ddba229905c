"""Filling an empty PostgreSQL table by one binary COPY in one transaction.

1. The named lock of the target is taken, as for any write, and then the table's own lock against
   everybody else who writes. Readers go on, and see an empty table until the commit.
2. The table must be empty and plain: nothing may act on what is written to it, or hide it.
3. Records (as `encoding` lays them out) or the bytes of an export go into one COPY. Where anything
   is refused, the load is over: COPY does not say which records are at fault.
4. Sequences are moved past the numbers written, the caller's fence is asked, and the transaction
   commits. Without that, the server forgets it all.

There is no statement deadline, because a load may outlast a lease that is renewed meanwhile;
`watching` ends the statement when the lease is not renewed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
import pyarrow as pa

from apps.connectors.base import DatasetSchema, Fence, LoadRefused, LoadSession, WireFormat
from apps.connectors.errors import LockstepError, PermissionRefused, SchemaMismatch
from apps.connectors.postgresql.connection import (
    PostgresqlSettings,
    connect,
    literal,
    quote,
    refusal,
    translate,
)
from apps.connectors.postgresql.copying import CopyIn, copy_in
from apps.connectors.postgresql.discovery import Table, load_table
from apps.connectors.postgresql.encoding import RowEncoder
from apps.connectors.postgresql.locking import take_lock
from apps.connectors.postgresql.sequences import advance_sequence
from apps.connectors.postgresql.watching import LeaseWatch
from apps.connectors.postgresql.wire import FORMAT, WireColumn, wire_columns
from apps.connectors.sql import find_fields

_STATE = """
SELECT c.relkind = 'r' AND c.relpersistence = 'p',
       EXISTS (SELECT 1 FROM pg_inherits i WHERE c.oid IN (i.inhrelid, i.inhparent)),
       EXISTS (SELECT 1 FROM pg_trigger g
               WHERE g.tgrelid = c.oid AND NOT g.tgisinternal AND g.tgenabled <> 'D'),
       EXISTS (SELECT 1 FROM pg_rewrite w WHERE w.ev_class = c.oid AND w.ev_enabled <> 'D'),
       row_security_active(c.oid)
FROM pg_class c WHERE c.oid = {table}::regclass
"""
_FAULTS = (
    "the target is not a plain table",
    "the target is part of an inheritance tree or partitioned table",
    "the target has a trigger",
    "the target has a rule",
    "row security applies to the target",
)


@dataclass(slots=True)
class _Load:
    """What a session has once it is entered."""

    connection: psycopg.Connection[Any]
    watch: LeaseWatch
    table: Table
    columns: list[WireColumn]
    encoder: RowEncoder | None = None
    copy: CopyIn | None = None
    sent: int = 0
    count: int = 0


class PostgresqlLoadSession(LoadSession):
    def __init__(
        self,
        settings: PostgresqlSettings,
        dataset: DatasetSchema,
        fields: Sequence[str],
        *,
        lock: str,
        lease_seconds: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._where = dataset.name
        self._name = f"{quote(settings.schema_name)}.{quote(dataset.name)}"
        self._fields = tuple(fields)
        self._lock = lock
        self._lease_seconds = lease_seconds
        self._open: _Load | None = None

    def __enter__(self) -> PostgresqlLoadSession:
        connection = connect(self._settings)
        watch = LeaseWatch(connection, self._lease_seconds)
        watch.start()
        try:
            with self._refusing():
                take_lock(connection, self._lock, self._lease_seconds, where=self._where)
                connection.execute("BEGIN")
                connection.execute("SET LOCAL statement_timeout = 0")
                table = self._lock_table(connection)
                self._refuse_unfit(connection, table)
                columns = wire_columns(connection, table.column_list(self._fields))
        except BaseException:
            watch.stop()
            connection.close()
            raise
        self._open = _Load(connection, watch, table, columns)
        return self

    def __exit__(self, *exc_info: object) -> None:
        load, self._open = self._open, None
        if load is None:
            return
        if load.copy is not None:
            load.copy.abandon(load.watch.cancel)
        load.watch.stop()
        load.connection.close()

    def _lock_table(self, connection: psycopg.Connection[Any]) -> Table:
        schema = self._settings.schema_name
        if not load_table(connection, schema, self._where).schema.writable:
            raise LoadRefused("the target is a view")
        wait = f"{max(int(self._lease_seconds() * 1000), 1)}ms"
        connection.execute("SELECT set_config('lock_timeout', %s, true)", (wait,))
        connection.execute(f"LOCK TABLE ONLY {self._name} IN SHARE ROW EXCLUSIVE MODE".encode())
        return load_table(connection, schema, self._where)

    def _refuse_unfit(self, connection: psycopg.Connection[Any], table: Table) -> None:
        """Raises LoadRefused unless the table can be filled as it is described."""
        state = connection.execute(_STATE.format(table=literal(self._name)).encode()).fetchone()
        plain, *acting = state or (False,)
        for fault, reason in zip((not plain, *acting), _FAULTS, strict=False):
            if fault:
                raise LoadRefused(reason)
        if any(field.generated for field in find_fields(table.schema, self._fields)):
            raise LoadRefused("the target computes one of the fields")
        for field in table.schema.fields:
            given = field.name in self._fields or field.generated
            if not (given or field.nullable or field.has_default):
                raise LoadRefused(f"the field '{field.name}' of the target needs a value")
        found = connection.execute(f"SELECT EXISTS (SELECT 1 FROM {self._name})".encode())
        if found.fetchone() != (False,):
            raise LoadRefused("the target is not empty")

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Raise what the server says as LoadRefused, unless the load would do at another time."""
        try:
            yield
        except psycopg.Error as error:
            raise _refused(error, self._where) from None

    @property
    def _load(self) -> _Load:
        if self._open is None:
            raise RuntimeError("the session has not been entered")
        return self._open

    @property
    def wire(self) -> WireFormat | None:
        targets = [column.target for column in self._load.columns]
        given = tuple(target for target in targets if target is not None)
        return WireFormat(FORMAT, given) if len(given) == len(targets) else None

    @property
    def _statement(self) -> str:
        names = ", ".join(quote(name) for name in self._fields)
        return f"COPY {self._name} ({names}) FROM STDIN (FORMAT binary)"

    def write(self, records: pa.RecordBatch) -> None:
        load = self._load
        load.watch.check(self._where)
        encoder = load.encoder or self._begin_rows(load)
        rows = encoder.encode(records)
        if load.copy is None:
            load.copy = CopyIn(load.connection, self._statement)
        load.sent += records.num_rows
        with self._refusing():
            load.copy.send(rows)

    def _begin_rows(self, load: _Load) -> RowEncoder:
        fields = find_fields(load.table.schema, self._fields)
        load.encoder = RowEncoder(fields, [column.native for column in load.columns])
        return load.encoder

    def relay(self, chunks: Iterator[bytes]) -> None:
        load = self._load
        load.watch.check(self._where)
        with self._refusing():
            load.count = copy_in(load.connection, self._statement.encode(), chunks)

    def finish(self) -> int:
        load = self._load
        with self._refusing():
            if load.copy is not None and load.encoder is not None:
                load.copy.send(load.encoder.footer())
                load.count = load.copy.finish()
                load.copy = None
                if load.count != load.sent:
                    raise LoadRefused("the target took another number of records")
            load.connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
        load.watch.check(self._where)
        return load.count

    def commit(self, fence: Fence) -> None:
        load = self._load
        with self._refusing():
            self._advance_sequences(load)
            load.watch.check(self._where)
            fence()
            load.connection.execute("COMMIT")

    def _advance_sequences(self, load: _Load) -> None:
        """Make the numbers that the table gives out next new ones."""

        def run(statement: str) -> psycopg.Cursor[Any]:
            return load.connection.execute(statement.encode())

        for field in find_fields(load.table.schema, self._fields):
            if field.server_assigned:
                highest = f"SELECT max({quote(field.name)}) FROM {self._name}"
                advance_sequence(load.connection, run, self._name, field.name, highest)


def _refused(error: psycopg.Error, where: str) -> LockstepError | LoadRefused:
    """What an error of the server means to a load. It never repeats a value."""
    problem = refusal(error)
    if problem is not None:
        return LoadRefused(f"the target refused a record ({problem.code})")
    translated = translate(error.sqlstate, where)
    if isinstance(translated, SchemaMismatch | PermissionRefused):
        return LoadRefused(f"the target refused the load (SQLSTATE {error.sqlstate})")
    return translated
