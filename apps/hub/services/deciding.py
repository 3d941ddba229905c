"""Decisions on edits that were set aside: the pushed values after all, or what is there."""

from __future__ import annotations

import time

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import Act
from apps.audit.services import Subject, record
from apps.connectors.base import Operation
from apps.core.clock import now
from apps.core.selectors import require
from apps.hub import clocks
from apps.hub.bodies import loaded, mutation_place, opened
from apps.hub.errors import DecisionClosed
from apps.hub.merging import same
from apps.hub.models import Mutation
from apps.hub.schemas import Record
from apps.hub.selectors import has_personal_fields, mutations, shape_of_hosted
from apps.hub.services.storing import Author, Books, Stored, Write, commit_writes, load_records


def values_aside(mutation: Mutation) -> Record:
    """The values that did not get through. Raises ProtectedValueError."""
    text = opened(mutation.kept, mutation.sealed_kept, mutation_place(mutation.pk))
    found: Record = loaded(text) if text else {}
    return found


@transaction.atomic
def decide(mutation: Mutation, *, take_pushed: bool, actor: User | None, note: str = "") -> None:
    """Write the pushed values over what is there, or let that be.

    Raises DecisionClosed where somebody has decided, MutationRefused where they fit no more.
    """
    require(actor, mutations, "decide", mutation)
    mutation = Mutation.objects.select_for_update(of=("self",)).get(pk=mutation.pk)
    if mutation.state != Mutation.State.OPEN:
        raise DecisionClosed("this edit does not wait for anybody any more")
    mutation.state = Mutation.State.DECIDED
    mutation.decided_by, mutation.decided_at = actor, now()
    mutation.save(update_fields=["state", "decided_by", "decided_at", "updated_at"])
    details = {"dataset": mutation.hosted.name, "taken": take_pushed}
    subject = Subject.of(mutation, f"edit {mutation.number}")  # its key may be personal
    record(Act.CONFLICT_DECIDED, subject, actor=actor, reason=note, details=details)
    if take_pushed:
        _take(mutation)


def _take(mutation: Mutation) -> None:
    hosted = mutation.hosted
    stored = load_records(hosted, [mutation.key], lock=True).get(mutation.key)
    if stored is None:
        raise DecisionClosed("the record has been forgotten meanwhile")
    write = _deletion(stored) if mutation.wants_delete else _edit(mutation, stored)
    if write is not None:
        commit_writes(Books(hosted, has_personal_fields(hosted)), [write])


def _deletion(stored: Stored) -> Write | None:
    if stored.is_deleted:
        return None
    names = sorted(stored.record)
    held = stored.record
    return Write(stored.key, Operation.DELETE, stored, held, names, held, stored.clocks, Author())


def _edit(mutation: Mutation, stored: Stored) -> Write | None:
    """The record with the values aside; one that was deleted comes back."""
    values = {n: v for n, v in values_aside(mutation).items() if n in mutation.fields}
    record_after = {n: v for n, v in {**stored.record, **values}.items() if v is not None}
    is_back = stored.is_deleted
    changed = sorted(
        name
        for name in (record_after if is_back else values)
        if is_back or not same(values[name], stored.record.get(name))
    )
    shape_of_hosted(mutation.hosted).check(record_after, changed)
    milliseconds = time.time_ns() // 1_000_000
    times = dict(stored.clocks)
    for name in changed:
        times[name] = clocks.after(times.get(name, times.get("", "")), milliseconds)
    if not changed:
        return None
    operation = Operation.INSERT if is_back else Operation.UPDATE
    before = {} if is_back else {name: stored.record.get(name) for name in changed}
    return Write(stored.key, operation, stored, record_after, changed, before, times, Author())
