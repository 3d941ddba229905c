"""What the SQL connectors share to tell what a write made of its records, and their keys."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    DatasetSchema,
    Operation,
    ReadBatch,
    WriteProblem,
    WriteResult,
    WriteStatus,
)
from apps.connectors.returning import ROW, Found, aligned, lost, numbered, standing
from apps.connectors.sql import find_fields
from apps.connectors.sql_writing import (
    ALREADY,
    AMBIGUOUS,
    GONE,
    TAKEN,
    PreparedBatch,
    equal_rows,
)

IN_DOUBT = WriteProblem(
    WriteStatus.IN_DOUBT,
    "record.in_doubt",
    "An earlier attempt may have written this record: it equals more than one.",
)

Row = tuple[Any, ...]


def found_records(
    numbers: Sequence[int], rows: Sequence[Row], convert: Callable[[Sequence[Row]], ReadBatch]
) -> Found:
    """Bring a database's rows into neutral storage; those that cannot be are named."""
    batch = convert(rows)
    if not batch.rejected:
        return Found(numbered(batch.records, numbers))
    if len(rows) == 1:
        return Found(numbered(batch.records.slice(0, 0), []), (numbers[0],))
    half = len(rows) // 2
    first = found_records(numbers[:half], rows[:half], convert)
    second = found_records(numbers[half:], rows[half:], convert)
    return Found(
        pa.concat_tables([first.records, second.records]),
        (*first.unreadable, *second.unreadable),
    )


def addresses(prepared: PreparedBatch) -> pa.Table:
    """The keys under which the records stand after the write: an update may have moved them."""
    moved = set(prepared.after.column_names)
    return pa.table(
        {
            name: (prepared.after if name in moved else prepared.key).column(name)
            for name in prepared.key.column_names
        }
    )


def recognise_moved(
    prepared: PreparedBatch, look_up: Callable[[list[int], Sequence[str]], Found]
) -> None:
    """Settle as done the updates whose record an earlier attempt has moved to its new key.

    It is the record when it is as after the change, and elsewhere as before it.

    look_up: gives fields of the records that stand under the new keys of these rows.
    """
    rows = [row for row, problem in prepared.exceptions.items() if problem is GONE]
    if not rows or not moves_keys(prepared):
        return
    expected = {name: prepared.before.column(name) for name in prepared.before.column_names}
    expected |= {name: prepared.after.column(name) for name in prepared.after.column_names}
    names = list(expected)
    found = look_up(rows, names)
    wanted = pa.table(expected).take(pa.array(found.numbers, pa.int64()))
    same = equal_rows(wanted, found.records.select(names))
    for row, equal in zip(found.numbers, same, strict=True):
        if equal:
            prepared.exceptions[row] = ALREADY


def moves_keys(prepared: PreparedBatch) -> bool:
    """Whether the batch writes fields by which it addresses its records."""
    keys, written = set(prepared.key.column_names), set(prepared.after.column_names)
    return prepared.operation is Operation.UPDATE and bool(keys & written)


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
                rows = standing(prepared.operation, prepared.num_rows, prepared.exceptions)
                found = read_back(rows)
                untold = lost(rows, found)
                if untold:
                    known |= untold
                    raise WriteAgain
        except WriteAgain:
            continue
        return found


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


def result_of(
    prepared: PreparedBatch,
    found: Found,
    current: DatasetSchema,
    *,
    returning: Sequence[str],
    key: Sequence[str] = (),
) -> WriteResult:
    """The batch's outcome with what was asked to be returned, and the keys where assigned."""
    count = prepared.num_rows
    return prepared.result(
        stored=aligned(found, find_fields(current, returning), count) if returning else None,
        keys=aligned(found, find_fields(current, key), count) if key else None,
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
