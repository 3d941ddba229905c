"""Writing hub records for rules: compare-and-set of a batch in one transaction.

The records that a batch names are locked and judged as files judge theirs
(`files.changes.Matcher`); those to be written get their revisions last, as every write does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pyarrow as pa
from django.db import IntegrityError, transaction

from apps.connectors.base import (
    ChangeBatch,
    DatasetSchema,
    Fence,
    FieldSchema,
    Note,
    Operation,
    WriteResult,
    WriteSession,
)
from apps.connectors.errors import KeyMissing, TargetBusy
from apps.connectors.files.changes import Matcher
from apps.connectors.files.returning import Returning
from apps.connectors.files.rows import Rows
from apps.connectors.sql import find_fields
from apps.connectors.types import Kind
from apps.hub import clocks
from apps.hub.bodies import key_of
from apps.hub.connector.reading import (
    PART,
    hosted_named,
    keys_of,
    records_of,
    rows_of,
)
from apps.hub.errors import MutationRefused
from apps.hub.merging import same
from apps.hub.models import HostedRecord
from apps.hub.schemas import Record
from apps.hub.selectors import has_personal_fields, shape_of_hosted
from apps.hub.services.storing import (
    Author,
    Books,
    Stored,
    Write,
    commit_writes,
    load_records,
    scope_of,
)


class HubWriteSession(WriteSession):
    """Writes on behalf of a rule. lock: names the rule and its partition, for the history."""

    def __init__(self, name: str, lock: str) -> None:
        self._name = name
        self._lock = lock

    def __enter__(self) -> HubWriteSession:
        hosted_named(self._name)
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is held between batches."""

    def apply(
        self,
        batch: ChangeBatch,
        fence: Fence,
        *,
        returning: Sequence[str] = (),
        note: Note | None = None,
    ) -> WriteResult:
        if batch.assigns_key:
            raise KeyMissing("the hub gives out no keys", where=self._name)
        try:
            with transaction.atomic():
                return _Batch(self._name, self._lock, batch, returning).apply(fence, note)
        except IntegrityError:
            raise TargetBusy(
                "somebody has made one of these records meanwhile", where=self._name
            ) from None


class _Batch:
    """One batch, within its transaction."""

    def __init__(self, name: str, lock: str, batch: ChangeBatch, returning: Sequence[str]) -> None:
        self.hosted = hosted_named(name)
        self.shape = shape_of_hosted(self.hosted)
        self.schema: DatasetSchema = self.shape.described(name)
        self.batch = batch
        self.returning = Returning(returning, self.schema)
        self.matcher = Matcher(batch, self.schema)
        self.author = Author(run_lock=lock)
        self.milliseconds = time.time_ns() // 1_000_000
        self.records: dict[str, Stored] = {}  # those that live now, by key
        self.writes: list[Write] = []

    def apply(self, fence: Fence, note: Note | None) -> WriteResult:
        self._refuse_json_null()
        self._load()
        hits = self._judged()
        after = self._after()
        self._check(after, hits)
        absent = self._finished(after)
        for change, stored in sorted(hits.items()):
            if change not in self.matcher.problems:
                self._replace(stored, after[change] if after else None)
        for change in absent:
            self._insert(after[change])
        commit_writes(Books(self.hosted, has_personal_fields(self.hosted)), self.writes)
        problems = dict(sorted(self.matcher.problems.items()))
        stored_table = self.returning.read(self, self.matcher, self.batch.num_rows)
        result = WriteResult(self.batch.num_rows, problems, stored=stored_table)
        if note is not None:
            note(result)
        fence()
        return result

    def rows(self, fields: Sequence[FieldSchema]) -> Iterator[Rows]:
        """The records that were looked at, as they are now."""
        every = list(self.records.values())
        for start in range(0, len(every), PART):
            yield rows_of(every[start : start + PART], fields)

    def _refuse_json_null(self) -> None:
        """The document `null` would read back as NULL."""
        after = self.matcher.after
        for field in self.schema.fields if after is not None else ():
            if field.type.kind is Kind.JSON and field.name in after.column_names:
                for row, text in enumerate(after.column(field.name).to_pylist()):
                    if text == "null":
                        message = "the hub cannot tell the JSON value null from a missing value"
                        self.matcher.refuse(row, field.name, "record.invalid", message)

    def _load(self) -> None:
        """Lock the records that the batch names by their key, or else all there are."""
        names = set(self.schema.key)
        find_fields(self.schema, self.batch.key.column_names)
        wanted: set[str] = set()
        if names == set(self.batch.key.column_names):
            wanted |= self._known_keys(self.batch.key)
        else:
            rows = HostedRecord.objects.filter(hosted=self.hosted, is_deleted=False)
            wanted |= set(rows.values_list("key", flat=True))
        after = self.matcher.after
        if after is not None and names <= set(after.column_names):
            wanted |= self._known_keys(after.select(list(self.schema.key)))
        self.locked = load_records(self.hosted, wanted, lock=True)
        self.records = {k: one for k, one in self.locked.items() if not one.is_deleted}

    def _known_keys(self, table: pa.Table) -> set[str]:
        """Of rows whose values are of the types of the dataset; others are refused anyway."""
        fields = find_fields(self.schema, table.column_names)
        columns = [table.column(field.name) for field in fields]
        if any(c.type != f.type.arrow for c, f in zip(columns, fields, strict=True)):
            typed = Matcher(ChangeBatch(Operation.INSERT, table), self.schema)
            _, arrays = typed.addresses()
            table = pa.table(arrays, names=[field.name for field in fields])
        return {key for key in keys_of(self.shape, table) if key is not None}

    def _judged(self) -> dict[int, Stored]:
        """The record of each change that is to be written."""
        every = list(self.records.values())
        hits: dict[int, Stored] = {}
        for start in range(0, len(every), PART):
            part = every[start : start + PART]
            for row, change in self.matcher.look(rows_of(part, self.matcher.fields)):
                hits[change] = part[row]
        return hits

    def _after(self) -> list[Record]:
        """What each change writes; of a delete nothing."""
        after = self.matcher.after
        if after is None:
            return []
        return records_of(after, find_fields(self.schema, after.column_names))

    def _written(self, record: Record, after: Record) -> Record:
        """A record with what a change writes, of which NULL takes a value away."""
        names = self.matcher.after.column_names if self.matcher.after is not None else ()
        kept = {name: value for name, value in record.items() if name not in names}
        return {**kept, **after}

    def _check(self, after: list[Record], hits: dict[int, Stored]) -> None:
        """Refuse what the schema does not allow beyond types, which the matcher knows."""
        is_insert = self.batch.operation is Operation.INSERT
        for change, values in enumerate(after):
            stored = hits.get(change)
            if change in self.matcher.problems or not (is_insert or stored):
                continue
            record = self._written(stored.record if stored else {}, values)
            try:
                self.shape.check(record, list(values))
                key_of(self.shape, record)
            except MutationRefused as error:
                name = error.field or self.schema.key[0]
                code = "record.required" if record.get(name) is None else "record.invalid"
                self.matcher.refuse(change, name, code, error.message)

    def _finished(self, after: list[Record]) -> list[int]:
        return [change for change in self.matcher.finish() if after]

    def _replace(self, stored: Stored, after: Record | None) -> None:
        if self.batch.operation is Operation.DELETE or after is None:
            self._write(Operation.DELETE, stored, stored.record, sorted(stored.record))
            return
        record = self._written(stored.record, after)
        if key_of(self.shape, record) != stored.key:
            self._write(Operation.DELETE, stored, stored.record, sorted(stored.record))
            self._insert(record)
            return
        names = record.keys() | stored.record.keys()
        changed = sorted(n for n in names if not same(record.get(n), stored.record.get(n)))
        if changed:
            self._write(Operation.UPDATE, stored, record, changed)

    def _insert(self, record: Record) -> None:
        key = key_of(self.shape, record)
        there = self.locked.get(key)
        self._write(Operation.INSERT, there, record, sorted(record), key)

    def _write(
        self,
        operation: Operation,
        stored: Stored | None,
        record: Record,
        changed: list[str],
        key: str = "",
    ) -> None:
        held = stored.record if stored and operation is not Operation.INSERT else {}
        times = dict(stored.clocks) if stored and held else {}
        if operation is Operation.UPDATE:
            newest = {n: times.get(n, times.get("", "")) for n in changed}
            times |= {n: clocks.after(c, self.milliseconds) for n, c in newest.items()}
        elif operation is Operation.INSERT:
            times = {"": clocks.stamp_of(self.milliseconds)}
        write = Write(
            key=stored.key if stored else key,
            operation=operation,
            stored=stored,
            record=record,
            fields=changed,
            before={name: held.get(name) for name in changed} if held else {},
            clocks=times,
            author=self.author,
        )
        self.writes.append(write)
        self.records.pop(write.key, None)
        if operation is not Operation.DELETE:
            self.records[write.key] = Stored(
                write.key, 0, False, scope_of(self.hosted, record), record, times
            )
