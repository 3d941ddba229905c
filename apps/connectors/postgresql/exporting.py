"""Handing a PostgreSQL table on as a binary COPY.

Renames and casts are part of the query, so that nobody touches the bytes.
"""

from __future__ import annotations

import select
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pyarrow as pa
from psycopg.pq import ExecStatus

from apps.connectors.base import (
    DatasetSchema,
    Export,
    ExportPiece,
    LoadRefused,
    WireFormat,
)
from apps.connectors.errors import SchemaMismatch
from apps.connectors.postgresql.connection import (
    PostgresqlSettings,
    connect,
    quote,
    refusal,
    translate,
    translated,
)
from apps.connectors.postgresql.discovery import Table, load_table
from apps.connectors.postgresql.export_keys import SEEN_TYPES, BinaryKeys, ExportKeys, unseen
from apps.connectors.postgresql.wire import wire_columns
from apps.connectors.prefetching import prefetched
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind

_PIECE_BYTES = 1024 * 1024
_PIECES_AHEAD = 6
_CANCEL_SECONDS = 5.0


class PostgresqlExport(Export):
    def __init__(
        self,
        settings: PostgresqlSettings,
        dataset: DatasetSchema,
        fields: Sequence[str],
        wire: WireFormat,
        *,
        key: Sequence[str],
    ) -> None:
        if tuple(fields[: len(key)]) != tuple(key):
            raise ValueError(f"the fields {list(fields)} do not begin with the key {list(key)}")
        self._settings = settings
        self._dataset = dataset
        self._fields = tuple(fields)
        self._key = tuple(key)
        self._wanted = wire.columns
        self._connection: psycopg.Connection[Any] | None = None
        self._keys: ExportKeys | None = None
        self._statement = ""

    def __enter__(self) -> PostgresqlExport:
        connection = connect(self._settings)
        name = self._dataset.name
        try:
            with translated(name):
                connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
                table = load_table(connection, self._settings.schema_name, name)
                self._statement = self._select(connection, table)
                self._keys = self._key_cutter(connection, table)
        except SchemaMismatch:
            connection.close()
            raise LoadRefused("the source gives no snapshot") from None
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _select(self, connection: psycopg.Connection[Any], table: Table) -> str:
        """The query that gives the fields as they are wanted. Raises LoadRefused."""
        find_fields(table.schema, self._fields)
        values = []
        columns = wire_columns(connection, table.column_list(self._fields))
        for column, wanted in zip(columns, self._wanted, strict=True):
            value = column.source(wanted)
            if value is None:
                raise LoadRefused(f"the field '{column.column.name}' has no exact form as {wanted}")
            values.append(value)
        return f"COPY (SELECT {', '.join(values)} FROM {self._from}) TO STDOUT (FORMAT binary)"

    def _key_cutter(self, connection: psycopg.Connection[Any], table: Table) -> ExportKeys:
        columns = wire_columns(connection, table.column_list(self._key))
        for column in columns:
            if column.column.native.name not in SEEN_TYPES:
                raise unseen(column.column.name)
        return BinaryKeys(find_fields(table.schema, self._key), self._wanted[: len(columns)])

    def greatest(self, field: str) -> pa.RecordBatch:
        if self._connection is None:
            raise RuntimeError("the export has not been entered")
        name, kind = f"t.{quote(field)}", self._dataset.field(field).type
        value = f'{name}::text COLLATE "C"' if kind.kind is Kind.TEXT else name
        with translated(self._dataset.name):
            try:
                found = self._connection.execute(f"SELECT max({value}) FROM {self._from}".encode())
                greatest = (found.fetchone() or (None,))[0]
            except psycopg.DataError:
                raise LoadRefused(f"a value of the field '{field}' has no neutral form") from None
        if greatest is not None and kind.is_wide_decimal:
            greatest = format(greatest, "f")
        values = pa.array([greatest], kind.arrow)
        return pa.RecordBatch.from_arrays([values], names=[field])

    @property
    def _from(self) -> str:
        return f"{quote(self._settings.schema_name)}.{quote(self._dataset.name)} AS t"

    def pieces(self) -> Iterator[ExportPiece]:
        connection, keys = self._connection, self._keys
        if connection is None or keys is None:
            raise RuntimeError("the export has not been entered")

        def interrupt() -> None:
            connection.cancel_safe(timeout=_CANCEL_SECONDS)

        try:
            for data, sizes in prefetched(
                _copy_out(connection, self._statement), depth=_PIECES_AHEAD, interrupt=interrupt
            ):
                yield ExportPiece(data, keys.cut(data, sizes))
        except psycopg.Error as error:
            if refusal(error) is not None:
                raise LoadRefused("a value of the source has no exact form") from None
            raise translate(error.sqlstate, self._dataset.name) from None


def _copy_out(
    connection: psycopg.Connection[Any], statement: str
) -> Iterator[tuple[bytes, list[int]]]:
    """What a COPY TO STDOUT gives, many rows at a time, and the bytes of each row.

    The driver's own loop over rows takes half as much time again as asking libpq directly. A call
    that waits for the next row would keep every other thread waiting, so the socket is asked.
    """
    libpq = connection.pgconn
    started = libpq.exec_(statement.encode())
    if started.status != ExecStatus.COPY_OUT:
        raise psycopg.errors.error_from_result(started)
    socket = select.poll()
    socket.register(libpq.socket, select.POLLIN)
    rows: list[memoryview] = []
    sizes: list[int] = []
    held = 0
    while (answer := libpq.get_copy_data(1))[0] >= 0:
        size, row = answer
        if size == 0:
            socket.poll()
            libpq.consume_input()
            continue
        rows.append(row)
        sizes.append(size)
        held += size
        if held >= _PIECE_BYTES:
            yield b"".join(rows), sizes
            rows, sizes, held = [], [], 0
    yield b"".join(rows), sizes
    while (result := libpq.get_result()) is not None:
        if result.status != ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
