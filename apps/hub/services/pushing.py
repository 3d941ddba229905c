"""Pushes: the mutations of one replica, in their order, each done once.

A replica numbers its mutations of a dataset 1, 2, 3, … without a gap. What comes again is answered
as the first time; what comes too early is refused, so that nothing is skipped. One transaction
holds the replica's progress, the records by key, and last the counter of the dataset.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from django.db import IntegrityError, OperationalError, transaction
from django.db.models import Max

from apps.connectors.base import Operation
from apps.engine.spec import EditDelete
from apps.hub import clocks
from apps.hub.bodies import dumped, kept, key_of, mutation_place, with_key
from apps.hub.errors import MutationRefused, OutOfOrder, PushConflict
from apps.hub.merging import Base, Edit, Merged, Status, merge_into, merge_into_nothing
from apps.hub.models import HostedDataset, Mutation, Replica, ReplicaProgress, Revision
from apps.hub.schemas import Record, Shape
from apps.hub.selectors import Access, has_personal_fields, shape_of_hosted
from apps.hub.services.storing import (
    Author,
    Books,
    Stored,
    Write,
    commit_writes,
    load_records,
    scope_of,
    values_before,
)

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a mutation is answered with. record: as it is now, where the replica has to take it."""

    number: int
    status: str
    revision: int | None
    record: Record | None = None
    code: str = ""
    message: str = ""
    fields: tuple[str, ...] = ()


def push(
    hosted: HostedDataset, replica: Replica, edits: Sequence[Edit], access: Access
) -> list[Outcome]:
    """Apply edits in their order, those that were applied before aside. Raises OutOfOrder."""
    for attempt in range(ATTEMPTS):
        try:
            with transaction.atomic():
                return _Push(hosted, replica, access).run(edits)
        except (IntegrityError, OperationalError):
            # Somebody has made one of the records, or waits for us while we wait for him.
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError


@dataclass(slots=True)
class _Done:
    """A mutation that was looked at, before its write has a revision."""

    edit: Edit
    merged: Merged | None
    write: Write | None = None
    stored: Stored | None = None
    code: str = ""
    message: str = ""
    fields: tuple[str, ...] = ()

    @property
    def status(self) -> Status:
        return self.merged.status if self.merged else Status.REJECTED


class _Step(NamedTuple):
    """A write of a record. previous: the revision before; before: values of the changed fields."""

    revision: int
    previous: int | None
    operation: str
    fields: list[str]
    before: Record
    is_own: bool


class _Push:
    """One attempt, within its transaction."""

    def __init__(self, hosted: HostedDataset, replica: Replica, access: Access) -> None:
        self.hosted = hosted
        self.replica = replica
        self.access = access
        self.shape: Shape = shape_of_hosted(hosted)
        self.books = Books(hosted, has_personal_fields(hosted))
        self.milliseconds = time.time_ns() // 1_000_000
        self.stored: dict[str, Stored] = {}
        self.histories: dict[str, list[_Step]] = {}
        self.writes: list[Write] = []
        self.skew: int | None = None

    def run(self, edits: Sequence[Edit]) -> list[Outcome]:
        progress = self._progress()
        fresh = self._fresh(edits, progress.last_mutation)
        repeated = [edit for edit in edits if edit.number <= progress.last_mutation]
        self.stored = load_records(self.hosted, {edit.key for edit in edits}, lock=bool(fresh))
        outcomes = _repeated(self, repeated)
        if fresh:
            self._load_histories(fresh)
            done = [self._do(edit) for edit in fresh]
            self._set_aside(done)
            progress.last_mutation = fresh[-1].number
            progress.save(update_fields=["last_mutation"])
            commit_writes(self.books, self.writes)
            outcomes += [self._outcome(each) for each in done]
        return outcomes

    def _progress(self) -> ReplicaProgress:
        ReplicaProgress.objects.get_or_create(replica=self.replica, hosted=self.hosted)
        rows = ReplicaProgress.objects.select_for_update(of=("self",))
        return rows.get(replica=self.replica, hosted=self.hosted)

    def _fresh(self, edits: Sequence[Edit], last: int) -> list[Edit]:
        """Those that are new. Raises OutOfOrder."""
        fresh = []
        for edit in edits:
            if edit.number <= last:
                continue
            expected = last + len(fresh) + 1
            if edit.number != expected:
                raise OutOfOrder(f"mutation {expected} was expected, not {edit.number}")
            fresh.append(edit)
        return fresh

    # What the replica had seen

    def _load_histories(self, edits: Sequence[Edit]) -> None:
        """The writes since the oldest revision that the edits of each record are based on."""
        since: dict[str, int] = {}
        for edit in edits:
            stored = self.stored.get(edit.key)
            if stored and edit.base_revision and edit.base_revision < stored.revision:
                since[edit.key] = min(edit.base_revision, since.get(edit.key, edit.base_revision))
        if not since:
            return
        rows = Revision.objects.filter(
            hosted=self.hosted, key__in=since, revision__gt=min(since.values())
        )
        for row in rows.order_by("revision"):
            if row.revision > since[row.key]:
                is_own = row.replica_id == self.replica.pk
                before = values_before(row)
                step = _Step(row.revision, row.previous, row.operation, row.fields, before, is_own)
                self.histories.setdefault(row.key, []).append(step)

    def _base(self, edit: Edit, stored: Stored) -> Base:
        """What the replica had seen of a record that lives now."""
        own = [write for write in self.writes if write.key == edit.key]
        if not edit.base_revision:
            is_made_here = bool(own) and own[0].operation is Operation.INSERT
            return Base(stored.record if is_made_here else {}, is_foreign=not is_made_here)
        before = own[0].stored if own else stored
        steps = [s for s in self.histories.get(edit.key, ()) if s.revision > edit.base_revision]
        first = steps[0].previous if steps else (before.revision if before else None)
        steps += [_Step(0, None, w.operation.value, w.fields, w.before, True) for w in own]
        is_whole = all(step.operation == Operation.UPDATE.value for step in steps)
        if first != edit.base_revision or not is_whole:
            return Base(None, is_foreign=True)
        return _walked_back(stored.record, steps)

    # One mutation

    def _do(self, edit: Edit) -> _Done:
        stored = self.stored.get(edit.key)
        stamped = clocks.clamped(edit.stamp, self.milliseconds)
        self.skew = stamped.skew if stamped.skew is not None else self.skew
        edit = replace(edit, stamp=stamped.stamp)
        if stored is not None and not self.access.sees(stored.scope):
            return _refused(edit, None, "this key is not yours")
        try:
            done = self._merged(edit, stored)
            self._require_own_scope(done)
        except MutationRefused as error:
            return _refused(edit, stored, error.message, error.field)
        except ValueError as error:
            return _refused(edit, stored, f"this cannot be stored: {error}"[:500])
        if done.write is not None:
            self._take(done.write)
        return done

    def _merged(self, edit: Edit, stored: Stored | None) -> _Done:
        policy = EditDelete(self.hosted.edit_delete)
        living = stored.living if stored else None
        if stored is None or living is None:
            was = stored.record if stored else None
            created = with_key(self.shape, {}, edit.key)
            merged = merge_into_nothing(self.shape, edit, was, policy, created=created)
        else:
            base = self._base(edit, stored)
            merged = merge_into(self.shape, edit, living, stored.clocks, base, policy)
        if merged.record is not None and key_of(self.shape, merged.record) != edit.key:
            raise MutationRefused("the record has another key", self.shape.key[0])
        done = _Done(edit, merged, stored=stored)
        if merged.changed:
            done.write = self._write(edit, stored, merged)
        return done

    def _write(self, edit: Edit, stored: Stored | None, merged: Merged) -> Write:
        living = stored.living if stored else None
        record = merged.record
        if record is None:
            operation = Operation.DELETE
            record, before = living or {}, living or {}
        elif living is None:
            operation, before = Operation.INSERT, {}
        else:
            operation = Operation.UPDATE
            before = {name: living.get(name) for name in merged.changed}
        return Write(
            key=edit.key,
            operation=operation,
            stored=stored,
            record=record,
            fields=merged.changed,
            before=before,
            clocks=merged.clocks or (stored.clocks if stored else {}),
            author=Author(self.replica.pk, edit.number),
        )

    def _require_own_scope(self, done: _Done) -> None:
        """A record does not leave the scopes that its editor sees."""
        write = done.write
        if write is not None and not self.access.sees(scope_of(self.hosted, write.record)):
            raise MutationRefused("this would be out of your scope", self.hosted.scope_field)

    def _take(self, write: Write) -> None:
        """What follows in this push meets the record as it is after the write."""
        self.writes.append(write)
        self.stored[write.key] = Stored(
            key=write.key,
            revision=write.stored.revision if write.stored else 0,
            is_deleted=write.operation is Operation.DELETE,
            scope=scope_of(self.hosted, write.record),
            record=write.record,
            clocks=write.clocks,
        )

    # What is kept, and what is answered

    def _set_aside(self, done: Sequence[_Done]) -> None:
        """Rows for those that were not simply applied, with the values that did not get through."""
        rows = [self._aside(each) for each in done if each.status is not Status.APPLIED]
        Mutation.objects.bulk_create(rows)
        if self.skew is not None and self.skew != self.replica.skew:
            Replica.objects.filter(pk=self.replica.pk).update(skew=self.skew)

    def _aside(self, done: _Done) -> Mutation:
        edit, merged = done.edit, done.merged
        lost = merged.lost if merged else {**edit.assigned}
        row = Mutation(
            replica=self.replica,
            hosted=self.hosted,
            number=edit.number,
            key=edit.key[:255],
            status=done.status.value,
            code=done.code,
            message=done.message[:500],
            fields=sorted(lost),
            wants_delete=merged.is_delete_lost if merged else edit.is_delete,
        )
        if done.status is Status.CONFLICT:
            row.state, row.code = Mutation.State.OPEN, PushConflict.code
            row.fields = merged.asks if merged and merged.asks else row.fields
        text = _safely_dumped(lost)
        body = kept(text, mutation_place(row.pk), self.books.is_personal)
        row.kept, row.sealed_kept = body.clear, body.sealed
        return row

    def _outcome(self, done: _Done) -> Outcome:
        """By the record as it is at the end of the push: what the replica is told is still so."""
        if done.status is Status.APPLIED and done.write is not None:
            return Outcome(done.edit.number, Status.APPLIED.value, done.write.revision)
        is_hidden = done.merged is None and done.stored is None
        now_stored = None if is_hidden else self.stored.get(done.edit.key)
        revision, record = self.as_it_is(now_stored)
        if done.status is Status.APPLIED:
            return Outcome(done.edit.number, Status.APPLIED.value, revision)
        code = PushConflict.code if done.status is Status.CONFLICT else done.code
        fields = tuple(done.merged.asks) if done.merged else done.fields
        return Outcome(
            done.edit.number, done.status.value, revision, record, code, done.message, fields
        )

    def as_it_is(self, stored: Stored | None) -> tuple[int | None, Record | None]:
        if stored is None or not self.access.sees(stored.scope):
            return None, None
        written = [write.revision for write in self.writes if write.key == stored.key]
        return (written[-1] if written else stored.revision) or None, stored.living


def _walked_back(record: Record, steps: Sequence[_Step]) -> Base:
    """The values at the first step's start; own steps in between count as seen."""
    states = [record]
    for step in reversed(steps):
        states.append({**states[-1], **step.before})
    states.reverse()
    seen = dict(states[0])
    for step, state in zip(steps, states[1:], strict=True):
        if step.is_own:
            seen |= {name: state.get(name) for name in step.fields}
    return Base(seen, is_foreign=not all(step.is_own for step in steps))


def _repeated(push: _Push, edits: Sequence[Edit]) -> list[Outcome]:
    """The answers of the first time, where nobody else has written the record since."""
    if not edits:
        return []
    numbers = [edit.number for edit in edits]
    place = {"replica": push.replica, "hosted": push.hosted}
    aside = {row.number: row for row in Mutation.objects.filter(**place, number__in=numbers)}
    written = dict(
        Revision.objects.filter(**place, mutation__in=numbers).values_list("mutation", "revision")
    )
    foreign = Revision.objects.filter(
        hosted=push.hosted, key__in={edit.key for edit in edits}
    ).exclude(replica=push.replica)
    latest = dict(foreign.values_list("key").annotate(latest=Max("revision")))
    return [
        _again(push, edit, aside.get(edit.number), written.get(edit.number), latest)
        for edit in edits
    ]


def _again(
    push: _Push,
    edit: Edit,
    aside: Mutation | None,
    written: int | None,
    latest: Mapping[str, int],
) -> Outcome:
    stored = push.stored.get(edit.key)
    is_untouched = written is not None and written > latest.get(edit.key, 0)
    if aside is None and is_untouched and stored is not None:
        return Outcome(edit.number, Status.APPLIED.value, written)
    revision, record = push.as_it_is(stored)
    if aside is None:
        return Outcome(edit.number, Status.MERGED.value, revision, record)
    fields = tuple(aside.fields) if aside.status != Mutation.Status.MERGED else ()
    return Outcome(edit.number, aside.status, revision, record, aside.code, aside.message, fields)


def _refused(edit: Edit, stored: Stored | None, message: str, name: str = "") -> _Done:
    fields = (name,) if name else ()
    return _Done(
        edit, None, stored=stored, code=MutationRefused.code, message=message, fields=fields
    )


def _safely_dumped(values: Record) -> str | None:
    """The text of values that may be none of JSON; those that are not are lost with the edit."""
    try:
        return dumped(values) if values else None
    except ValueError:
        return None
