"""What a ReadRequest asks for, chosen in memory from the rows that a file holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import FieldSchema, KeyRange, RawRejection, ReadBatch, ReadRequest
from apps.connectors.errors import ConfigurationError, FieldMissing
from apps.connectors.files.conversion import identity
from apps.connectors.files.rows import Rows, rejection_of
from apps.connectors.types import Kind

_MAX_BATCH_BYTES = 32 << 20


class Selection:
    """Chooses rows and fields; keeps count of the limit."""

    def __init__(self, request: ReadRequest) -> None:
        self._request = request
        self._left = request.limit
        self._keys: pa.Array | None = None
        if request.keys is not None:
            self._key_fields = [self._field(name) for name in request.keys.column_names]
            self._keys = self._identities(request.keys)

    def _field(self, name: str) -> FieldSchema:
        try:
            return self._request.dataset.field(name)
        except KeyError:
            raise FieldMissing(
                f"there is no field '{name}'", where=self._request.dataset.name
            ) from None

    def _identities(self, keys: pa.Table) -> pa.Array:
        columns = []
        for field in self._key_fields:
            try:
                column = pc.cast(keys.column(field.name), field.type.arrow).combine_chunks()
            except pa.ArrowInvalid:
                raise ConfigurationError(
                    f"the keys asked for do not fit field '{field.name}' of type {field.type}",
                    where=self._request.dataset.name,
                ) from None
            columns.append(_flat(column))
        return identity(columns, [f.type for f in self._key_fields])

    @property
    def needed(self) -> list[FieldSchema]:
        """The fields to read: those asked for, those that choose, and the key for rejections."""
        request = self._request
        names = [*request.fields]
        if request.keys is not None:
            names += request.keys.column_names
        if request.cursor is not None:
            names.append(request.cursor.field)
        if isinstance(request.part, KeyRange):
            names += request.part.fields
        return [self._field(name) for name in dict.fromkeys(names)]

    @property
    def exhausted(self) -> bool:
        return self._left is not None and self._left <= 0

    def batches(self, rows: Rows) -> Iterator[ReadBatch]:
        """The chosen rows in batches of bounded size, and what was rejected."""
        rejected = [*rows.rejected, *self._misfits(rows)]
        request = self._request
        table = pa.RecordBatch.from_arrays(
            [_column(rows, self._field(name)) for name in request.fields],
            schema=pa.schema([(name, self._field(name).type.arrow) for name in request.fields]),
        )
        chosen = self._chosen(rows)
        if chosen is not None:
            table = table.filter(chosen)
        if self._left is not None:
            table = table.slice(0, max(self._left, 0))
            self._left -= table.num_rows
        pieces = _bounded(table, request.batch_rows)
        for number, piece in enumerate(pieces):
            yield ReadBatch(piece, tuple(rejected) if number == 0 else ())
        if rejected and not pieces:
            yield ReadBatch(table, tuple(rejected))

    def _misfits(self, rows: Rows) -> Iterator[RawRejection]:
        key = self._request.dataset.key
        known = bool(key) and all(name in rows.columns for name in key)
        for row in sorted(rows.misfits):
            yield rejection_of(rows, row, _key_values(rows, row, key) if known else None)

    def _chosen(self, rows: Rows) -> pa.Array | None:
        masks: list[pa.Array] = []
        if rows.misfits:
            masks.append(pa.array([row not in rows.misfits for row in range(rows.num_rows)]))
        request = self._request
        if self._keys is not None and rows.num_rows:
            columns = [rows.columns[f.name] for f in self._key_fields]
            found = identity(columns, [f.type for f in self._key_fields])
            masks.append(pc.is_in(found, value_set=self._keys))
        if request.cursor is not None and request.cursor.after is not None and rows.num_rows:
            masks.append(self._after_cursor(rows.columns[request.cursor.field]))
        if isinstance(request.part, KeyRange) and rows.num_rows:
            masks.extend(_in_range(rows.columns[request.part.fields[0]], request.part))
        return _all_of(masks)

    def _after_cursor(self, column: pa.Array) -> pa.Array:
        cursor = self._request.cursor
        field = self._field(cursor.field if cursor else "")
        after: Any = cursor.after if cursor else None
        if field.type.kind is Kind.TIMESTAMPTZ and isinstance(after, datetime):
            after = after if after.tzinfo else after.replace(tzinfo=UTC)
        try:
            bound = pa.scalar(after, field.type.arrow)
        except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
            raise ConfigurationError(
                f"the cursor value is not of type {field.type}", where=f"field '{field.name}'"
            ) from None
        return pc.fill_null(pc.greater_equal(column, bound), True)


def _in_range(column: pa.Array, part: KeyRange) -> list[pa.Array]:
    """Masks of the rows whose key of one field is in a range."""
    masks = []
    if part.lower is not None:
        masks.append(pc.fill_null(pc.greater_equal(column, part.lower[0]), False))
    if part.upper is not None:
        masks.append(pc.fill_null(pc.less(column, part.upper[0]), part.lower is None))
    return masks


def _key_values(rows: Rows, row: int, key: Sequence[str]) -> dict[str, Any] | None:
    try:
        values = {name: rows.columns[name][row].as_py() for name in key}
    except (ValueError, OverflowError):
        return None
    return None if None in values.values() else values


def _column(rows: Rows, field: FieldSchema) -> pa.Array:
    return rows.columns[field.name] if rows.num_rows else pa.array([], field.type.arrow)


def _flat(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    return column


def _all_of(masks: Sequence[pa.Array]) -> pa.Array | None:
    result = None
    for mask in masks:
        result = mask if result is None else pc.and_(result, mask)
    return result


def _bounded(table: pa.RecordBatch, batch_rows: int) -> list[pa.RecordBatch]:
    """Cut into pieces of at most so many rows and, where one row is not more, 32 MiB."""
    pieces: list[pa.RecordBatch] = []
    waiting = [
        table.slice(start, batch_rows) for start in range(0, table.num_rows, max(batch_rows, 1))
    ]
    while waiting:
        piece = waiting.pop(0)
        if piece.num_rows > 1 and piece.nbytes > _MAX_BATCH_BYTES:
            middle = piece.num_rows // 2
            waiting[:0] = [piece.slice(0, middle), piece.slice(middle)]
        else:
            pieces.append(piece)
    return pieces
