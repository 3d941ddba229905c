"""The file in a segment: changes as one zstd Parquet, whole columns at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

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


def encode(table: pa.Table) -> bytes:
    """Changes (schema `CHANGES`) as a file."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        compression="zstd",
        compression_level=3,
        use_dictionary=list(REPEATING),
        column_encoding={"sequence": "DELTA_BINARY_PACKED", "id": "DELTA_BINARY_PACKED"},
        row_group_size=GROUP_ROWS,
        write_statistics=False,
    )
    return sink.getvalue().to_pybytes()


class ChangeFile:
    """An opened file; decodes the columns and row groups that are asked for."""

    def __init__(self, content: bytes) -> None:
        self._file = pq.ParquetFile(pa.BufferReader(content))

    @property
    def rows(self) -> int:
        return int(self._file.metadata.num_rows)

    def columns(self, names: Sequence[str]) -> pa.Table:
        """These columns of all changes."""
        return self._file.read(columns=list(names))

    def everything(self) -> pa.Table:
        """All columns of all changes (schema `CHANGES`)."""
        return self._file.read().cast(CHANGES)

    def group(self, number: int) -> pa.Table:
        """All columns of the changes from `number * GROUP_ROWS` on, GROUP_ROWS of them."""
        return self._file.read_row_group(number).cast(CHANGES)

    def take(self, places: Sequence[int]) -> pa.Table:
        """All columns of the changes at these places, in their order."""
        wanted = sorted({place // GROUP_ROWS for place in places})
        if not wanted:
            return CHANGES.empty_table()
        tables = [self.group(number) for number in wanted]
        offset, start = {}, 0
        for number, table in zip(wanted, tables, strict=True):
            offset[number] = start
            start += table.num_rows
        rows = [offset[place // GROUP_ROWS] + place % GROUP_ROWS for place in places]
        return pa.concat_tables(tables).take(pa.array(rows, pa.int64()))
