"""The statements that write a batch by the keys it names, inside its transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext

import pyarrow as pa

from apps.connectors.base import Operation, WriteProblem, WriteStatus
from apps.connectors.exchanging import Exchange, Vacancy, write_updates
from apps.connectors.mysql.connection import quote
from apps.connectors.mysql.reading import literals
from apps.connectors.mysql.staging import Stage
from apps.connectors.mysql.surroundings import loose_keys, on_update
from apps.connectors.mysql.target import Target
from apps.connectors.mysql.types import Column
from apps.connectors.returning import Found
from apps.connectors.sql_returning import addresses
from apps.connectors.sql_writing import (
    NOT_WRITTEN,
    PreparedBatch,
    RowRefused,
    judge,
    rejected,
    write_isolating,
)

TOO_LARGE = rejected(
    "record.too_long", "The record is larger than the server's 'max_allowed_packet'."
)
_UNREADABLE = WriteProblem(WriteStatus.STALE, "record.malformed", "The record is unreadable.")


def stored_image(target: Target, after: pa.Table) -> pa.Table:
    """What these values read back as, once stored."""
    columns = target.table.column_list(after.column_names)
    return pa.table({column.name: column.stored(after.column(column.name)) for column in columns})


class BatchWriter:
    """One batch. Made outside of the transaction, because it makes temporary tables."""

    def __init__(self, target: Target, prepared: PreparedBatch, *, looks_up: bool) -> None:
        self._target = target
        self._prepared = prepared
        self._keys = target.table.column_list(prepared.key.column_names)
        self._after = target.table.column_list(prepared.after.column_names)
        keys = [(f"k{i}", column) for i, column in enumerate(self._keys)]
        after = [(f"a{i}", column) for i, column in enumerate(self._after)]
        self._stage = Stage(target, "lockstep_stage", [*keys, *after])
        self._lookup = Stage(target, "lockstep_keys", keys) if looks_up else None

    def write(self) -> None:
        """Stage the pending changes and write them."""
        prepared = self._prepared
        pending = prepared.pending()
        rows = pa.array(pending, pa.int64())
        tables = (prepared.key.take(rows), prepared.after.take(rows))
        too_large = self._stage.fill(pending, [c for table in tables for c in table.columns])
        for row in too_large:
            prepared.settle(row, TOO_LARGE)
        pending = prepared.pending()
        if not pending:
            return
        unique = self._target.table.is_unique(prepared.key.column_names)
        if prepared.operation is Operation.INSERT and unique and self._insert_at_once():
            return
        self._judge()
        self._stage.discard(sorted(prepared.exceptions))
        for rows in self._in_turn():
            if prepared.operation is Operation.UPDATE:
                schema = self._target.table.schema
                write_updates(prepared, schema, self._attempt, self._exchange(), rows)
            else:
                write_isolating(prepared, self._attempt, rows)

    def _exchange(self) -> Exchange:
        return Exchange(
            self._target.scope,
            self._vacate,
            self._holds,
            self._update_one,
            lambda: loose_keys(self._target),
            lambda: on_update(self._target),
        )

    def _vacate(self, vacancy: Vacancy) -> None:
        column = self._target.table.columns[vacancy.field.name]
        value = column.staged(_literal(vacancy))
        with self._target.refusing():
            self._target.run(
                f"UPDATE {self._target.name} t JOIN {self._stage.name} s ON {self._match()} "
                f"SET t.{quote(column.name)} = {value} WHERE s.n = {vacancy.row}"
            )

    def _holds(self, vacancy: Vacancy) -> bool:
        column = self._target.table.columns[vacancy.field.name]
        found = self._target.fetch(
            f"SELECT t.{quote(column.name)} <=> {column.staged(_literal(vacancy))} "
            f"FROM {self._stage.name} s STRAIGHT_JOIN {self._target.name} t ON {self._match()} "
            f"WHERE s.n = {vacancy.row}"
        )
        return bool(found) and int(found[0][0]) == 1

    def _update_one(self, row: int) -> None:
        """A row that is to be written differs from what it is: the server counts it."""
        with self._target.refusing():
            ((names, rows),) = self._prepared.alike([row])
            if self._target.run(self._statement(names, rows)) != 1:
                raise RowRefused(NOT_WRITTEN)

    def _in_turn(self) -> Iterator[list[int]]:
        """The pending rows in parts, each of which one statement can write.

        A DELETE of several tables has no ORDER BY, so it deletes one generation of records that
        refer to one another.
        """
        pending = self._prepared.pending()
        if self._prepared.operation is not Operation.DELETE or not self._prepared.levels:
            yield pending
            return
        left = set(pending)
        for level in self._prepared.levels:
            yield [row for row in level if row in left]

    def _insert_at_once(self) -> bool:
        try:
            self._attempt(self._prepared.pending())
        except RowRefused:
            return False
        return True

    def _attempt(self, rows: Sequence[int]) -> None:
        """Write a range of rows. Raises RowRefused when a row's data is the trouble."""
        parts = self._prepared.alike(rows)
        with self._target.scope() if len(parts) > 1 else nullcontext():
            for names, part in parts:
                with self._target.refusing():
                    self._target.run(self._statement(names, part))

    def _statement(self, names: Sequence[str], rows: Sequence[int]) -> str:
        """The statement that writes these fields of a range of staged rows."""
        target, stage = self._target.name, self._stage.name
        chosen = f"s.n BETWEEN {rows[0]} AND {rows[-1]}"
        if self._prepared.operation is Operation.INSERT:
            return insert_statement(target, self._after, stage, chosen)
        if self._prepared.operation is Operation.DELETE:
            return f"DELETE t FROM {target} t JOIN {stage} s ON {self._match()} WHERE {chosen}"
        values = ", ".join(
            f"t.{quote(column.name)} = {column.staged(f's.a{i}')}"
            for i, column in enumerate(self._after)
            if column.name in names
        )
        return f"UPDATE {target} t JOIN {stage} s ON {self._match()} SET {values} WHERE {chosen}"

    def _match(self) -> str:
        return " AND ".join(column.match(f"s.k{i}") for i, column in enumerate(self._keys))

    def _judge(self) -> None:
        prepared, target = self._prepared, self._target
        names = list(dict.fromkeys([*prepared.before.column_names, *prepared.after.column_names]))
        rows = target.fetch(
            f"SELECT s.n{target.read_list(names)} FROM {self._stage.name} s "
            f"STRAIGHT_JOIN {target.name} t ON {self._match()} FOR UPDATE"
        )
        found = target.found(rows, names)
        for row in found.unreadable:
            prepared.settle(row, _UNREADABLE)
        judge(prepared, found.records, stored_image(target, prepared.after))

    def read_back(self, rows: Sequence[int], names: Sequence[str]) -> Found:
        """The records of these changes as they are now."""
        if self._lookup is None:
            raise RuntimeError("nothing was to be looked up")
        keys = addresses(self._prepared).take(pa.array(rows, pa.int64()))
        return look_up(self._target, self._lookup, keys, rows, names)


def _literal(vacancy: Vacancy) -> str:
    """Its value as the server reads it."""
    return literals(vacancy.column)[0].as_py() or "NULL"


def insert_statement(target: str, after: Sequence[Column], stage: str, chosen: str) -> str:
    """The statement that inserts the chosen rows of a stage, in the order of their numbers."""
    names = ", ".join(quote(column.name) for column in after)
    values = ", ".join(column.staged(f"s.a{i}") for i, column in enumerate(after))
    return (
        f"INSERT INTO {target} ({names}) SELECT {values} FROM {stage} s WHERE {chosen} ORDER BY s.n"
    )


def look_up(
    target: Target, stage: Stage, keys: pa.Table, rows: Sequence[int], names: Sequence[str]
) -> Found:
    """The fields of the records that have these keys; `rows` numbers the keys."""
    stage.empty()
    stage.fill(rows, keys.columns)
    columns = target.table.column_list(keys.column_names)
    match = " AND ".join(column.match(f"s.k{i}") for i, column in enumerate(columns))
    found = target.fetch(
        f"SELECT s.n{target.read_list(names)} FROM {stage.name} s "
        f"STRAIGHT_JOIN {target.name} t ON {match}"
    )
    return target.found(found, names)
