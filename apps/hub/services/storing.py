"""Writing records: the one place where revisions come from.

A write ends so: the counter of the dataset is moved on by as many numbers as there are writes, the
rows are stored with them, and the transaction is committed. The counter's row is held in between,
so numbers are committed in their order; sealing and merging are done before it is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import connection

from apps.connectors.base import Operation
from apps.core.bulk import bulk_insert, bulk_update
from apps.core.clock import new_id, now
from apps.core.protected import ErasedValueError
from apps.hub.bodies import (
    digest_of,
    dumped,
    kept,
    loaded,
    opened,
    record_place,
    revision_place,
    scope_name,
)
from apps.hub.models import HostedDataset, HostedRecord, Revision, ScopeExit
from apps.hub.models import Sequence as Counter
from apps.hub.schemas import Record

CHUNK = 500


@dataclass(slots=True)
class Stored:
    """A record as it is stored. record: of a tombstone, what it was."""

    key: str
    revision: int
    is_deleted: bool
    scope: str
    record: Record
    clocks: dict[str, str]

    @property
    def living(self) -> Record | None:
        return None if self.is_deleted else self.record


@dataclass(frozen=True, slots=True)
class Author:
    """Who a write is by: a mutation of a replica, or a session of a rule's run."""

    replica_id: UUID | None = None
    mutation: int | None = None
    run_lock: str = ""


@dataclass(slots=True)
class Write:
    """One write of one record. record: as it is afterwards, of a delete as it was.

    stored: what was there before, None where nothing ever was; before: values of the changed
    fields; of a delete, all of them.
    """

    key: str
    operation: Operation
    stored: Stored | None
    record: Record
    fields: list[str]
    before: Record
    clocks: dict[str, str]
    author: Author
    revision: int = 0
    previous: int | None = field(default=None)


class Books(NamedTuple):
    """What all writes of a dataset have in common."""

    hosted: HostedDataset
    is_personal: bool


def scope_of(hosted: HostedDataset, record: Record) -> str:
    """The scope that a record is in."""
    return scope_name(record.get(hosted.scope_field)) if hosted.scope_field else ""


def load_records(hosted: HostedDataset, keys: Iterable[str], *, lock: bool) -> dict[str, Stored]:
    """Records and tombstones by key; lock: until the end of the transaction, in one order."""
    rows = HostedRecord.objects.filter(hosted=hosted).order_by("key")
    if lock:
        rows = rows.select_for_update()
    found: dict[str, Stored] = {}
    wanted = sorted(set(keys))
    for start in range(0, len(wanted), CHUNK):
        part = rows.filter(key__in=wanted[start : start + CHUNK])
        for row in part.values_list(*STORED_COLUMNS):
            stored = stored_of(hosted.pk, row)
            found[stored.key] = stored
    return found


STORED_COLUMNS = ("key", "revision", "is_deleted", "scope", "body", "sealed_body", "clocks")


def stored_of(hosted_id: UUID, row: Sequence[Any]) -> Stored:
    """From `STORED_COLUMNS`."""
    key, revision, is_deleted, scope, clear, sealed, clocks = row
    text = opened(clear, sealed, record_place(hosted_id, key))
    return Stored(key, revision, is_deleted, scope, loaded(text or "{}"), clocks)


def values_before(revision: Revision) -> Record:
    """What a write has changed. Nothing where that was erased."""
    place = revision_place(revision.pk)
    try:
        text = opened(revision.before, revision.sealed_before, place)
    except ErasedValueError:
        text = None
    found: Record = loaded(text) if text else {}
    return found


def take_numbers(hosted: HostedDataset, count: int) -> int:
    """The first of `count` numbers; call it when nothing is left but to store and commit."""
    table = connection.ops.quote_name(Counter._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(
            f"UPDATE {table} SET last = last + %s WHERE hosted_id = %s RETURNING last",  # noqa: S608  # nosec B608  # a name of our own model
            [count, hosted.pk if connection.vendor == "postgresql" else hosted.pk.hex],
        )
        row = cursor.fetchone()
    return int(row[0]) - count + 1


def commit_writes(books: Books, writes: list[Write]) -> None:
    """Store writes in their order, and give each its revision. Within a transaction, at its end.

    Raises IntegrityError where somebody has made one of the new records meanwhile: all is to be
    done again.
    """
    if not writes:
        return
    moment = now()
    revisions = [_revision(books, write) for write in writes]
    latest = {write.key: write for write in writes}
    had = {write.key: write.stored for write in reversed(writes)}
    rows = {key: _row(books, write) for key, write in latest.items()}
    first = take_numbers(books.hosted, len(writes))
    current = {key: stored.revision if stored else None for key, stored in had.items()}
    for number, write in enumerate(writes, start=first):
        write.revision, write.previous = number, current[write.key]
        current[write.key] = number
    bulk_insert(
        Revision,
        REVISION_COLUMNS,
        (
            (*row, write.revision, write.previous, moment)
            for row, write in zip(revisions, writes, strict=True)
        ),
    )
    numbered = {key: (*row, latest[key].revision, moment) for key, row in rows.items()}
    _store_rows(numbered, had)
    if books.hosted.scope_field:
        _store_exits(books.hosted, writes, moment)


_UPDATED = (
    "is_deleted",
    "scope",
    "body",
    "sealed_body",
    "clocks",
    "digest",
    "revision",
    "changed_at",
)
RECORD_COLUMNS = ("hosted", "key", *_UPDATED)
REVISION_COLUMNS = (
    "id",
    "hosted",
    "key",
    "operation",
    "fields",
    "before",
    "sealed_before",
    "replica",
    "mutation",
    "run_lock",
    "revision",
    "previous",
    "made_at",
)


def _store_rows(rows: dict[str, tuple[Any, ...]], had: dict[str, Stored | None]) -> None:
    """New records are inserted, so that one which somebody else has made meanwhile is an error."""
    made = [rows[key] for key in sorted(rows) if had[key] is None]
    moved = [rows[key] for key in sorted(rows) if had[key] is not None]
    if made:
        bulk_insert(HostedRecord, RECORD_COLUMNS, made)
    if moved:
        bulk_update(HostedRecord, ("hosted", "key"), _UPDATED, moved)


def _row(books: Books, write: Write) -> tuple[Any, ...]:
    """Values of `RECORD_COLUMNS` without the last two."""
    text = dumped(write.record)
    body = kept(text, record_place(books.hosted.pk, write.key), books.is_personal)
    return (
        books.hosted.pk,
        write.key,
        write.operation is Operation.DELETE,
        scope_of(books.hosted, write.record),
        body.clear,
        body.sealed,
        orjson.dumps(write.clocks).decode(),
        digest_of(write.key, text),
    )


def _revision(books: Books, write: Write) -> tuple[Any, ...]:
    """Values of `REVISION_COLUMNS` without the last three."""
    identity = new_id()
    text = dumped(write.before) if write.before else None
    before = kept(text, revision_place(identity), books.is_personal)
    return (
        identity,
        books.hosted.pk,
        write.key,
        write.operation.value,
        orjson.dumps(write.fields).decode(),
        before.clear,
        before.sealed,
        write.author.replica_id,
        write.author.mutation,
        write.author.run_lock[:200],
    )


def _store_exits(hosted: HostedDataset, writes: list[Write], moment: datetime) -> None:
    """Where a record has left a scope, whoever sees only that one has to be told."""
    places: dict[tuple[str, str], int] = {}
    scopes = {w.key: w.stored.scope for w in reversed(writes) if w.stored is not None}
    for write in writes:
        before, after = scopes.get(write.key), scope_of(hosted, write.record)
        scopes[write.key] = after
        places.pop((write.key, after), None)
        if before is not None and before != after:
            places[write.key, before] = write.revision
    ScopeExit.objects.bulk_create(
        [
            ScopeExit(hosted=hosted, key=key, scope=scope, revision=number, left_at=moment)
            for (key, scope), number in sorted(places.items())
        ],
        update_conflicts=True,
        unique_fields=["hosted", "key", "scope"],
        update_fields=["revision", "left_at"],
    )
