"""What the SQL connectors share on the way out: preparing a ChangeBatch, judging, isolating.

A batch is *prepared* first: every column is brought into the storage of the field it is written
to, and rows that this alone shows to be impossible (null keys, repeated keys, text too long,
numbers out of range, NULL in a required field) get their outcome before the database sees them.
What the database refuses afterwards is isolated by halving (`write_isolating`), so that one bad
row costs a logarithm of attempts, not the batch.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    FieldSchema,
    Operation,
    WriteProblem,
    WriteResult,
    WriteStatus,
)
from apps.connectors.errors import KeyMissing, SchemaMismatch
from apps.connectors.returning import ROW
from apps.connectors.sql import find_fields
from apps.connectors.sql_values import decode, list_to_json
from apps.connectors.types import Kind

ALREADY = WriteProblem(WriteStatus.ALREADY)
STALE = WriteProblem(
    WriteStatus.STALE, "record.stale", "The record is neither as before nor as after the change."
)
GONE = WriteProblem(WriteStatus.STALE, "record.gone", "There is no longer a record with this key.")
TAKEN = WriteProblem(
    WriteStatus.STALE, "record.exists", "Another record with this key exists, and it differs."
)
AMBIGUOUS = WriteProblem(
    WriteStatus.REJECTED, "record.ambiguous", "More than one record has this key."
)
REPEATED = WriteProblem(
    WriteStatus.REJECTED, "record.duplicate", "An earlier change of this batch has the same key."
)
DUPLICATE = WriteProblem(
    WriteStatus.REJECTED,
    "record.duplicate",
    "Another record already has these values in fields that must be unique.",
)


def rejected(code: str, message: str, name: str = "") -> WriteProblem:
    return WriteProblem(WriteStatus.REJECTED, code, message, name)


NOT_WRITTEN = rejected("record.not_written", "A trigger of the table keeps it from being written.")


class RowRefused(Exception):
    """The database refused a statement because of the data of some row in it."""

    def __init__(self, problem: WriteProblem) -> None:
        super().__init__(problem.code)
        self.problem = problem


@dataclass(slots=True)
class PreparedBatch:
    """A ChangeBatch in the target's storage, with the outcomes known so far.

    All three tables have as many rows as the batch, or no columns; columns are in their fields'
    Arrow types.

    circles: rows, each time consecutive ones, that refer to one another in a circle, so that only
             one statement can write them;
    levels:  all rows parted so that none refers to another one of its part, except in a circle;
    masks:   the fields that each row writes, where these are not all of `after`.
    """

    operation: Operation
    num_rows: int
    key: pa.Table
    before: pa.Table
    after: pa.Table
    exceptions: dict[int, WriteProblem] = field(default_factory=dict)
    circles: tuple[tuple[int, ...], ...] = ()
    levels: tuple[tuple[int, ...], ...] = ()
    masks: tuple[tuple[str, ...], ...] = ()

    def written(self, row: int) -> tuple[str, ...]:
        """The fields that a row writes."""
        return self.masks[row] if self.masks else tuple(self.after.column_names)

    def alike(self, rows: Sequence[int]) -> list[tuple[tuple[str, ...], list[int]]]:
        """The rows in their order, parted into neighbours that write the same fields."""
        return [(names, list(part)) for names, part in groupby(rows, self.written)]

    def pending(self) -> list[int]:
        """The rows that have no outcome yet, ascending."""
        if not self.exceptions:
            return list(range(self.num_rows))
        return [row for row in range(self.num_rows) if row not in self.exceptions]

    def settle(self, row: int, problem: WriteProblem) -> None:
        """Give a row its outcome; the first one stands."""
        self.exceptions.setdefault(row, problem)

    def result(
        self, *, stored: pa.Table | None = None, keys: pa.Table | None = None
    ) -> WriteResult:
        applied = self.num_rows - len(self.exceptions)
        written = self.after if self.after.num_columns else self.key
        size = int(written.nbytes * applied / self.num_rows) if self.num_rows else 0
        return WriteResult(self.num_rows, dict(sorted(self.exceptions.items())), size, stored, keys)


def prepare(batch: ChangeBatch, current: DatasetSchema) -> PreparedBatch:
    """Bring a batch into the target's storage and settle what is impossible at sight.

    Raises FieldMissing, SchemaMismatch when a field can never be written, or KeyMissing when the
    target is to give out keys of a dataset that has none.
    """
    nothing = pa.table({})
    prepared = PreparedBatch(
        batch.operation, batch.num_rows, nothing, nothing, nothing, masks=batch.written
    )
    if batch.assigns_key and not current.key:
        raise KeyMissing("the dataset has no key that it could assign", where=current.name)
    prepared.key = _convert(batch.key, current, prepared, _refuse_value)
    _refuse_null_keys(prepared)
    _refuse_repeated(prepared, prepared.key)
    if batch.before is not None and batch.operation is not Operation.INSERT:
        prepared.before = _convert(batch.before, current, prepared, lambda _: STALE)
    if batch.after is not None and batch.operation is not Operation.DELETE:
        for target in find_fields(current, batch.after.column_names):
            if target.generated:
                raise SchemaMismatch(
                    f"the field '{target.name}' is computed and cannot be written",
                    where=current.name,
                )
        prepared.after = _convert(batch.after, current, prepared, _refuse_value)
        _refuse_what_does_not_fit(prepared, current)
        if batch.assigns_key:
            find_fields(current, batch.match)
            _refuse_repeated(prepared, prepared.after.select(list(batch.match)))
    return prepared


def _convert(
    table: pa.Table,
    current: DatasetSchema,
    prepared: PreparedBatch,
    problem: Callable[[FieldSchema], WriteProblem],
) -> pa.Table:
    columns = {}
    for target in find_fields(current, table.column_names):
        decoded = decode(table.column(target.name), target.type)
        columns[target.name] = decoded.values
        for row in decoded.bad:
            prepared.settle(row, problem(target))
    return pa.table(columns)


def _refuse_value(target: FieldSchema) -> WriteProblem:
    numeric = target.type.kind in {Kind.DECIMAL, Kind.INTEGER, Kind.DATE, Kind.TIMESTAMP}
    code = "record.out_of_range" if numeric else "record.invalid"
    return rejected(code, f"The value does not fit a {target.type}.", target.name)


def _refuse_null_keys(prepared: PreparedBatch) -> None:
    for name in prepared.key.column_names:
        column = prepared.key.column(name)
        if column.null_count:
            for row in pc.indices_nonzero(column.is_null()).to_pylist():
                prepared.settle(row, rejected("record.required", "A key field has no value.", name))


def _refuse_repeated(prepared: PreparedBatch, identity: pa.Table) -> None:
    """Settle the rows whose identity, when it is complete, an earlier row has as well."""
    if not identity.num_columns:
        return
    columns = [_hashable(column) for column in identity.columns]
    names = [f"key{index}" for index in range(len(columns))]
    numbered = pa.table([*columns, pa.array(range(identity.num_rows))], [*names, ROW])
    groups = numbered.group_by(names, use_threads=False).aggregate([(ROW, "count")])
    if groups.num_rows == identity.num_rows:
        return
    seen: set[tuple[object, ...]] = set()
    repeated = groups.filter(pc.greater(groups.column(f"{ROW}_count"), 1)).select(names)
    keys = {tuple(row.values()) for row in repeated.to_pylist()}
    for row, values in enumerate(zip(*(c.to_pylist() for c in columns), strict=True)):
        if values in keys and None not in values:
            if values in seen:
                prepared.settle(row, REPEATED)
            seen.add(values)


def _hashable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column that rows can be grouped by: lists as their text."""
    return list_to_json(column.combine_chunks()) if pa.types.is_list(column.type) else column


def _refuse_what_does_not_fit(prepared: PreparedBatch, current: DatasetSchema) -> None:
    for target in find_fields(current, prepared.after.column_names):
        column = prepared.after.column(target.name)
        if column.null_count and not target.nullable and not target.server_assigned:
            missing = rejected("record.required", "The field needs a value.", target.name)
            for row in pc.indices_nonzero(column.is_null()).to_pylist():
                if target.name in prepared.written(row):
                    prepared.settle(row, missing)
        if target.type.kind is Kind.TEXT and target.type.length is not None:
            long = pc.greater(pc.utf8_length(column), target.type.length)
            for row in pc.indices_nonzero(pc.fill_null(long, False)).to_pylist():
                prepared.settle(
                    row,
                    rejected(
                        "record.too_long",
                        f"The text is longer than {target.type.length} characters.",
                        target.name,
                    ),
                )


def equal_rows(left: pa.Table, right: pa.Table) -> list[bool]:
    """Whether each row of two tables of the same columns is equal; NULL equals NULL, NaN NaN."""
    same = pa.array([True] * left.num_rows, pa.bool_())
    for name in left.column_names:
        same = pc.and_(same, _equal(left.column(name), right.column(name)))
    result: list[bool] = same.to_pylist()
    return result


def _equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.Array:
    if pa.types.is_list(left.type):
        pairs = zip(left.to_pylist(), right.to_pylist(), strict=True)
        return pa.array([a == b for a, b in pairs], pa.bool_())
    same = pc.fill_null(pc.equal(left, right), False)
    if pa.types.is_floating(left.type):
        both_nan = pc.and_(pc.is_nan(left), pc.is_nan(right))
        same = pc.or_(same, pc.fill_null(both_nan, False))
    same = pc.or_(same, pc.and_(left.is_null(), right.is_null()))
    return same.combine_chunks() if isinstance(same, pa.ChunkedArray) else same


def judge(prepared: PreparedBatch, found: pa.Table, stored: pa.Table) -> None:
    """Settle every pending row whose record, as read under the lock, forbids the write.

    found:  the records that have one of the pending keys, in neutral storage, with their row
            number in the batch as the column ROW;
    stored: what `after` would read back as.
    """
    numbers = found.column(ROW).to_pylist()
    matches: dict[int, int] = {}
    for row in numbers:
        matches[row] = matches.get(row, 0) + 1
    indices = pa.array(numbers, pa.int64())
    as_before = _matching(prepared.before, found, indices)
    as_after = _matching(stored, found, indices)
    equal_before = dict(zip(numbers, as_before, strict=True))
    equal_after = dict(zip(numbers, as_after, strict=True))
    for row in prepared.pending():
        problem = _verdict(
            prepared.operation,
            matches.get(row, 0),
            as_before=equal_before.get(row, False),
            as_after=equal_after.get(row, False),
        )
        if problem is not None:
            prepared.settle(row, problem)


def _matching(image: pa.Table, found: pa.Table, indices: pa.Array) -> list[bool]:
    return equal_rows(image.take(indices), found) if image.num_columns else [True] * len(indices)


def _verdict(
    operation: Operation, matches: int, *, as_before: bool, as_after: bool
) -> WriteProblem | None:
    if matches == 0:
        return {Operation.INSERT: None, Operation.UPDATE: GONE, Operation.DELETE: ALREADY}[
            operation
        ]
    if operation is Operation.INSERT:
        return ALREADY if as_after else TAKEN
    if matches > 1:
        return AMBIGUOUS
    if as_before:
        return None
    return ALREADY if operation is Operation.UPDATE and as_after else STALE


def write_isolating(
    prepared: PreparedBatch, write: Callable[[Sequence[int]], None], rows: Sequence[int]
) -> None:
    """Write the rows together; what is refused gets its outcome (`isolated`)."""
    for row, problem in isolated(prepared, write, rows).items():
        prepared.settle(row, problem)


def isolated(
    prepared: PreparedBatch, write: Callable[[Sequence[int]], None], rows: Sequence[int]
) -> dict[int, WriteProblem]:
    """Write the rows together; when one is refused, halve until the bad ones stand alone.

    Returns why, by row. `write` leaves nothing behind when it raises RowRefused. A circle is never
    halved: when it is refused, so is each of its rows.
    """
    if not rows:
        return {}
    try:
        write(rows)
    except RowRefused as refusal:
        middle = _middle(prepared, rows)
        if middle == 0:
            return dict.fromkeys(rows, refusal.problem)
        first = isolated(prepared, write, rows[:middle])
        return first | isolated(prepared, write, rows[middle:])
    return {}


def _middle(prepared: PreparedBatch, rows: Sequence[int]) -> int:
    """Where to halve: as near to the middle as circles allow; 0 where nowhere."""
    middle = len(rows) // 2
    for circle in prepared.circles:
        if middle > 0 and circle[0] < rows[middle] <= circle[-1]:
            before = bisect_left(rows, circle[0])
            after = bisect_right(rows, circle[-1])
            return before or (after if after < len(rows) else 0)
    return middle


def refuse_finer_times(prepared: PreparedBatch, name: str, digits: int) -> None:
    """Settle rows whose time has more digits of a second than the field keeps."""
    column = prepared.after.column(name)
    if digits >= 6 or not pa.types.is_temporal(column.type) or pa.types.is_date(column.type):
        return
    step = 10 ** (6 - digits)
    numbers = column.cast(pa.int64())
    rest = pc.subtract(numbers, pc.multiply(pc.divide(numbers, step), step))
    finer = pc.fill_null(pc.not_equal(rest, 0), False)
    for row in pc.indices_nonzero(finer).to_pylist():
        message = f"The time has more than {digits} digits of a second."
        prepared.settle(row, rejected("record.out_of_range", message, name))
