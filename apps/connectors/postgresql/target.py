"""A table that is being written: its connection, its stage, and deadlines below the lease."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psycopg

from apps.connectors.base import WriteProblem
from apps.connectors.errors import TargetBusy
from apps.connectors.postgresql.connection import quote, refusal, translate
from apps.connectors.postgresql.discovery import Table
from apps.connectors.postgresql.staging import Stage
from apps.connectors.sql_writing import RowRefused

_DEADLINE_SHARE = 0.8
_REFRESH_SECONDS = 1.0


class Target:
    """What the statements of all batches of a session share."""

    def __init__(
        self,
        connection: psycopg.Connection[Any],
        schema: str,
        table: Table,
        lease_seconds: Callable[[], float],
    ) -> None:
        self.connection = connection
        self.table = table
        self.name = f"{quote(schema)}.{quote(table.schema.name)}"
        self.where = table.schema.name
        self.stage = Stage(connection)
        self._lease_seconds = lease_seconds
        self._deadline_set = 0.0

    def set_deadline(self, *, force: bool = False) -> None:
        """Keep statement and lock deadlines below what is left of the lease."""
        now = time.monotonic()
        if not force and now - self._deadline_set < _REFRESH_SECONDS:
            return
        left = self._lease_seconds() * _DEADLINE_SHARE
        if left <= 0:
            raise TargetBusy("the lease is over", where=self.where)
        self._deadline_set = now
        wait = f"{max(int(left * 1000), 1)}ms"
        self.connection.execute(
            "SELECT set_config('statement_timeout', %s, true), "
            "set_config('lock_timeout', %s, true)",
            (wait, wait),
        )

    def run(self, statement: str) -> psycopg.Cursor[Any]:
        """Run a statement without parameters, whose names may therefore hold percent signs."""
        self.set_deadline()
        return self.connection.execute(statement.encode())

    def guarded(self, statement: Callable[[], None]) -> None:
        """Run under a savepoint. Raises RowRefused when a row's data is the trouble."""
        try:
            with self.connection.transaction():
                statement()
        except psycopg.Error as error:
            problem: WriteProblem | None = refusal(error)
            if problem is None:
                raise translate(error.sqlstate, self.where) from error
            raise RowRefused(problem) from error
