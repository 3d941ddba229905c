"""Parquet: types, reading and rewriting. `address` counts rows from the file's start."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apps.connectors import types
from apps.connectors.base import FieldSchema, RawRejection
from apps.connectors.canonical import dump_json
from apps.connectors.errors import ConnectionLost, SchemaMismatch
from apps.connectors.files.conversion import (
    INVALID,
    OUT_OF_RANGE,
    Converted,
    Misfit,
    cast_leniently,
    from_text,
    plain_number,
)
from apps.connectors.files.limits import require_field_count
from apps.connectors.files.rows import RAW_LIMIT, Rows, collect
from apps.connectors.types import Kind, NeutralType

_BATCH = 20_000
_WRITE_ROWS = 100_000


def open_parquet(file: BinaryIO, where: str) -> pq.ParquetFile:
    """Raises SchemaMismatch when this is no whole Parquet file."""
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise SchemaMismatch(
            f"this is no whole Parquet file: {str(error)[:200]}",
            where=where,
            remedy="Export the file again; a Parquet file that was cut off cannot be read.",
        ) from None


def neutral_type(native: pa.DataType) -> NeutralType:
    """The neutral type of an Arrow type; nested ones are JSON."""
    for test, neutral in _NEUTRAL:
        if test(native):
            return neutral
    if pa.types.is_decimal(native):
        return types.decimal(native.precision, native.scale)
    if pa.types.is_timestamp(native):
        return types.TIMESTAMP if native.tz is None else types.TIMESTAMPTZ
    if pa.types.is_dictionary(native):
        return neutral_type(native.value_type)
    if pa.types.is_list(native) or pa.types.is_large_list(native):
        inner = neutral_type(native.value_type)
        return types.JSON if inner.kind in (Kind.JSON, Kind.ARRAY) else types.array(inner)
    return types.JSON


_NEUTRAL = (
    (pa.types.is_boolean, types.BOOLEAN),
    (pa.types.is_uint64, types.decimal(20, 0)),
    (pa.types.is_integer, types.INTEGER),
    (pa.types.is_floating, types.FLOAT),
    (pa.types.is_string, types.TEXT),
    (pa.types.is_large_string, types.TEXT),
    (pa.types.is_string_view, types.TEXT),
    (pa.types.is_null, types.TEXT),
    (pa.types.is_binary, types.BYTES),
    (pa.types.is_large_binary, types.BYTES),
    (pa.types.is_fixed_size_binary, types.BYTES),
    (pa.types.is_date, types.DATE),
    (pa.types.is_time, types.TIME),
)


def fields_of(schema: pa.Schema) -> tuple[FieldSchema, ...]:
    """The fields as the file declares them."""
    return tuple(FieldSchema(f.name, neutral_type(f.type), str(f.type), f.nullable) for f in schema)


def native_schema(fields: Sequence[FieldSchema]) -> pa.Schema:
    """The Arrow schema of a new file."""
    return pa.schema([pa.field(f.name, f.type.arrow, f.nullable) for f in fields])


def to_neutral(column: pa.Array, type_: NeutralType) -> Converted:
    """From the file's Arrow type to neutral storage."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if column.type == type_.arrow and type_.kind not in (Kind.JSON, Kind.UUID):
        return Converted(column)
    if type_.is_wide_decimal and pa.types.is_decimal(column.type):
        texts = [None if v is None else plain_number(str(v)) for v in column.to_pylist()]
        return Converted(pa.array(texts, pa.string()))
    if type_.kind is Kind.JSON and not _is_text(column.type):
        texts = [None if v is None else dump_json(_plain(v)) for v in column.to_pylist()]
        return Converted(pa.array(texts, pa.string()))
    if _is_text(column.type) and type_.kind is not Kind.TEXT:
        return from_text(pc.cast(column, pa.string()), type_)
    return _cast(column, type_.arrow, f"the value does not fit {type_}")


def to_native(column: pa.Array, native: pa.DataType) -> Converted:
    """From neutral storage to the file's Arrow type."""
    if column.type == native:
        return Converted(column)
    if pa.types.is_nested(native) and pa.types.is_string(column.type):
        nothing = {row: _NESTED for row in range(len(column)) if column[row].is_valid}
        return Converted(pa.nulls(len(column), native), nothing)
    return _cast(column, native, f"the file's type {native} does not hold the value")


_NESTED = Misfit(INVALID, "Lockstep does not write nested Parquet values")


def _is_text(native: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(native)
        or pa.types.is_large_string(native)
        or pa.types.is_string_view(native)
    )


def _cast(column: pa.Array, target: pa.DataType, message: str) -> Converted:
    return cast_leniently(
        column, lambda part: pc.cast(part, target), lambda _: Misfit(OUT_OF_RANGE, message), target
    )


def _plain(value: Any) -> Any:
    """A nested value as JSON values; what JSON lacks becomes its text."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and math.isfinite(value):
        return Decimal(repr(value))
    if value is None or isinstance(value, bool | int | str | Decimal):
        return value
    return base64.b64encode(value).decode() if isinstance(value, bytes) else str(value)


class ParquetReader:
    """Reads one file. A row group that cannot be read is one rejection."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self._where = where
        self.file = open_parquet(file, where)
        require_field_count(self.file.metadata.num_columns, where)
        self.schema: pa.Schema = self.file.schema_arrow

    @property
    def decompressed_bytes(self) -> int:
        """What the file says its pages come to; values that repeat are counted once."""
        groups = range(self.file.num_row_groups)
        return sum(self.file.metadata.row_group(group).total_byte_size for group in groups)

    def rows(self, fields: Sequence[FieldSchema]) -> Iterator[Rows]:
        """The records, with these fields converted."""
        first = 0
        for group in range(self.file.num_row_groups):
            size = self.file.metadata.row_group(group).num_rows
            position = first
            try:
                for batch in self._batches(group, [f.name for f in fields]):
                    yield self._rows(batch, fields, position)
                    position += batch.num_rows
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno is not None:
                    raise ConnectionLost(str(error), where=self._where) from error
                yield self._lost(position, first + size, error)
            first += size

    def _batches(self, group: int, names: list[str]) -> Iterator[pa.RecordBatch]:
        return iter(
            self.file.iter_batches(_BATCH, row_groups=[group], columns=names, use_threads=False)
        )

    @staticmethod
    def _lost(start: int, end: int, error: Exception) -> Rows:
        position = f"rows {start + 1} to {end}"
        message = f"{position} cannot be read: {str(error)[:200]}. Export the file again."
        lost = RawRejection(position, "file.malformed", message)
        return Rows(0, {}, {}, str, str, lambda _: (0, 0), (lost,))

    @staticmethod
    def _rows(batch: pa.RecordBatch, fields: Sequence[FieldSchema], first: int) -> Rows:
        columns, misfits = collect(fields, lambda f: to_neutral(batch.column(f.name), f.type))
        return Rows(
            num_rows=batch.num_rows,
            columns=columns,
            misfits=misfits,
            position=lambda row: f"row {first + row + 1}",
            raw=lambda row: _shown(batch.slice(row, 1)),
            address=lambda row: (first + row, first + row + 1),
        )


def _shown(record: pa.RecordBatch) -> str:
    cells = []
    for name, column in zip(record.schema.names, record.columns, strict=True):
        try:
            cells.append(f"{name}={pc.cast(column, pa.string())[0].as_py()}")
        except (pa.ArrowException, ValueError):
            cells.append(f"{name}=?")
    return ", ".join(cells)[:RAW_LIMIT]


@dataclass(frozen=True, slots=True)
class ParquetEdits:
    """What to write: changed rows as positions in `updates`, rows to drop, rows to append."""

    updated: Mapping[int, int]
    updates: pa.Table | None
    deleted: frozenset[int]
    inserts: pa.Table | None


def rewrite(reader: ParquetReader, edits: ParquetEdits, sink: Any) -> None:
    """Write the file again with the edits, keeping its schema, metadata and compression."""
    metadata = reader.file.metadata
    compression = "zstd"
    if metadata.num_row_groups and metadata.num_columns:
        compression = metadata.row_group(0).column(0).compression.lower()
    options = {"compression": "none" if compression == "uncompressed" else compression}
    with pq.ParquetWriter(sink, reader.schema, **options) as writer:
        first = 0
        for batch in reader.file.iter_batches(_WRITE_ROWS, use_threads=False):
            writer.write_table(_edited(batch, edits, first), row_group_size=_WRITE_ROWS)
            first += batch.num_rows
        if edits.inserts is not None and edits.inserts.num_rows:
            writer.write_table(_padded(edits.inserts, reader.schema), row_group_size=_WRITE_ROWS)


def _edited(batch: pa.RecordBatch, edits: ParquetEdits, first: int) -> pa.Table:
    table = pa.Table.from_batches([batch])
    rows = range(first, first + batch.num_rows)
    if edits.updates is not None and not edits.updated.keys().isdisjoint(rows):
        source = pa.array([edits.updated.get(row) for row in rows], pa.int64())
        for name in edits.updates.column_names:
            place = table.schema.get_field_index(name)
            new = edits.updates.column(name).combine_chunks().take(source)
            old = table.column(place).combine_chunks()
            merged = pc.if_else(pc.is_valid(source), _chunk(new), _chunk(old))
            table = table.set_column(place, table.schema.field(place), merged)
    if not edits.deleted.isdisjoint(rows):
        table = table.filter(pa.array([row not in edits.deleted for row in rows], pa.bool_()))
    return table


def _chunk(column: Any) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks else pa.array([], column.type)
    return column


def _padded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(f.name) if f.name in table.column_names else pa.nulls(table.num_rows, f.type)
        for f in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
