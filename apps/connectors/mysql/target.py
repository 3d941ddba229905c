"""A table that is being written: its connection, and deadlines below the lease."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pymysql.err
from pymysql.connections import Connection

from apps.connectors.errors import TargetBusy
from apps.connectors.mysql.connection import quote, refusal, translate
from apps.connectors.mysql.discovery import Table, is_mariadb
from apps.connectors.mysql.reading import rows_to_batch
from apps.connectors.returning import Found
from apps.connectors.sql import find_fields
from apps.connectors.sql_returning import Row, found_records
from apps.connectors.sql_writing import RowRefused

_DEADLINE_SHARE = 0.8


def take_lock(connection: Connection[Any], lock: str, seconds: float, *, where: str) -> None:
    """Wait for the exclusive right to write at most so long; it ends with the connection.

    lock: its name, of any length. Raises TargetBusy.
    """
    name = "lockstep_" + hashlib.blake2b(lock.encode(), digest_size=16).hexdigest()
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT GET_LOCK('{name}', {max(math.floor(seconds), 0)})")
        taken = cursor.fetchone()
    if taken is None or str(taken[0]) != "1":
        raise TargetBusy("another writer holds this target's lock", where=where)


class Target:
    """What the statements of all batches of a session share. The connection is a raw one."""

    def __init__(
        self, connection: Connection[Any], table: Table, lease_seconds: Callable[[], float]
    ) -> None:
        self.connection = connection
        self.table = table
        self.where = table.schema.name
        self.name = quote(table.schema.name)
        self.is_mariadb = is_mariadb(connection)
        self.largest_packet = int(self.fetch("SELECT @@max_allowed_packet")[0][0])
        self._lease_seconds = lease_seconds
        self._scopes = 0

    def close(self) -> None:
        """Hang up: the server rolls back, and frees the lock and the stage."""
        self.connection.close()

    def run(self, statement: str | bytes) -> int:
        return int(self.connection.query(statement))

    def fetch(self, query: str) -> list[Row]:
        with self.connection.cursor() as cursor:
            cursor.execute(query)
            return [tuple(row) for row in cursor.fetchall()]

    def last_number(self) -> int:
        """What AUTO_INCREMENT gave the record inserted last."""
        return int(self.fetch("SELECT LAST_INSERT_ID()")[0][0])

    def set_deadline(self) -> None:
        """Keep statement and lock deadlines below what is left of the lease."""
        left = self._lease_seconds() * _DEADLINE_SHARE
        if left <= 0:
            raise TargetBusy("the lease is over", where=self.where)
        statement = (
            f"max_statement_time = {left:.3f}"
            if self.is_mariadb
            else f"max_execution_time = {int(left * 1000)}"
        )
        lock_wait = max(math.floor(left), 1)
        self.run(f"SET SESSION innodb_lock_wait_timeout = {lock_wait}, {statement}")

    def lift_statement_deadline(self) -> None:
        """For a statement that somebody watches (`lease_guard`); locks keep their deadline."""
        self.run(f"SET SESSION max_{'statement' if self.is_mariadb else 'execution'}_time = 0")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what is done inside, or roll it back when an exception leaves it."""
        self.connection.begin()
        try:
            yield
            self.connection.commit()
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self.connection.open:
            try:
                self.connection.rollback()
            except (pymysql.err.MySQLError, OSError):
                self.connection.close()

    @contextmanager
    def savepoint(self, name: str = "whole") -> Iterator[None]:
        """Undo what is done inside when an exception that the connection survives leaves it."""
        self.run(f"SAVEPOINT lockstep_{name}")
        try:
            yield
        except Exception as error:
            if not isinstance(error, pymysql.err.MySQLError | OSError) and self.connection.open:
                self.run(f"ROLLBACK TO SAVEPOINT lockstep_{name}")
                self.run(f"RELEASE SAVEPOINT lockstep_{name}")
            raise
        self.run(f"RELEASE SAVEPOINT lockstep_{name}")

    def scope(self) -> AbstractContextManager[None]:
        """A savepoint of its own, so that it may stand within others."""
        self._scopes += 1
        return self.savepoint(f"scope_{self._scopes}")

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Raise RowRefused when a row's data is the trouble; the server undoes the statement."""
        try:
            yield
        except pymysql.err.MySQLError as error:
            problem = refusal(error)
            if problem is None:
                raise translate(error, self.where) from error
            raise RowRefused(problem) from error

    def found(self, rows: Sequence[Row], names: Sequence[str]) -> Found:
        """Records from rows of a number and the fields named."""
        fields = find_fields(self.table.schema, names)
        return found_records(
            [int(row[0]) for row in rows],
            [row[1:] for row in rows],
            lambda part: rows_to_batch(part, fields, self.table),
        )

    def read_list(self, names: Sequence[str], alias: str = "t.") -> str:
        """The fields as a part of a SELECT, each after a comma."""
        return "".join(f", {column.read(alias)}" for column in self.table.column_list(names))
