"""What a write gives back: the records as the target holds them, one per change.

Triggers, defaults, computed fields and lossy types make a record other than what was sent, so it
is read back by its key before the write is committed. A record that cannot be told that way is
taken back, and its change refused: it would come back as somebody's edit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from apps.connectors.base import FieldSchema, Operation, WriteProblem, WriteStatus

ROW = "lockstep_row"
"""Name of the column of row numbers in tables of ours; no field of a dataset may have it."""

KEY_CHANGED = WriteProblem(
    WriteStatus.REJECTED,
    "record.key_changed",
    "After the write there is no record with its key: a trigger of the table moves or removes it.",
)
UNREADABLE = WriteProblem(
    WriteStatus.REJECTED,
    "record.unreadable",
    "What the target makes of the record cannot be read back.",
)
SEVERAL = WriteProblem(
    WriteStatus.REJECTED, "record.ambiguous", "After the write several records have its key."
)


@dataclass(frozen=True, slots=True)
class Found:
    """Records as they are, each with the number of the change it was looked up for."""

    records: pa.Table  # the fields asked for, and ROW
    unreadable: tuple[int, ...] = ()  # numbers of changes

    @property
    def numbers(self) -> list[int]:
        result: list[int] = self.records.column(ROW).to_pylist()
        return result


def numbered(records: pa.RecordBatch, numbers: Sequence[int]) -> pa.Table:
    """The records with their numbers as the column ROW."""
    names = [*records.schema.names, ROW]
    return pa.table([*records.columns, pa.array(numbers, pa.int64())], names=names)


def standing(
    operation: Operation, num_rows: int, problems: Mapping[int, WriteProblem]
) -> list[int]:
    """The changes whose record is there as it should be: written now or earlier."""
    if operation is Operation.DELETE:
        return []
    return [
        row
        for row in range(num_rows)
        if row not in problems or problems[row].status is WriteStatus.ALREADY
    ]


def lost(rows: Sequence[int], found: Found) -> dict[int, WriteProblem]:
    """Which of the changes' records cannot be told, and why."""
    counts = Counter(found.numbers)
    counts.update(found.unreadable)
    problems = dict.fromkeys(found.unreadable, UNREADABLE)
    for row in rows:
        if counts[row] != 1:
            problems[row] = SEVERAL if counts[row] else KEY_CHANGED
    return problems


def aligned(found: Found, fields: Sequence[FieldSchema], num_rows: int) -> pa.Table:
    """The records one per change; all NULL where none was looked up."""
    places: list[int | None] = [None] * num_rows
    for place, row in enumerate(found.numbers):
        places[row] = place
    indices = pa.array(places, pa.int64())
    return pa.table(
        [found.records.column(field.name).take(indices) for field in fields],
        schema=pa.schema([(field.name, field.type.arrow) for field in fields]),
    )
