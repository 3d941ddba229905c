"""What the SQL connectors share to tell what a write made of its records.

Triggers, defaults, computed fields and lossy types make a record other than what was sent, so it
is read back: by its key, inside the transaction that wrote it, once per batch. A record that
cannot be told that way is taken back, and its change refused, because a record that nobody knows
would come back as somebody's edit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import DatasetSchema, Operation, ReadBatch, WriteProblem, WriteStatus
from apps.connectors.sql import find_fields
from apps.connectors.sql_writing import (
    ALREADY,
    AMBIGUOUS,
    ROW,
    TAKEN,
    PreparedBatch,
    rejected,
)

KEY_CHANGED = rejected(
    "record.key_changed",
    "After the write there is no record with its key: a trigger of the table moves or removes it.",
)
UNREADABLE = rejected(
    "record.unreadable", "What the target makes of the record cannot be read back."
)
IN_DOUBT = WriteProblem(
    WriteStatus.IN_DOUBT,
    "record.in_doubt",
    "An earlier attempt may have written this record: it equals more than one.",
)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Records as they are, each with the number of the change it was looked up for."""

    records: pa.Table  # the fields asked for, and ROW
    unreadable: tuple[int, ...] = ()  # numbers of changes

    @property
    def numbers(self) -> list[int]:
        result: list[int] = self.records.column(ROW).to_pylist()
        return result


def found_records(
    numbers: Sequence[int], rows: Sequence[Row], convert: Callable[[Sequence[Row]], ReadBatch]
) -> Found:
    """Bring a database's rows into neutral storage; those that cannot be are named."""
    batch = convert(rows)
    if not batch.rejected:
        return Found(_numbered(batch.records, numbers))
    if len(rows) == 1:
        return Found(_numbered(batch.records.slice(0, 0), []), (numbers[0],))
    half = len(rows) // 2
    first = found_records(numbers[:half], rows[:half], convert)
    second = found_records(numbers[half:], rows[half:], convert)
    return Found(
        pa.concat_tables([first.records, second.records]),
        (*first.unreadable, *second.unreadable),
    )


def _numbered(records: pa.RecordBatch, numbers: Sequence[int]) -> pa.Table:
    names = [*records.schema.names, ROW]
    return pa.table([*records.columns, pa.array(numbers, pa.int64())], names=names)


def addresses(prepared: PreparedBatch) -> pa.Table:
    """The keys under which the records stand after the write: an update may have moved them."""
    moved = set(prepared.after.column_names)
    return pa.table(
        {
            name: (prepared.after if name in moved else prepared.key).column(name)
            for name in prepared.key.column_names
        }
    )


def standing(prepared: PreparedBatch) -> list[int]:
    """The changes whose record is there as it should be: written now or earlier."""
    if prepared.operation is Operation.DELETE:
        return []
    problems = prepared.exceptions
    return [
        row
        for row in range(prepared.num_rows)
        if row not in problems or problems[row].status is WriteStatus.ALREADY
    ]


class WriteAgain(Exception):
    """Raised by `read_back`: take the batch back to where its writing began, and write it anew."""


def write_and_read_back(
    prepared: PreparedBatch,
    savepoint: Callable[[], AbstractContextManager[Any]],
    write: Callable[[], None],
    read_back: Callable[[list[int]], Found],
) -> Found:
    """Write the pending changes and read their records back, until all of them are known.

    `savepoint` undoes what is done inside it when an exception leaves it. `read_back` looks up
    the records of the changes whose numbers it is given, and may raise WriteAgain.
    """
    known = dict(prepared.exceptions)
    while True:
        prepared.exceptions = dict(known)
        try:
            with savepoint():
                write()
                rows = standing(prepared)
                found = read_back(rows)
                lost = _lost(rows, found)
                if lost:
                    known |= lost
                    raise WriteAgain
        except WriteAgain:
            continue
        return found


def _lost(rows: Sequence[int], found: Found) -> dict[int, WriteProblem]:
    counts = Counter(found.numbers)
    counts.update(found.unreadable)
    lost = dict.fromkeys(found.unreadable, UNREADABLE)
    for row in rows:
        if counts[row] != 1:
            lost[row] = AMBIGUOUS if counts[row] else KEY_CHANGED
    return lost


def refuse_missing_keys(found: Found, key: Sequence[str]) -> Found:
    """Count records that got no key at all among the unreadable ones."""
    missing = pa.array([False] * found.records.num_rows, pa.bool_())
    for name in key:
        missing = pc.or_(missing, found.records.column(name).is_null())
    if not pc.any(missing).as_py():
        return found
    nameless = found.records.column(ROW).filter(missing).to_pylist()
    kept = found.records.filter(pc.invert(missing))
    return Found(kept, (*found.unreadable, *nameless))


def aligned(found: Found, names: Sequence[str], current: DatasetSchema, num_rows: int) -> pa.Table:
    """The records one per change; all NULL where none was looked up."""
    fields = find_fields(current, names)
    places: list[int | None] = [None] * num_rows
    for place, row in enumerate(found.numbers):
        places[row] = place
    indices = pa.array(places, pa.int64())
    return pa.table(
        [found.records.column(field.name).take(indices) for field in fields],
        schema=pa.schema([(field.name, field.type.arrow) for field in fields]),
    )


def complete_rows(prepared: PreparedBatch, names: Sequence[str]) -> list[int]:
    """The pending changes that have a value in each of these fields of `after`."""
    rows = pa.array(prepared.pending(), pa.int64())
    complete = pa.array([True] * len(rows), pa.bool_())
    for column in prepared.after.select(list(names)).take(rows).columns:
        complete = pc.and_(complete, column.is_valid())
    result: list[int] = rows.filter(complete).to_pylist()
    return result


Identity = TypeVar("Identity", bound=Hashable)
Hit = tuple[int, Identity, bool]
"""A change, what tells the record found for it from others, and whether that equals `after`."""


def judge_matches(prepared: PreparedBatch, hits: Sequence[Hit[Identity]]) -> dict[int, Identity]:
    """Settle the inserts for whose `match` fields there are records.

    Gives the identity of each record that is as it should be, by change.
    """
    counts = Counter(row for row, _, _ in hits)
    already: dict[int, Identity] = {}
    for row, identity, equal in hits:
        if counts[row] > 1:
            prepared.settle(row, AMBIGUOUS)
            continue
        prepared.settle(row, ALREADY if equal else TAKEN)
        if equal:
            already[row] = identity
    return already


def judge_doubtful(prepared: PreparedBatch, hits: Sequence[Hit[Identity]]) -> dict[int, Identity]:
    """Settle the inserts in doubt that records equal; gives what `judge_matches` does."""
    equal = [(row, identity) for row, identity, same in hits if same]
    rows = Counter(row for row, _ in equal)
    claims = Counter(identity for _, identity in equal)
    already: dict[int, Identity] = {}
    for row, identity in equal:
        if rows[row] == 1 and claims[identity] == 1:
            already[row] = identity
        prepared.settle(row, ALREADY if row in already else IN_DOUBT)
    return already
