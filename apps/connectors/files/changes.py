"""Compare-and-set of a ChangeBatch against the records of a file.

1. The batch's tables are cast to the types of the dataset; a value that does not fit rejects its
   change, a precondition that does not fit makes it stale.
2. Each change gets the identity of its key, of its precondition and of its result: texts that
   are equal exactly where the values are.
3. While the file is read, `Matcher.look` finds the rows whose key is named by a change and
   decides each one; a second row with the same key makes the change ambiguous.
4. `Matcher.finish` decides the changes whose key was not found.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    FieldSchema,
    Operation,
    WriteProblem,
    WriteStatus,
)
from apps.connectors.errors import FieldMissing
from apps.connectors.files.conversion import (
    OUT_OF_RANGE,
    Converted,
    Misfit,
    cast_leniently,
    from_text,
    identity,
    to_text,
)
from apps.connectors.files.rows import Rows
from apps.connectors.types import Kind, NeutralType

_ALREADY = WriteProblem(WriteStatus.ALREADY, "record.already", "the record is as it should be")
_MOVED = WriteProblem(WriteStatus.STALE, "record.stale", "the record is not as it was before")
_GONE = WriteProblem(WriteStatus.STALE, "record.gone", "there is no record with this key")
_EXISTS = WriteProblem(WriteStatus.STALE, "record.exists", "another record has this key")
_TWICE = WriteProblem(WriteStatus.REJECTED, "record.duplicate", "the batch names this key twice")
_AMBIGUOUS = WriteProblem(
    WriteStatus.REJECTED,
    "record.ambiguous",
    "more than one record of the file has this key; make the key unique in the file",
)
_KEY_TAKEN = WriteProblem(
    WriteStatus.REJECTED, "record.duplicate", "another record of the file has this key"
)
_CHECKED_BACK = (Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ)


def _typed(
    table: pa.Table, schema: DatasetSchema
) -> tuple[list[FieldSchema], list[pa.Array], dict[int, tuple[str, Misfit]]]:
    fields, columns = [], []
    misfits: dict[int, tuple[str, Misfit]] = {}
    for name in table.column_names:
        try:
            schema_field = schema.field(name)
        except KeyError:
            raise FieldMissing(f"there is no field '{name}'", where=schema.name) from None
        converted = _cast(table.column(name), schema_field)
        fields.append(schema_field)
        columns.append(converted.values)
        for row, misfit in converted.misfits.items():
            misfits.setdefault(row, (name, misfit))
    return fields, columns, misfits


def _cast(column: pa.ChunkedArray, schema: FieldSchema) -> Converted:
    target = schema.type.arrow
    array = _flat(column)
    if array.type == target:
        return Converted(array)
    misfit = Misfit(OUT_OF_RANGE, f"the value does not fit {schema.type}")
    return cast_leniently(array, lambda part: pc.cast(part, target), lambda _: misfit, target)


class Matcher:
    """Decides the changes of one batch."""

    def __init__(self, batch: ChangeBatch, schema: DatasetSchema) -> None:
        self.batch = batch
        self.operation = batch.operation
        self.problems: dict[int, WriteProblem] = {}
        self.hits: dict[int, tuple[int, int]] = {}
        self._counts: dict[int, int] = {}
        key_fields, key_columns, key_misfits = _typed(batch.key, schema)
        self._key_fields = key_fields
        self._key_columns = key_columns
        self._before_fields: list[FieldSchema] = []
        self._after_fields: list[FieldSchema] = []
        self._rest_fields: list[FieldSchema] = []  # those of `before` that are not written
        self._before: pa.Array | None = None
        self._rest: pa.Array | None = None
        self._after: pa.Array | None = None
        self.after: pa.Table | None = None
        for row, (name, misfit) in key_misfits.items():
            self._refuse(row, name, misfit.code, misfit.message)
        for field, column in zip(key_fields, key_columns, strict=True):
            for row in pc.indices_nonzero(pc.is_null(column)).to_pylist():
                self._refuse(row, field.name, "record.required", "a key field has no value")
        if batch.before is not None and batch.operation is not Operation.INSERT:
            fields, columns, misfits = _typed(batch.before, schema)
            self._before_fields, self._before = fields, identity(columns, _types(fields))
            for row in misfits:
                self.problems.setdefault(row, _MOVED)
            self._note_rest(fields, columns)
        if batch.after is not None and batch.operation is not Operation.DELETE:
            self._take_after(batch.after, schema)
        self._claim_keys(schema)
        self._keys, self._first = self._unique(identity(key_columns, _types(key_fields)))

    def _note_rest(self, fields: Sequence[FieldSchema], columns: Sequence[pa.Array]) -> None:
        written = set() if self.batch.after is None else set(self.batch.after.column_names)
        rest = [pair for pair in zip(fields, columns, strict=True) if pair[0].name not in written]
        if rest:
            self._rest_fields = [field for field, _ in rest]
            self._rest = identity([column for _, column in rest], _types(self._rest_fields))

    def _take_after(self, after: pa.Table, schema: DatasetSchema) -> None:
        fields, columns, misfits = _typed(after, schema)
        self._after_fields, self._after = fields, identity(columns, _types(fields))
        self.after = pa.table(columns, names=[f.name for f in fields])
        for row, (name, misfit) in misfits.items():
            self._refuse(row, name, misfit.code, misfit.message)
        for field, column in zip(fields, columns, strict=True):
            self._check_values(field, column, misfits)

    def _claim_keys(self, schema: DatasetSchema) -> None:
        """Where the batch writes the dataset's key but is addressed by other fields."""
        self._claims: dict[str, int] = {}
        self._taken: set[int] = set()
        self._moved: set[int] = set()  # an earlier attempt gave the record its new key
        self._claim_fields: list[FieldSchema] = []
        names = set(schema.key)
        is_addressed = names == {f.name for f in self._key_fields}
        is_addressed = is_addressed and self.operation is Operation.INSERT
        if not names or self.after is None or is_addressed:
            return
        if not names <= set(self.after.column_names):
            return
        self._claim_fields = [schema.field(name) for name in schema.key]
        columns = [_flat(self.after.column(f.name)) for f in self._claim_fields]
        for row, claim in enumerate(identity(columns, _types(self._claim_fields)).to_pylist()):
            if row not in self.problems and self._claims.setdefault(claim, row) != row:
                self.problems[row] = _TWICE

    def _note_claimed(self, rows: Rows) -> None:
        """Find the rows that have a key which a change is to give to another record."""
        if not self._claims or not rows.num_rows:
            return
        claims = self._identity(rows, self._claim_fields)
        known = pc.is_in(claims, value_set=pa.array(list(self._claims), pa.string()))
        for row in pc.indices_nonzero(known).to_pylist():
            change = self._claims[claims[row].as_py()]
            if self.hits.get(change) != rows.address(row):
                self._taken.add(change)
                changes, place = pa.array([change], pa.int64()), pa.array([row], pa.int64())
                same = self._equal(rows, place, changes, self._after_fields, self._after, False)
                rest = self._equal(rows, place, changes, self._rest_fields, self._rest, True)
                if same[0] and rest[0] and row not in rows.misfits:
                    self._moved.add(change)

    def _check_values(
        self, field: FieldSchema, column: pa.Array, misfits: dict[int, tuple[str, Misfit]]
    ) -> None:
        if not field.nullable and column.null_count:
            for row in pc.indices_nonzero(pc.is_null(column)).to_pylist():
                if row not in misfits:
                    self._refuse(row, field.name, "record.required", "the field needs a value")
        if field.type.kind is Kind.TEXT and field.type.length is not None:
            longer = pc.greater(pc.utf8_length(column), field.type.length)
            for row in pc.indices_nonzero(pc.fill_null(longer, False)).to_pylist():
                self._refuse(
                    row, field.name, "record.too_long", f"the text is longer than {field.type}"
                )
        if field.type.kind in _CHECKED_BACK:
            back = from_text(to_text(column, field.type), field.type)
            for row in back.misfits:
                self._refuse(row, field.name, OUT_OF_RANGE, "the year is not of four digits")

    def _refuse(self, row: int, field: str, code: str, message: str) -> None:
        text = f"field '{field}': {message}"
        self.problems.setdefault(row, WriteProblem(WriteStatus.REJECTED, code, text, field))

    def refuse(self, row: int, field: str, code: str, message: str) -> None:
        """Reject a change that the format cannot hold."""
        self._refuse(row, field, code, message)

    def _unique(self, keys: pa.Array) -> tuple[pa.Array, list[int]]:
        first: dict[str, int] = {}
        for row, key in enumerate(keys.to_pylist()):
            if row in self.problems:
                continue
            if first.setdefault(key, row) != row:
                self.problems[row] = _TWICE
        return pa.array(list(first), pa.string()), list(first.values())

    def addresses(self) -> tuple[list[FieldSchema], list[pa.Array]]:
        """The keys under which the records stand after the write: an update may move them."""
        moved = set() if self.after is None else set(self.after.column_names)
        columns = [
            _flat(self.after.column(field.name))
            if self.after is not None and field.name in moved
            else column
            for field, column in zip(self._key_fields, self._key_columns, strict=True)
        ]
        return self._key_fields, columns

    @property
    def fields(self) -> list[FieldSchema]:
        """The fields that have to be read to decide."""
        fields = (*self._key_fields, *self._before_fields, *self._after_fields)
        return list({f.name: f for f in (*fields, *self._claim_fields)}.values())

    def look(self, rows: Rows) -> list[tuple[int, int]]:
        """Decide the changes that these rows answer: pairs of row and change to write."""
        writes = self._look(rows)
        self._note_claimed(rows)
        return writes

    def _look(self, rows: Rows) -> list[tuple[int, int]]:
        if not rows.num_rows or not len(self._keys):
            return []
        found = pc.index_in(self._identity(rows, self._key_fields), value_set=self._keys)
        matched = pc.indices_nonzero(pc.is_valid(found))
        if not len(matched):
            return []
        changes = pa.array([self._first[n] for n in found.take(matched).to_pylist()], pa.int64())
        is_before = self._equal(rows, matched, changes, self._before_fields, self._before, True)
        is_after = self._equal(rows, matched, changes, self._after_fields, self._after, False)
        writes: list[tuple[int, int]] = []
        decisions = zip(matched.to_pylist(), changes.to_pylist(), is_before, is_after, strict=True)
        for row, change, before, after in decisions:
            settled = change in self.problems and change not in self._counts
            broken = self._key_is_broken(rows, row)
            if settled or broken or not self._decide(change, before, after, row in rows.misfits):
                continue
            self.hits[change] = rows.address(row)
            writes.append((row, change))
        return writes

    def _key_is_broken(self, rows: Rows, row: int) -> bool:
        """Whether a key value of the row did not fit its type, so that its NULL is none."""
        return row in rows.misfits and any(rows.misfits[row][0] == f.name for f in self._key_fields)

    def _decide(self, change: int, before: bool, after: bool, misfit: bool) -> bool:
        count = self._counts[change] = self._counts.get(change, 0) + 1
        if self.operation is Operation.INSERT:
            if count == 1 or after:
                self.problems[change] = _ALREADY if after and not misfit else _EXISTS
            return False
        if count > 1:
            self.problems[change] = _AMBIGUOUS
            self.hits.pop(change, None)
            return False
        if before and not misfit:
            return True
        unchanged = after and not misfit and self.operation is Operation.UPDATE
        self.problems[change] = _ALREADY if unchanged else _MOVED
        return False

    @staticmethod
    def _identity(rows: Rows, fields: Sequence[FieldSchema]) -> pa.Array:
        return identity([rows.columns[f.name] for f in fields], _types(fields))

    def _equal(
        self,
        rows: Rows,
        matched: pa.Array,
        changes: pa.Array,
        fields: Sequence[FieldSchema],
        wanted: pa.Array | None,
        default: bool,
    ) -> list[bool]:
        if wanted is None:
            return [default] * len(matched)
        columns = [rows.columns[f.name].take(matched) for f in fields]
        equal = pc.equal(identity(columns, _types(fields)), wanted.take(changes))
        result: list[bool] = equal.to_pylist()
        return result

    def finish(self) -> list[int]:
        """Decide the rest; the changes of an insert batch that are to be appended."""
        for row in self._taken - self.problems.keys():
            if self.operation is Operation.UPDATE and row not in self._counts:
                continue
            self.problems[row] = _KEY_TAKEN
            self.hits.pop(row, None)
        absent = [
            row for row in self._first if row not in self._counts and row not in self.problems
        ]
        if self.operation is Operation.INSERT:
            return absent
        for row in absent:
            is_gone = self.operation is Operation.UPDATE and row not in self._moved
            self.problems[row] = _GONE if is_gone else _ALREADY
        return []


def _types(fields: Sequence[FieldSchema]) -> list[NeutralType]:
    return [f.type for f in fields]


def _flat(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
