"""The file in a segment: changes as one zstd Parquet, whole columns at a time.

The images of a load are kept as typed columns, a tenth of the time and of the size of JSON texts:
the file's metadata names the fields and their types (`Typed`), and reading makes the texts again
where somebody asks for them. A relay keeps no images at all.

Columns that hold one value throughout, as most do in large plans, are not in the file: the
metadata has them, and reading puts them back. So it is with a left key that is the right one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from apps.connectors.types import NeutralType
from apps.engine.codec import encode_images, image_hashes

SEGMENT_ROWS = 65_536
SEGMENT_BYTES = 8 * 1_048_576
GROUP_ROWS = 8_192  # what is decoded at once for the sake of a few changes

_TIME = pa.timestamp("us", tz="UTC")
CHANGES = pa.schema(
    [
        ("id", pa.int64()),  # within a segment that is not compacted: from 0
        ("run_id", pa.string()),
        ("partition_id", pa.string()),
        ("sequence", pa.int64()),
        ("side", pa.string()),
        ("operation", pa.string()),
        ("cause", pa.string()),
        ("left_key", pa.string()),
        ("right_key", pa.string()),
        ("key_after", pa.string()),
        ("field_set", pa.int64()),
        ("before", pa.string()),
        ("after", pa.string()),
        ("base_left", pa.string()),
        ("base_right", pa.string()),
        ("image", pa.string()),
        ("outcome", pa.string()),  # NULL: as the part says
        ("code", pa.string()),
        ("message", pa.string()),
        ("planned_at", _TIME),
        ("settled_at", _TIME),
    ]
)
REPEATING = (
    "run_id",
    "partition_id",
    "side",
    "operation",
    "cause",
    "field_set",
    "outcome",
    "code",
    "planned_at",
    "settled_at",
)


_METADATA = b"lockstep"


@dataclass(frozen=True, slots=True)
class Typed:
    """How a file keeps the image after each change as typed columns `v0`, `v1`, …

    types: of the fields, in the order of these columns; based: each change is the base of a link
    as well, whose two images are equal to it.
    """

    types: Mapping[str, NeutralType]
    based: bool = False

    @property
    def columns(self) -> list[str]:
        return [f"v{place}" for place in range(len(self.types))]

    def schema(self) -> pa.Schema:
        """`CHANGES`, the typed columns, and what tells a reader of them."""
        typed = [
            pa.field(column, neutral.arrow)
            for column, neutral in zip(self.columns, self.types.values(), strict=True)
        ]
        described = {"types": {n: str(t) for n, t in self.types.items()}, "based": self.based}
        return pa.schema([*CHANGES, *typed], metadata={_METADATA: json.dumps(described)})

    @classmethod
    def of(cls, schema: pa.Schema) -> Typed | None:
        """What a file's schema says; None where it has no typed columns."""
        described = _described(schema)
        if "types" not in described:
            return None
        types = {name: NeutralType.parse(text) for name, text in described["types"].items()}
        return cls(types, described["based"])

    def plain(self, table: pa.Table) -> pa.Table:
        """Rows of such a file with their images as texts (schema `CHANGES`)."""
        values = table.select(self.columns).rename_columns(list(self.types))
        after = pa.array(encode_images(values, self.types), pa.string())
        hashed = pa.array(image_hashes(values, self.types), pa.string())
        image = pc.coalesce(table.column("image").combine_chunks(), hashed)
        found = {"after": after, "image": image}
        if self.based:
            found |= {"base_left": after, "base_right": after}
        columns = [found.get(name, table.column(name)) for name in CHANGES.names]
        return pa.table(columns, names=CHANGES.names).cast(CHANGES)


def _described(schema: pa.Schema) -> dict[str, Any]:
    """What a file, or a table on its way into one, says of itself."""
    text = (schema.metadata or {}).get(_METADATA)
    found: dict[str, Any] = {} if text is None else json.loads(text)
    return found


def constant(value: Any, kind: pa.DataType, rows: int) -> pa.DictionaryArray:
    """A column with one value throughout, which takes a byte a row."""
    places = pa.repeat(pa.scalar(0, pa.int8()), rows)
    return pa.DictionaryArray.from_arrays(places, pa.array([value], kind))


def is_constant(column: pa.ChunkedArray) -> bool:
    """Whether a column has one value throughout, or none at all."""
    if column.null_count:
        return bool(column.null_count == len(column))
    if pa.types.is_dictionary(column.type):
        dictionaries = {chunk.dictionary.to_pylist()[0] for chunk in column.chunks}
        return len(dictionaries) <= 1 and all(len(c.dictionary) == 1 for c in column.chunks)
    bounds = pc.min_max(column)
    return bool(bounds["min"] == bounds["max"])


def encode(table: pa.Table) -> bytes:
    """Changes (schema `CHANGES`, or that of a `Typed`) as a file.

    Columns made by `constant` are as good as any.
    """
    sink = pa.BufferOutputStream()
    table = _reduced(table)
    numbers = [f.name for f in table.schema if _is_number(f.type) and f.name not in REPEATING]
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=[name for name in REPEATING if name in table.column_names],
        column_encoding=dict.fromkeys(numbers, "DELTA_BINARY_PACKED"),
        row_group_size=GROUP_ROWS,
        write_statistics=False,
    )
    return sink.getvalue().to_pybytes()


def _reduced(table: pa.Table) -> pa.Table:
    """The table without what its metadata can tell as well."""
    described = _described(table.schema)
    constants = {
        name: _as_json(table.column(name)[0].as_py())
        for name in CHANGES.names
        if table.num_rows and (name in REPEATING or table.column(name).null_count)
        if is_constant(table.column(name))
    }
    described["constants"] = constants
    left = table.column("left_key")
    described["same_keys"] = "left_key" not in constants and left.equals(table.column("right_key"))
    dropped = [*constants, *(["left_key"] if described["same_keys"] else [])]
    return table.drop_columns(dropped).replace_schema_metadata({_METADATA: json.dumps(described)})


def _as_json(value: Any) -> Any:
    """A moment as text; whatever else a constant may be is JSON already."""
    return value.isoformat() if isinstance(value, datetime) else value


def _of_json(value: Any, kind: pa.DataType) -> Any:
    if value is not None and pa.types.is_timestamp(kind):
        return datetime.fromisoformat(value).astimezone(UTC)
    return value


def _is_number(kind: pa.DataType) -> bool:
    """Whether values of a type are whole numbers to Parquet, whose differences are small."""
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_timestamp(kind)
        or pa.types.is_date32(kind)
        or pa.types.is_time64(kind)
    )


class ChangeFile:
    """An opened file; decodes the columns and row groups that are asked for."""

    def __init__(self, content: bytes) -> None:
        self._file = pq.ParquetFile(pa.BufferReader(content))
        self._schema = self._file.schema_arrow
        described = _described(self._schema)
        self._constants: dict[str, Any] = described.get("constants", {})
        self._same_keys: bool = described.get("same_keys", False)

    @property
    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    @property
    def typed(self) -> Typed | None:
        return Typed.of(self._schema)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """These columns of all changes, as they were written."""
        stored = [n for n in names if n not in self._constants]
        if self._same_keys:
            stored = ["right_key" if name == "left_key" else name for name in stored]
        table = self._file.read(columns=list(dict.fromkeys(stored)))
        return self._restored(table, names, self.rows)

    def _restored(self, table: pa.Table, names: Sequence[str], rows: int) -> pa.Table:
        """The rows with what is not in the file for being the same throughout."""
        columns: list[Any] = []
        for name in names:
            if name in self._constants:
                kind = CHANGES.field(name).type
                value = pa.scalar(_of_json(self._constants[name], kind), kind)
                columns.append(pa.repeat(value, rows))
            elif name == "left_key" and self._same_keys:
                columns.append(table.column("right_key"))
            else:
                columns.append(table.column(name))
        return pa.table(columns, names=list(names))

    def values(self) -> pa.Table | None:
        """The typed columns by the names of their fields; None where the file has none."""
        typed = self.typed
        if typed is None:
            return None
        return self._file.read(columns=typed.columns).rename_columns(list(typed.types))

    def raw(self) -> pa.Table:
        """Everything as it was written, to write it again."""
        return self._whole(self._file.read())

    def everything(self) -> pa.Table:
        """All columns of all changes (schema `CHANGES`)."""
        return self._plain(self._file.read())

    def group(self, number: int) -> pa.Table:
        """All columns of the changes from `number * GROUP_ROWS` on, GROUP_ROWS of them."""
        return self._plain(self._file.read_row_group(number))

    def _whole(self, table: pa.Table) -> pa.Table:
        """All columns of rows of the file; the schema is `CHANGES` or that of a `Typed`."""
        typed = self.typed
        schema = CHANGES if typed is None else typed.schema()
        return self._restored(table, schema.names, table.num_rows).cast(schema)

    def _plain(self, table: pa.Table) -> pa.Table:
        typed, whole = self.typed, self._whole(table)
        return whole if typed is None else typed.plain(whole)

    def take(self, places: Sequence[int]) -> pa.Table:
        """All columns of the changes at these places, in their order."""
        wanted = sorted({place // GROUP_ROWS for place in places})
        if not wanted:
            return CHANGES.empty_table()
        tables = [self._file.read_row_group(number) for number in wanted]
        offset, start = {}, 0
        for number, table in zip(wanted, tables, strict=True):
            offset[number] = start
            start += table.num_rows
        rows = [offset[place // GROUP_ROWS] + place % GROUP_ROWS for place in places]
        return self._plain(pa.concat_tables(tables).take(pa.array(rows, pa.int64())))
