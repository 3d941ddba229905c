"""Inserting records into a PostgreSQL table that gives them their keys.

The order in which INSERT ... RETURNING gives its rows is not promised, so it cannot say which
staged row got which key. Instead the key's own default (a sequence, gen_random_uuid()) is asked
in the stage, once per row, and the rows are inserted with those keys. Where a key has no default
that can be asked, or a trigger of the table puts another key in its place, the rows are inserted
one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from apps.connectors.base import ChangeBatch, WriteResult
from apps.connectors.postgresql.batches import between, conjunction
from apps.connectors.postgresql.connection import quote
from apps.connectors.postgresql.returning import read_by_text
from apps.connectors.postgresql.target import Target
from apps.connectors.postgresql.types import Column
from apps.connectors.returning import Found
from apps.connectors.sql_returning import (
    Hit,
    WriteAgain,
    judge_doubtful,
    judge_matches,
    refuse_missing_keys,
    result_of,
    write_and_read_back,
)
from apps.connectors.sql_writing import NOT_WRITTEN, PreparedBatch, RowRefused, write_isolating
from apps.connectors.types import Kind

Texts = tuple[str | None, ...]
_LOOSE = {Kind.JSON, Kind.ARRAY, Kind.FLOAT}
"""Kinds that not every table can be searched by: they may lack an operator that is hashable."""


def insert_assigned(
    target: Target, batch: ChangeBatch, prepared: PreparedBatch, returning: Sequence[str]
) -> WriteResult:
    """Insert the records that are not there yet; gives all their keys."""
    current = target.table.schema
    insert = _Insert(target, prepared)

    def write() -> None:
        insert.keys.clear()
        pending = prepared.pending()
        if not pending:
            return
        target.stage.fill(prepared, pending)
        if batch.match:
            insert.find_matches(batch.match)
        if batch.in_doubt:
            insert.find_doubtful()
        insert.write()

    names = list(dict.fromkeys([*current.key, *returning]))
    found = write_and_read_back(
        prepared, target.connection.transaction, write, lambda rows: insert.read_back(rows, names)
    )
    return result_of(prepared, found, current, returning=returning, key=current.key)


class _Insert:
    """One batch; `keys` has by change the texts of its record's key fields."""

    def __init__(self, target: Target, prepared: PreparedBatch) -> None:
        self._target = target
        self._prepared = prepared
        table = target.table
        self._after = table.column_list(prepared.after.column_names)
        self._places = {column.name: f"s.a{i}" for i, column in enumerate(self._after)}
        self._key = table.column_list(table.schema.key)
        self._given_by_target = [
            (column, f"k{index}")
            for index, column in enumerate(self._key)
            if column.name not in self._places
        ]
        self._one_by_one = not all(column.default for column, _ in self._given_by_target)
        self.keys: dict[int, Texts] = {}

    def find_matches(self, names: Sequence[str]) -> None:
        """Settle the changes for whose match fields there is a record."""
        columns = self._target.table.column_list(names)
        found = self._search([column.match(self._places[column.name]) for column in columns])
        self._take(judge_matches(self._prepared, found))

    def find_doubtful(self) -> None:
        """Settle the changes that a record equals already."""
        self._target.stage.discard(sorted(self._prepared.exceptions))
        after = self._prepared.after
        narrow = [
            column.match(self._places[column.name])
            for column in self._after
            if column.type.kind not in _LOOSE and not after.column(column.name).null_count
        ]
        self._take(judge_doubtful(self._prepared, self._search([*narrow, self._equal()])))

    def _take(self, already: dict[int, Texts]) -> None:
        self.keys |= already

    def _equal(self) -> str:
        return conjunction(column.same(self._places[column.name]) for column in self._after)

    def _search(self, conditions: Sequence[str]) -> list[Hit[Texts]]:
        key = "".join(f", t.{quote(column.name)}::text" for column in self._key)
        found = self._target.run(
            f"SELECT s.n, {self._equal()}{key} FROM {self._target.stage.name} s "
            f"JOIN {self._target.name} t ON {conjunction(conditions)} FOR NO KEY UPDATE OF t"
        )
        return [(row[0], row[2:], row[1]) for row in found]

    def write(self) -> None:
        """Insert the pending changes."""
        pending = self._prepared.pending()
        if not pending:
            return
        self._target.stage.discard(sorted(self._prepared.exceptions))
        if not self._one_by_one and not self._ask_defaults():
            self._one_by_one = True
        insert = self._insert_single if self._one_by_one else self._insert_asked
        write_isolating(self._prepared, insert, pending)

    def _ask_defaults(self) -> bool:
        """Let the keys' defaults give each staged row its key. False when they may not be asked."""
        values = ", ".join(
            f"{place} = ({column.default})::text" for column, place in self._given_by_target
        )
        statement = f"UPDATE {self._target.stage.name} s SET {values}"
        try:
            with self._target.connection.transaction():
                if values:
                    self._target.run(statement)
        except psycopg.errors.InsufficientPrivilege:
            return False
        places = [
            self._places.get(column.name, f"s.k{index}") for index, column in enumerate(self._key)
        ]
        rows = self._target.run(f"SELECT s.n, {', '.join(places)} FROM {self._target.stage.name} s")
        self.keys |= {row[0]: row[1:] for row in rows}
        return True

    def _insert_asked(self, rows: Sequence[int]) -> None:
        """Insert rows whose keys are in the stage."""
        key = [(column, column.staged(f"s.{place}")) for column, place in self._given_by_target]

        def insert() -> None:
            if self._run(rows, key).rowcount != len(rows):
                raise RowRefused(NOT_WRITTEN)

        self._target.guarded(insert)

    def _insert_single(self, rows: Sequence[int]) -> None:
        """Insert rows one by one; the statement of each says its key."""
        key = ", ".join(f"{quote(column.name)}::text" for column in self._key)
        written: dict[int, Texts] = {}

        def insert() -> None:
            for row in rows:
                given = self._run([row], [], f" RETURNING {key}").fetchall()
                if not given:
                    raise RowRefused(NOT_WRITTEN)
                written[row] = given[0]

        self._target.guarded(insert)
        self.keys |= written

    def _run(
        self, rows: Sequence[int], key: Sequence[tuple[Column, str]], returning: str = ""
    ) -> psycopg.Cursor[Any]:
        given = [(column, column.staged(self._places[column.name])) for column in self._after]
        columns = [*key, *given]
        override = any(column.identity_always for column, _ in columns)
        return self._target.run(
            f"INSERT INTO {self._target.name} "
            f"({', '.join(quote(column.name) for column, _ in columns)}) "
            f"{'OVERRIDING SYSTEM VALUE ' if override else ''}"
            f"SELECT {', '.join(value for _, value in columns)} "
            f"FROM {self._target.stage.name} s WHERE {between(rows)}{returning}"
        )

    def read_back(self, rows: Sequence[int], names: Sequence[str]) -> Found:
        """The records as they are; raises WriteAgain where a trigger chose other keys."""
        texts = [[self.keys[row][place] for row in rows] for place in range(len(self._key))]
        key = [column.name for column in self._key]
        found = refuse_missing_keys(read_by_text(self._target, key, texts, rows, names), key)
        written = [row for row in rows if row not in self._prepared.exceptions]
        if not self._one_by_one and set(written) - {*found.numbers, *found.unreadable}:
            self._one_by_one = True
            raise WriteAgain
        return found
