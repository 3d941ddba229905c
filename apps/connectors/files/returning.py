"""What a file holds of changed records, read from the new file before it takes its place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import DatasetSchema, FieldSchema, WriteProblem
from apps.connectors.errors import FieldMissing
from apps.connectors.files.changes import Matcher
from apps.connectors.files.conversion import identity
from apps.connectors.files.rows import Rows
from apps.connectors.returning import Found, aligned, lost, numbered, standing


class Readable(Protocol):
    """Where records are read from."""

    def rows(self, fields: Sequence[FieldSchema]) -> Iterator[Rows]:
        """All of them, with these fields."""


class RecordsLost(Exception):
    """Records of some changes cannot be told: nothing must be written that way."""

    def __init__(self, problems: dict[int, WriteProblem]) -> None:
        super().__init__(f"{len(problems)} changes")
        self.problems = problems


class Returning:
    """The fields that a caller wants back."""

    def __init__(self, names: Sequence[str], schema: DatasetSchema) -> None:
        missing = [name for name in names if name not in schema.field_names]
        if missing:
            raise FieldMissing(f"there is no field '{missing[0]}'", where=schema.name)
        self.names = tuple(names)
        self._fields = [schema.field(name) for name in names]

    def read(self, file: Readable, matcher: Matcher, num_rows: int) -> pa.Table | None:
        """The records, one per change. Raises RecordsLost."""
        if not self.names:
            return None
        rows = standing(matcher.operation, num_rows, matcher.problems)
        found = _look_up(file, matcher, rows, self._fields)
        problems = lost(rows, found)
        if problems:
            raise RecordsLost(problems)
        return aligned(found, self._fields, num_rows)


def _look_up(
    file: Readable, matcher: Matcher, rows: Sequence[int], fields: Sequence[FieldSchema]
) -> Found:
    key_fields, columns = matcher.addresses()
    types = [field.type for field in key_fields]
    chosen = pa.array(rows, pa.int64())
    wanted = identity([column.take(chosen) for column in columns], types)
    needed = list({field.name: field for field in (*key_fields, *fields)}.values())
    unreadable: list[int] = []
    parts = [numbered(_records(None, fields, []), [])]
    for part in file.rows(needed) if rows else ():
        if not part.num_rows:
            continue
        places = pc.index_in(
            identity([part.columns[field.name] for field in key_fields], types), value_set=wanted
        )
        hits = [
            (row, rows[place]) for row, place in enumerate(places.to_pylist()) if place is not None
        ]
        unreadable += [change for row, change in hits if row in part.misfits]
        good = [(row, change) for row, change in hits if row not in part.misfits]
        records = _records(part, fields, [row for row, _ in good])
        parts.append(numbered(records, [change for _, change in good]))
    return Found(pa.concat_tables(parts), tuple(unreadable))


def _records(part: Rows | None, fields: Sequence[FieldSchema], rows: list[int]) -> pa.RecordBatch:
    indices = pa.array(rows, pa.int64())
    columns: list[Any] = [
        pa.array([], field.type.arrow) if part is None else part.columns[field.name].take(indices)
        for field in fields
    ]
    return pa.RecordBatch.from_arrays(
        columns, schema=pa.schema([(field.name, field.type.arrow) for field in fields])
    )
