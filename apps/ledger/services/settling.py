"""Settling: what became of a batch of planned changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any
from uuid import UUID

import orjson
from django.db.models import F, QuerySet

from apps.core.bulk import bulk_update, bulk_upsert
from apps.core.clock import now
from apps.core.protected import seal
from apps.ledger.models import Change, SegmentPart, Side, seal_images
from apps.ledger.selectors.keys import key_hash_or_none
from apps.ledger.selectors.linked import SegmentLinks
from apps.ledger.selectors.plans import PlannedChange
from apps.ledger.services.field_sets import field_set_ids
from apps.ledger.services.links import Stored, cover_links, link_written
from apps.ledger.services.work import WorkIdentity

AS_SENT: Mapping[int, Stored] = MappingProxyType({})
_IDENTITY = ("partition_id", "sequence")
_STORED = ("left_key", "right_key", "left_hash", "right_hash", "sealed_images", "image")
_PLANNED = (
    "id",
    "run_id",
    "partition_id",
    "rule_id",
    "sequence",
    "side",
    "operation",
    "cause",
    "key_after",
    "field_set",
    "sealed_base",
    "planned_at",
    "settled_at",
)
_EXCEPTION = (*_PLANNED, *_STORED, "outcome", "code", "sealed_message")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one change was not applied.

    doubt: a patch to both images of the link's base (JSON), where a write that may have got
    through leaves the base of these fields unknown; empty elsewhere.
    """

    outcome: Change.Outcome
    code: str
    message: str
    field: str = ""
    doubt: str = ""


def settle(
    work: WorkIdentity,
    applied: Sequence[PlannedChange],
    refused: Mapping[int, Refusal],
    *,
    stored: Mapping[int, Stored] = AS_SENT,
    first_links: bool = False,
    hold: bool = False,
    kept: SegmentLinks | None = None,
) -> None:
    """Record the outcome of a batch: `refused` by sequence, all others are applied.

    applied: changes of one partition in plan order, without gaps but those settled before;
    stored: by sequence, what the writes gave back: keys that the target assigned become known,
    what is stored takes the place of what was sent, in the change and in the link's base;
    first_links: the rule had no links before this run, so none can lead elsewhere;
    hold: this is an undo: the links of these records are held as they are afterwards, with the
    base that the changes carry (a deleted record's as `null`);
    kept: the rule's links in segments, read ahead.

    Idempotent: settling twice leaves the same rows. Wrap it in the lease's transaction.
    """
    if not applied:
        return
    parts = list(_parts(work.partition_id, applied[0].sequence, applied[-1].sequence))
    if parts:
        _settle_segments(work, parts, applied, refused, stored)
    else:
        _settle_rows(work, applied, refused, stored)
    in_place = _linked_in_place(parts, stored)
    written = [c for c in applied if c.sequence not in refused and not in_place(c)]
    link_written(work, written, stored, first_links=first_links, hold=hold, kept=kept)
    doubtful = [
        replace(
            change,
            key_after=change.own_key,
            base_left=refusal.doubt,
            base_right=refusal.doubt,
        )
        for change in applied
        if (refusal := refused.get(change.sequence)) is not None and refusal.doubt
    ]
    link_written(work, doubtful, AS_SENT, first_links=False, hold=False, kept=kept)
    kept_out = [c for c in applied if c.sequence in refused and in_place(c)]
    cover_links(work.rule_id, [(change.left_key, change.right_key) for change in kept_out])


def settle_load(work: WorkIdentity) -> None:
    """All of a partition's plan, which lies in linked segments, was written as planned."""
    SegmentPart.objects.filter(partition_id=work.partition_id).update(
        settled_through=F("last_sequence"), settled_at=now()
    )


def _linked_in_place(
    parts: Sequence[SegmentPart], stored: Mapping[int, Stored]
) -> Callable[[PlannedChange], bool]:
    """Whether a change is a link where it lies: in a linked segment, written as planned."""
    ranges = [(p.first_sequence, p.last_sequence) for p in parts if p.segment.linked]

    def in_place(change: PlannedChange) -> bool:
        sequence = change.sequence
        if not any(first <= sequence <= last for first, last in ranges):
            return False
        return sequence not in stored or not _differs(change, stored[sequence])

    return in_place


def _parts(partition_id: UUID, first: int, last: int) -> QuerySet[SegmentPart]:
    return SegmentPart.objects.select_related("segment").filter(
        partition_id=partition_id, first_sequence__lte=last, last_sequence__gte=first
    )


def _settle_rows(
    work: WorkIdentity,
    applied: Sequence[PlannedChange],
    refused: Mapping[int, Refusal],
    stored: Mapping[int, Stored],
) -> None:
    moment = now()
    planned = Change.objects.filter(partition_id=work.partition_id, outcome=Change.Outcome.PLANNED)
    for sequence, refusal in refused.items():
        planned.filter(sequence=sequence).update(
            outcome=refusal.outcome,
            code=refusal.code,
            sealed_message=_sealed_message(work, sequence, refusal),
            settled_at=moment,
        )
    planned.filter(sequence__gte=applied[0].sequence, sequence__lte=applied[-1].sequence).update(
        outcome=Change.Outcome.APPLIED, settled_at=moment
    )
    written = [change for change in applied if change.sequence not in refused]
    rows = list(_corrections(work, written, stored))
    if rows:
        bulk_update(Change, _IDENTITY, _STORED, rows)


def _sealed_message(work: WorkIdentity, sequence: int, refusal: Refusal) -> bytes:
    identity = f"{Change.identity(work.partition_id, sequence)}|message"
    return seal(refusal.message.encode(), identity)


def _settle_segments(
    work: WorkIdentity,
    parts: Sequence[SegmentPart],
    applied: Sequence[PlannedChange],
    refused: Mapping[int, Refusal],
    stored: Mapping[int, Stored],
) -> None:
    """What was applied as planned is but a number; all else becomes rows of the row shelf."""
    moment = now()
    exceptions = [
        change
        for change in applied
        if change.sequence in refused
        or (change.sequence in stored and _differs(change, stored[change.sequence]))
    ]
    if exceptions:
        sets = field_set_ids(work.rule_id, {change.fields for change in exceptions})
        rows = [
            _exception(work, parts, change, sets[change.fields], moment)
            + _outcome(work, change, refused.get(change.sequence), stored)
            for change in exceptions
        ]
        bulk_upsert(Change, _EXCEPTION, _IDENTITY, _EXCEPTION[len(_PLANNED) :], rows)
    last = applied[-1].sequence
    for part in parts:
        through = min(last, part.last_sequence)
        if through > part.settled_through:
            SegmentPart.objects.filter(pk=part.pk).update(
                settled_through=through, settled_at=moment
            )


def _exception(
    work: WorkIdentity,
    parts: Sequence[SegmentPart],
    change: PlannedChange,
    field_set: int,
    moment: datetime,
) -> tuple[Any, ...]:
    """The columns _PLANNED of a change that is on the segment shelf."""
    sequence = change.sequence
    part = next(part for part in parts if part.first_sequence <= sequence <= part.last_sequence)
    identity = f"{Change.identity(work.partition_id, sequence)}|base"
    has_base = change.base_left or change.base_right
    return (
        part.first_id + sequence - part.first_sequence,
        work.run_id,
        work.partition_id,
        work.rule_id,
        sequence,
        change.side,
        change.operation,
        change.cause,
        change.key_after if change.key_after != change.own_key else "",
        field_set,
        seal_images(change.base_left, change.base_right, identity) if has_base else None,
        part.segment.planned_from,
        moment,
    )


def _outcome(
    work: WorkIdentity,
    change: PlannedChange,
    refusal: Refusal | None,
    stored: Mapping[int, Stored],
) -> tuple[Any, ...]:
    """The columns of _EXCEPTION behind _PLANNED."""
    if refusal is None:
        ending: tuple[Any, ...] = (Change.Outcome.APPLIED.value, "", None)
        back = stored[change.sequence]
    else:
        message = _sealed_message(work, change.sequence, refusal)
        ending, back = (refusal.outcome.value, refusal.code, message), Stored()
    return (*_correction(work, change, back), *ending)


def _corrections(
    work: WorkIdentity, written: Sequence[PlannedChange], stored: Mapping[int, Stored]
) -> Iterator[tuple[Any, ...]]:
    """Rows of _IDENTITY and _STORED for changes that turned out otherwise than planned."""
    for change in written:
        back = stored.get(change.sequence)
        if back is not None and _differs(change, back):
            yield (work.partition_id, change.sequence, *_correction(work, change, back))


def _correction(work: WorkIdentity, change: PlannedChange, back: Stored) -> tuple[Any, ...]:
    """The columns _STORED of a change."""
    left, right = change.left_key, change.right_key
    if back.own_key and not change.own_key:
        left, right = (back.own_key, right) if change.side == Side.LEFT else (left, back.own_key)
    identity = Change.identity(work.partition_id, change.sequence)
    return (
        left,
        right,
        key_hash_or_none(left),
        key_hash_or_none(right),
        seal_images(change.before, back.after or change.after, identity),
        back.image_hash or change.image,
    )


def _differs(change: PlannedChange, back: Stored) -> bool:
    if back.own_key and not change.own_key:
        return True
    if back.image_hash and back.image_hash != change.image:
        return True
    if not back.after or back.after == change.after:
        return False
    return bool(orjson.loads(back.after) != orjson.loads(change.after or "null"))
