"""The statements that write a batch by the keys it names, inside its transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import psycopg.sql
import pyarrow as pa

from apps.connectors.base import Operation
from apps.connectors.errors import TargetBusy
from apps.connectors.exchanging import Exchange, Vacancy, write_updates
from apps.connectors.postgresql.connection import quote, refusal
from apps.connectors.postgresql.sequences import advance_sequence
from apps.connectors.postgresql.staging import staged
from apps.connectors.postgresql.surroundings import loose_keys, on_update
from apps.connectors.postgresql.target import Target
from apps.connectors.sql_writing import (
    ALREADY,
    AMBIGUOUS,
    DUPLICATE,
    GONE,
    NOT_WRITTEN,
    STALE,
    TAKEN,
    PreparedBatch,
    RowRefused,
    write_isolating,
)

_NO_ARBITER = "55000"  # a deferrable unique constraint cannot serve ON CONFLICT


class BatchWriter:
    """The statements of one batch inside its transaction."""

    def __init__(self, target: Target, prepared: PreparedBatch, *, holds: bool) -> None:
        """holds: records that are looked at stay as they are until the commit, which takes the
        right to update them.
        """
        self._target = target
        self._lock = " FOR NO KEY UPDATE OF t" if holds else ""
        self._prepared = prepared
        table = target.table
        self._keys = table.column_list(prepared.key.column_names)
        self._before = table.column_list(prepared.before.column_names)
        self._after = table.column_list(prepared.after.column_names)
        self._match = " AND ".join(c.match(f"s.k{i}") for i, c in enumerate(self._keys))
        self._join = f"{target.stage.name} s JOIN {target.name} t ON {self._match}"
        self._is_unique = table.is_unique(prepared.key.column_names)
        self._written: set[int] = set()

    def write(self, rows: list[int]) -> None:
        if self._prepared.operation is Operation.INSERT:
            self._insert(rows)
            return
        if not self._is_unique:
            self._settle_ambiguous(rows)
            rows = self._prepared.pending()
        if self._prepared.operation is Operation.UPDATE:
            self._update(rows)
        else:
            statement = self._delete_statement()
            write_isolating(self._prepared, lambda part: self._change([(statement, part)]), rows)
        left = [row for row in self._prepared.pending() if row not in self._written]
        if left:
            self._judge_unchanged(left)

    def _update(self, rows: list[int]) -> None:
        exchange = Exchange(
            self._exchanging,
            self._vacate,
            self._holds,
            self._update_one,
            lambda: loose_keys(self._target),
            lambda: on_update(self._target),
        )
        schema = self._target.table.schema
        write_updates(self._prepared, schema, self._update_part, exchange, rows)

    def _update_part(self, rows: Sequence[int]) -> None:
        self._change(
            [(self._update_statement(names), part) for names, part in self._prepared.alike(rows)]
        )

    def _update_one(self, row: int) -> None:
        self._update_part([row])
        if row not in self._written:
            is_as_before = self._look(self._unchanged(), f"s.n = {row}") == [(row, True)]
            raise RowRefused(NOT_WRITTEN if is_as_before else STALE)

    @contextmanager
    def _exchanging(self) -> Iterator[None]:
        written = set(self._written)
        try:
            with self._target.connection.transaction():
                yield
        except BaseException:
            self._written = written
            raise

    def _vacate(self, vacancy: Vacancy) -> None:
        """The stage takes what the record holds meanwhile for its values before.

        But for those that it does not write: a trigger that alters them would have the last word.
        """
        column = self._before[self._place(vacancy)]
        names = self._prepared.written(vacancy.row)
        held = ", ".join(
            f"b{i} = t.{quote(each.name)}::text"
            for i, each in enumerate(self._before)
            if each.name in names
        )
        stage, table, chosen = self._target.stage.name, self._target.name, f"s.n = {vacancy.row}"

        def vacate() -> None:
            done = self._target.run(
                f"UPDATE {table} t SET {quote(column.name)} = "
                f"{column.staged(self._literal(vacancy))} FROM {stage} s "
                f"WHERE {self._match} AND {self._unchanged()} AND {chosen}"
            )
            if done.rowcount != 1:
                raise RowRefused(NOT_WRITTEN)
            self._target.run(
                f"UPDATE {stage} s SET {held} FROM {table} t WHERE {self._match} AND {chosen}"
            )
            if self._look(self._unchanged(), chosen) != [(vacancy.row, True)]:
                raise RowRefused(NOT_WRITTEN)

        self._target.guarded(vacate)

    def _holds(self, vacancy: Vacancy) -> bool:
        same = self._before[self._place(vacancy)].same(self._literal(vacancy))
        return any(found for _, found in self._look(same, f"s.n = {vacancy.row}"))

    def _place(self, vacancy: Vacancy) -> int:
        names: list[str] = self._prepared.before.column_names
        return names.index(vacancy.field.name)

    def _literal(self, vacancy: Vacancy) -> str:
        """As it would stand in the stage."""
        text = staged(vacancy.column).cast(pa.string())[0].as_py()
        return psycopg.sql.Literal(text).as_string(self._target.connection)

    def _insert(self, rows: list[int]) -> None:
        if not (self._is_unique and self._insert_at_once(rows)):
            self._settle_existing()
            rows = self._prepared.pending()
            self._target.stage.discard(sorted(self._prepared.exceptions))
            write_isolating(self._prepared, self._insert_part, rows)
        self._advance_sequences()

    def _insert_at_once(self, rows: list[int]) -> bool:
        """Insert all rows; leave nothing and say False when even one of them was not new."""
        count = -1
        try:
            with self._target.connection.transaction():
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
            f"INSERT INTO {self._target.name} ({names}) "
            f"{'OVERRIDING SYSTEM VALUE ' if override else ''}"
            f"SELECT {values} FROM {self._target.stage.name} s WHERE {between(rows)}"
            f"{' ON CONFLICT DO NOTHING' if skip_conflicts else ''}"
        )
        return self._target.run(statement).rowcount

    def _settle_existing(self) -> None:
        same = conjunction(column.same(f"s.a{i}") for i, column in enumerate(self._after))
        equal: dict[int, bool] = {}
        for row, is_same in self._look(same):
            equal[row] = equal.get(row, False) or is_same
        for row, is_same in equal.items():
            self._prepared.settle(row, ALREADY if is_same else TAKEN)

    def _insert_part(self, rows: Sequence[int]) -> None:
        def insert() -> None:
            try:
                with self._target.connection.transaction():
                    count = self._run_insert(rows)
            except psycopg.errors.ObjectNotInPrerequisiteState:
                count = self._run_insert(rows, skip_conflicts=False)
            if count != len(rows):
                self._settle_conflicting(rows, count)

        self._target.guarded(insert)

    def _settle_conflicting(self, rows: Sequence[int], inserted: int) -> None:
        """Rows that were skipped although their key was free clash in another unique key."""
        absent = self._target.run(
            f"SELECT s.n FROM {self._target.stage.name} s WHERE {between(rows)} "
            f"AND NOT EXISTS (SELECT 1 FROM {self._target.name} t WHERE {self._match})"
        ).fetchall()
        if len(rows) - len(absent) != inserted:
            raise TargetBusy(
                "another writer inserted the same keys at the same time", where=self._target.where
            )
        for (row,) in absent:
            self._prepared.settle(row, DUPLICATE)

    def _settle_ambiguous(self, rows: list[int]) -> None:
        found = self._target.run(f"SELECT s.n FROM {self._join} GROUP BY s.n HAVING count(*) > 1")
        ambiguous = [row for (row,) in found]
        for row in ambiguous:
            self._prepared.settle(row, AMBIGUOUS)
        self._target.stage.discard(ambiguous)

    def _unchanged(self) -> str:
        return conjunction(column.same(f"s.b{i}") for i, column in enumerate(self._before))

    def _update_statement(self, names: Sequence[str]) -> str:
        values = ", ".join(
            f"{quote(column.name)} = {column.staged(f's.a{i}')}"
            for i, column in enumerate(self._after)
            if column.name in names
        )
        return (
            f"UPDATE {self._target.name} t SET {values} FROM {self._target.stage.name} s "
            f"WHERE {self._match} AND {self._unchanged()}"
        )

    def _delete_statement(self) -> str:
        return (
            f"DELETE FROM {self._target.name} t USING {self._target.stage.name} s "
            f"WHERE {self._match} AND {self._unchanged()}"
        )

    def _change(self, statements: Sequence[tuple[str, Sequence[int]]]) -> None:
        """Run statements, each for some rows, all of them or none."""
        written: list[int] = []

        def change() -> None:
            for statement, rows in statements:
                done = self._target.run(f"{statement} AND {between(rows)} RETURNING s.n")
                written.extend(row for (row,) in done)

        self._target.guarded(change)
        self._written.update(written)

    def _judge_unchanged(self, rows: list[int]) -> None:
        """Tell apart the rows that the statement passed over."""
        is_update = self._prepared.operation is Operation.UPDATE
        same = conjunction(column.same(f"s.a{i}") for i, column in enumerate(self._after))
        chosen = f"s.n = ANY('{{{','.join(map(str, rows))}}}'::int[])"
        found: dict[int, bool] = {}
        for row, is_same in self._look(same if is_update else "false", chosen):
            found[row] = found.get(row, True) and is_same
        for row in rows:
            if row not in found:
                self._prepared.settle(row, GONE if is_update else ALREADY)
            else:
                self._prepared.settle(row, ALREADY if found[row] else STALE)

    def _look(self, condition: str, chosen: str = "true") -> list[tuple[int, bool]]:
        """Whether each record of the chosen rows fulfils a condition."""
        found: list[tuple[int, bool]] = self._target.run(
            f"SELECT s.n, {condition} FROM {self._join} WHERE {chosen}{self._lock}"
        ).fetchall()
        return found

    def _advance_sequences(self) -> None:
        """Move sequences past the numbers just written, so that the next one given out is new."""
        fields = {field.name: field for field in self._target.table.schema.fields}
        for index, column in enumerate(self._after):
            if fields[column.name].server_assigned:
                highest = f"SELECT max(a{index}::bigint) FROM {self._target.stage.name}"
                advance_sequence(
                    self._target.connection,
                    self._target.run,
                    self._target.name,
                    column.name,
                    highest,
                )


def between(rows: Sequence[int]) -> str:
    return f"s.n BETWEEN {rows[0]} AND {rows[-1]}"


def conjunction(conditions: Any) -> str:
    return " AND ".join(conditions) or "true"
