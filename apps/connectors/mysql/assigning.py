"""Inserting records into a MySQL or MariaDB table that gives them their keys.

MariaDB's INSERT ... SELECT ... ORDER BY ... RETURNING gives its rows as it inserts them, but does
not promise it. So each returned row is compared with the one that was sent: when all are equal,
in this order, every key is known (rows that are equal may swap their keys). Where a trigger or a
default makes them differ, and on MySQL, which has no RETURNING, the rows are inserted one by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from apps.connectors.base import ChangeBatch, WriteResult
from apps.connectors.errors import KeyMissing
from apps.connectors.mysql.batches import TOO_LARGE, insert_statement, look_up, stored_image
from apps.connectors.mysql.staging import Stage
from apps.connectors.mysql.target import Target
from apps.connectors.returning import Found
from apps.connectors.sql import find_fields
from apps.connectors.sql_returning import (
    Hit,
    WriteAgain,
    complete_rows,
    judge_doubtful,
    judge_matches,
    refuse_missing_keys,
    result_of,
    write_and_read_back,
)
from apps.connectors.sql_writing import (
    NOT_WRITTEN,
    PreparedBatch,
    RowRefused,
    equal_rows,
    write_isolating,
)

Key = tuple[Any, ...]
"""The values of a record's key fields, as Arrow gives them to Python."""


class AssignedInsert:
    """One batch. Made outside of the transaction, because it makes temporary tables."""

    def __init__(
        self,
        target: Target,
        batch: ChangeBatch,
        prepared: PreparedBatch,
        returning: Sequence[str],
    ) -> None:
        self._target = target
        self._batch = batch
        self._prepared = prepared
        self._returning = returning
        self._key = target.table.schema.key
        self._after = target.table.column_list(prepared.after.column_names)
        self._stored = stored_image(target, prepared.after)
        _check_key(target, prepared.after.column_names)
        self._one_by_one = not target.is_mariadb
        keys = [(f"k{i}", column) for i, column in enumerate(target.table.column_list(self._key))]
        after = [(f"a{i}", column) for i, column in enumerate(self._after)]
        self._stage = Stage(target, "lockstep_stage", after)
        self._lookup = Stage(target, "lockstep_keys", keys)
        self._keys: dict[int, Key] = {}

    def apply(self) -> WriteResult:
        """Insert the records that are not there yet, inside a transaction; gives all keys."""
        prepared, current = self._prepared, self._target.table.schema
        found = write_and_read_back(prepared, self._target.savepoint, self._write, self._read_back)
        return result_of(prepared, found, current, returning=self._returning, key=self._key)

    def _write(self) -> None:
        self._keys.clear()
        prepared = self._prepared
        pending = prepared.pending()
        after = prepared.after.take(pa.array(pending, pa.int64()))
        for row in self._stage.fill(pending, after.columns):
            prepared.settle(row, TOO_LARGE)
        if self._batch.match:
            self._find_matches(self._batch.match)
        if self._batch.in_doubt:
            self._find_doubtful()
        self._stage.discard(sorted(prepared.exceptions))
        if self._one_by_one:
            self._insert_single(prepared.pending())
        else:
            write_isolating(prepared, self._insert_together, prepared.pending())

    def _find_matches(self, names: Sequence[str]) -> None:
        places = {column.name: f"s.a{i}" for i, column in enumerate(self._after)}
        columns = self._target.table.column_list(names)
        match = " AND ".join(column.match(places[column.name]) for column in columns)
        complete = set(complete_rows(self._prepared, names))
        hits = [hit for hit in self._search(match) if hit[0] in complete]
        self._keys |= judge_matches(self._prepared, hits)

    def _find_doubtful(self) -> None:
        self._stage.discard(sorted(self._prepared.exceptions))
        if self._target.is_mariadb:
            self._target.run("SET SESSION join_cache_level = 4")  # hash joins, for want of an index
        conditions = [
            column.may_be(f"s.a{i}", nullable=bool(self._stored.column(i).null_count))
            for i, column in enumerate(self._after)
        ]
        self._keys |= judge_doubtful(self._prepared, self._search(" AND ".join(conditions)))

    def _search(self, condition: str) -> list[Hit[Key]]:
        target = self._target
        after = self._prepared.after.column_names
        names = list(dict.fromkeys([*self._key, *after]))
        rows = target.fetch(
            f"SELECT s.n{target.read_list(names)} FROM {self._stage.name} s "
            f"JOIN {target.name} t ON {condition} FOR UPDATE"
        )
        found = target.found(rows, names)
        wanted = self._stored.take(pa.array(found.numbers, pa.int64()))
        same = equal_rows(wanted, found.records.select(after))
        keys = [tuple(row.values()) for row in found.records.select(list(self._key)).to_pylist()]
        hits = list(zip(found.numbers, keys, same, strict=True))
        return [*hits, *((row, (), False) for row in found.unreadable)]

    def _insert_together(self, rows: Sequence[int]) -> None:
        """Insert a range of rows. Raises WriteAgain when their keys cannot be told apart."""
        target = self._target
        after = self._prepared.after.column_names
        names = list(dict.fromkeys([*self._key, *after]))
        with target.refusing():
            given = target.fetch(self._statement(rows, names))
        found = target.found([(place, *row) for place, row in enumerate(given)], names)
        sent = self._stored.take(pa.array(rows, pa.int64()))
        if found.numbers != list(range(len(rows))) or not all(
            equal_rows(sent, found.records.select(after))
        ):
            self._one_by_one = True
            raise WriteAgain
        self._note(rows, found)

    def _insert_single(self, rows: Sequence[int]) -> None:
        """Insert rows one by one; the statement of each says its key."""
        for row in rows:
            try:
                with self._target.refusing():
                    self._keys[row] = self._insert_one(row)
            except RowRefused as refusal:
                self._prepared.settle(row, refusal.problem)

    def _insert_one(self, row: int) -> Key:
        target = self._target
        if not target.is_mariadb:
            if target.run(self._statement([row])) != 1:
                raise RowRefused(NOT_WRITTEN)
            return tuple(self._given(row, name) for name in self._key)
        given = target.fetch(self._statement([row], self._key))
        found = target.found([(row, *values) for values in given], self._key)
        if found.records.num_rows != 1:
            raise RowRefused(NOT_WRITTEN)
        return tuple(found.records.select(list(self._key)).to_pylist()[0].values())

    def _given(self, row: int, name: str) -> Any:
        if name in self._stored.column_names:
            return self._stored.column(name)[row].as_py()
        return self._target.last_number()

    def _statement(self, rows: Sequence[int], names: Sequence[str] = ()) -> str:
        chosen = f"s.n BETWEEN {rows[0]} AND {rows[-1]}"
        insert = insert_statement(self._target.name, self._after, self._stage.name, chosen)
        listed = self._target.read_list(names, "").removeprefix(", ")
        return f"{insert} RETURNING {listed}" if names else insert

    def _note(self, rows: Sequence[int], found: Found) -> None:
        keys = found.records.select(list(self._key)).to_pylist()
        self._keys |= {row: tuple(key.values()) for row, key in zip(rows, keys, strict=True)}

    def _read_back(self, rows: Sequence[int]) -> Found:
        fields = find_fields(self._target.table.schema, self._key)
        columns = [
            pa.chunked_array([pa.array([self._keys[row][i] for row in rows], field.type.arrow)])
            for i, field in enumerate(fields)
        ]
        keys = pa.table(columns, names=list(self._key))
        names = list(dict.fromkeys([*self._key, *self._returning]))
        return refuse_missing_keys(
            look_up(self._target, self._lookup, keys, rows, names), self._key
        )


def _check_key(target: Target, given: Sequence[str]) -> None:
    """Without RETURNING, only the number of an AUTO_INCREMENT field is known."""
    missing = [name for name in target.table.schema.key if name not in given]
    if target.is_mariadb or not missing:
        return
    if len(missing) > 1 or not target.table.schema.field(missing[0]).server_assigned:
        raise KeyMissing(
            "this server does not say which key it gives, except for AUTO_INCREMENT",
            where=target.where,
            remedy="Map the key, or make it an AUTO_INCREMENT field.",
        )
