"""Inserting records into a SQLite table that gives them their keys.

A record is known by its rowid (or, in a table without, by its primary key) from the statement
that inserts it, so that keys which a trigger fills in afterwards are found too.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pyarrow as pa

from apps.connectors.base import ChangeBatch, DatasetSchema, FieldSchema, WriteResult
from apps.connectors.returning import Found
from apps.connectors.sql import find_fields
from apps.connectors.sql_returning import (
    Hit,
    Row,
    complete_rows,
    found_records,
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
from apps.connectors.sqlite.connection import quote
from apps.connectors.sqlite.reading import KEYS_TABLE, key_match, stage_keys, stage_values, to_batch
from apps.connectors.sqlite.statements import (
    overruling,
    read_staged,
    refusing,
    savepoint,
)
from apps.connectors.sqlite.types import bound_values, has_text_affinity
from apps.connectors.types import Kind

_ROWID_NAMES = ("rowid", "_rowid_", "oid")
_LOOSE = {Kind.JSON, Kind.ARRAY, Kind.FLOAT}
"""Kinds whose equal values SQLite's own `=` may tell apart."""


def insert_assigned(
    connection: sqlite3.Connection,
    batch: ChangeBatch,
    prepared: PreparedBatch,
    current: DatasetSchema,
    returning: Sequence[str],
) -> WriteResult:
    """Insert the records that are not there yet; gives all their keys."""
    insert = _Insert(connection, prepared, current)

    def write() -> None:
        insert.addresses.clear()
        if batch.match:
            insert.find_matches(batch.match)
        if batch.in_doubt:
            insert.find_doubtful()
        insert.write()

    names = list(dict.fromkeys([*current.key, *returning]))
    found = write_and_read_back(
        prepared,
        lambda: savepoint(connection, "whole"),
        write,
        lambda rows: refuse_missing_keys(insert.read_back(rows, names), current.key),
    )
    return result_of(prepared, found, current, returning=returning, key=current.key)


class _Insert:
    """One batch; `addresses` says by change how SQLite knows its record."""

    def __init__(
        self, connection: sqlite3.Connection, prepared: PreparedBatch, current: DatasetSchema
    ) -> None:
        self._connection = connection
        self._prepared = prepared
        self._current = current
        self._after = find_fields(current, prepared.after.column_names)
        self._address = _address_columns(connection, current)
        self.addresses: dict[int, Row] = {}

    def find_matches(self, names: Sequence[str]) -> None:
        """Settle the changes for whose match fields there is a record."""
        complete = complete_rows(self._prepared, names)
        fields = find_fields(self._current, names)
        join = " AND ".join(key_match(field, f"s.k{i}") for i, field in enumerate(fields))
        self.addresses |= judge_matches(self._prepared, self._search(complete, fields, join))

    def find_doubtful(self) -> None:
        """Settle the changes that a record equals already."""
        pending = self._prepared.pending()
        fields = [field for field in self._after if _is_comparable(field)]
        join = " AND ".join(
            _same(field, f"s.k{i}", self._prepared.after.column(field.name))
            for i, field in enumerate(fields)
        )
        hits = self._search(pending, fields, join or "true")
        self.addresses |= judge_doubtful(self._prepared, hits)

    def _search(self, rows: list[int], fields: Sequence[FieldSchema], join: str) -> list[Hit[Row]]:
        """The records that are joined with these changes."""
        names = [field.name for field in fields]
        wanted = self._prepared.after.select(names).take(pa.array(rows, pa.int64()))
        stage_keys(self._connection, wanted, self._current, rows)
        columns = [*self._address, *(quote(field.name) for field in self._after)]
        listed = "".join(f", t.{column}" for column in columns)
        raw = self._connection.execute(
            f"SELECT s.n{listed} FROM {KEYS_TABLE} AS s "
            f"CROSS JOIN {quote(self._current.name)} AS t ON {join}"
        ).fetchall()
        width = 1 + len(self._address)
        found = found_records(
            range(len(raw)),
            [row[width:] for row in raw],
            lambda part: to_batch(part, self._after, self._current),
        )
        changes = pa.array([raw[place][0] for place in found.numbers], pa.int64())
        after = self._prepared.after
        same = equal_rows(after.take(changes), found.records.select(after.column_names))
        equal = {place for place, is_equal in zip(found.numbers, same, strict=True) if is_equal}
        return [(row[0], row[1:width], place in equal) for place, row in enumerate(raw)]

    def write(self) -> None:
        """Insert the pending changes one by one, because only so their keys are known."""
        columns = [
            bound_values(self._prepared.after.column(field.name), field) for field in self._after
        ]
        parameters = list(zip(*columns, strict=True))
        names = ", ".join(quote(field.name) for field in self._after)
        marks = ", ".join("?" for _ in self._after)
        statement = (
            f"INSERT {overruling(self._connection, self._current.name)}"
            f"INTO {quote(self._current.name)} ({names}) VALUES ({marks}) "
            f"RETURNING {', '.join(self._address)}"
        )

        def insert(rows: Sequence[int]) -> None:
            written: dict[int, Row] = {}
            with refusing(self._connection, self._current.name):
                for row in rows:
                    given = self._connection.execute(statement, parameters[row]).fetchall()
                    if not given:
                        raise RowRefused(NOT_WRITTEN)
                    written[row] = given[0]
            self.addresses |= written

        write_isolating(self._prepared, insert, self._prepared.pending())

    def read_back(self, rows: Sequence[int], names: Sequence[str]) -> Found:
        known = [self.addresses[row] for row in rows]
        columns = list(zip(*known, strict=True)) if known else [()] * len(self._address)
        stage_values(self._connection, rows, columns)
        join = " AND ".join(f"t.{name} IS s.k{i}" for i, name in enumerate(self._address))
        return read_staged(self._connection, self._current, join, names)


def _address_columns(connection: sqlite3.Connection, current: DatasetSchema) -> list[str]:
    taken = {name.lower() for name in current.field_names}
    for name in _ROWID_NAMES:
        if name not in taken:
            try:
                connection.execute(f"SELECT {name} FROM {quote(current.name)} LIMIT 0")
            except sqlite3.OperationalError:
                break  # a table WITHOUT ROWID
            return [name]
    return [quote(name) for name in current.key]


def _is_comparable(field: FieldSchema) -> bool:
    if field.type.kind is Kind.DECIMAL:
        return not has_text_affinity(field.native_type)
    return field.type.kind not in _LOOSE


def _same(field: FieldSchema, value: str, values: pa.ChunkedArray) -> str:
    """The condition that a record may have the value; by an index where no value is NULL."""
    match = key_match(field, value)
    if not values.null_count:
        return match
    return f"(({match}) OR (t.{quote(field.name)} IS NULL AND {value} IS NULL))"
