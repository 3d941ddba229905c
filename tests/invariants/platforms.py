"""The platforms of a flock: what people do there, and what workers read and write there."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import orjson
import pyarrow as pa

from apps.connectors.base import DatasetSchema, Fence, Operation, WriteProblem, WriteStatus
from apps.engine.codec import decode_images, encode_images
from apps.engine.types_sql import key_text
from apps.ledger.selectors import PlannedChange
from tests.invariants.setups import TYPES, Alters, Record, dataset

SCHEMA: DatasetSchema = dataset("records").schema()
FIELD_TYPES = {field.name: field.type for field in SCHEMA.fields}
KEY_TYPES = {"id": FIELD_TYPES["id"]}


@dataclass
class Outcome:
    """What became of changes, by sequence.

    already: the record is as it should be, nothing was written; stored: the records as the
    platform holds them after the write, of all changes but those with problems and deletes.
    """

    problems: dict[int, WriteProblem] = field(default_factory=dict)
    stored: dict[int, Record] = field(default_factory=dict)
    already: set[int] = field(default_factory=set)


Note = Callable[[Sequence[PlannedChange], Outcome], None]


class Platform(ABC):
    """One dataset somewhere. Records are known by the texts of their keys.

    is_lossy: it may store other values than it is given.
    """

    is_lossy = False

    @abstractmethod
    def records(self) -> dict[str, Record]:
        """All records by key."""

    @abstractmethod
    def record(self, key: str) -> Record | None: ...

    @abstractmethod
    def person_writes(self, key: str, values: Mapping[str, str | None]) -> None:
        """A person creates a record, or writes these fields of it."""

    @abstractmethod
    def person_deletes(self, key: str) -> None: ...

    @abstractmethod
    def write(
        self,
        changes: Sequence[PlannedChange],
        returning: Sequence[str],
        *,
        in_doubt: bool,
        fence: Fence,
        note: Note,
    ) -> Outcome:
        """A worker writes a batch; every change under its precondition.

        returning: the fields of `Outcome.stored`; note: is told the outcome of these changes, or
        of a part of them, before it is committed. Raises what note and fence raise; then nothing
        (of that part) is written.
        """

    @abstractmethod
    def clear(self) -> None:
        """Remove all records."""

    def read(self) -> tuple[pa.Table, dict[str, Record]]:
        """All records as a worker reads them, and as texts."""
        records = self.records()
        return typed(list(records.values())), records


def typed(records: Sequence[Record]) -> pa.Table:
    """Records in the storage of their types."""
    texts = [json.dumps(record) for record in records]
    return decode_images(texts, FIELD_TYPES)


def image_of(text: str | None) -> Record | None:
    image: Record | None = orjson.loads(text) if text else None
    return image


def texts_of(table: pa.Table) -> dict[str, Record]:
    """Records as texts, by key."""
    images = encode_images(table, {name: FIELD_TYPES[name] for name in table.column_names})
    found = (orjson.loads(image) for image in images)
    return {key_text([record["id"]]): record for record in found}


class MemoryPlatform(Platform):
    """Records in memory, written with the contract of a connector's write session."""

    def __init__(self, alters: Alters) -> None:
        self._alters = alters
        self.is_lossy = alters.is_lossy
        self._records: dict[str, Record] = {}

    def records(self) -> dict[str, Record]:
        return {key: self._records[key] for key in sorted(self._records)}

    def record(self, key: str) -> Record | None:
        return self._records.get(key)

    def person_writes(self, key: str, values: Mapping[str, str | None]) -> None:
        self._store(key, values)

    def person_deletes(self, key: str) -> None:
        self._records.pop(key, None)

    def clear(self) -> None:
        self._records.clear()

    def _store(self, key: str, values: Mapping[str, str | None]) -> None:
        record = {**self._records.get(key, dict.fromkeys(TYPES)), **values}
        self._records[key] = self._alters.stored(record)

    def write(
        self,
        changes: Sequence[PlannedChange],
        returning: Sequence[str],
        *,
        in_doubt: bool,
        fence: Fence,
        note: Note,
    ) -> Outcome:
        outcome = Outcome()
        with self._transaction(fence):
            for change in changes:
                self._write(change, outcome)
            for change in changes:
                if change.sequence not in outcome.problems and change.operation != "delete":
                    outcome.stored[change.sequence] = dict(self._records[change.own_key])
            note(changes, outcome)
        return outcome

    def _write(self, change: PlannedChange, outcome: Outcome) -> None:
        before, after = image_of(change.before), image_of(change.after)
        status = self._judge(change, before or {}, after or {})
        if status is WriteStatus.ALREADY:
            outcome.already.add(change.sequence)
        elif status is WriteStatus.STALE:
            outcome.problems[change.sequence] = WriteProblem(status)
        elif after is None:
            del self._records[change.own_key]
        else:
            self._store(change.own_key, after)

    @contextmanager
    def _transaction(self, fence: Fence) -> Iterator[None]:
        kept = dict(self._records)
        try:
            yield
            fence()
        except BaseException:
            self._records = kept
            raise

    def _judge(self, change: PlannedChange, before: Record, after: Record) -> WriteStatus:
        """As `WriteSession` promises."""
        record = self._records.get(change.own_key)
        if change.operation == Operation.INSERT:
            if record is None:
                return WriteStatus.APPLIED
            return WriteStatus.ALREADY if _holds(record, after) else WriteStatus.STALE
        is_delete = change.operation == Operation.DELETE
        if record is None:
            return WriteStatus.ALREADY if is_delete else WriteStatus.STALE
        if _holds(record, before):
            return WriteStatus.APPLIED
        return WriteStatus.ALREADY if not is_delete and _holds(record, after) else WriteStatus.STALE


def _holds(record: Record, values: Record) -> bool:
    return all(record[name] == value for name, value in values.items())
