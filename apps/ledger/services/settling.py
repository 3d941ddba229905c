"""Settling: what became of a batch of planned changes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import orjson

from apps.core.bulk import bulk_update
from apps.core.clock import now
from apps.core.protected import seal
from apps.ledger.models import Change, Side, seal_images
from apps.ledger.selectors.keys import key_hash_or_none
from apps.ledger.selectors.plans import PlannedChange
from apps.ledger.services.links import Stored, link_written
from apps.ledger.services.work import WorkIdentity

AS_SENT: Mapping[int, Stored] = MappingProxyType({})
_IDENTITY = ("partition_id", "sequence")
_STORED = ("left_key", "right_key", "left_hash", "right_hash", "sealed_images", "image")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why one change was not applied."""

    outcome: Change.Outcome
    code: str
    message: str
    field: str = ""


def settle(
    work: WorkIdentity,
    applied: Sequence[PlannedChange],
    refused: Mapping[int, Refusal],
    *,
    stored: Mapping[int, Stored] = AS_SENT,
    first_links: bool = False,
    hold: bool = False,
) -> None:
    """Record the outcome of a batch: `refused` by sequence, all others are applied.

    applied: changes of one partition in plan order, without gaps but those settled before;
    stored: by sequence, what the writes gave back: keys that the target assigned become known,
    what is stored takes the place of what was sent, in the change and in the link's base;
    first_links: the rule had no links before this run, so none can lead elsewhere;
    hold: this is an undo: the links of these records are held as they are afterwards, with the
    base that the changes carry (a deleted record's as `null`).

    Idempotent: settling twice leaves the same rows. Wrap it in the lease's transaction.
    """
    if not applied:
        return
    moment = now()
    planned = Change.objects.filter(partition_id=work.partition_id, outcome=Change.Outcome.PLANNED)
    for sequence, refusal in refused.items():
        identity = f"{Change.identity(work.partition_id, sequence)}|message"
        planned.filter(sequence=sequence).update(
            outcome=refusal.outcome,
            code=refusal.code,
            sealed_message=seal(refusal.message.encode(), identity),
            settled_at=moment,
        )
    first, last = applied[0].sequence, applied[-1].sequence
    planned.filter(sequence__gte=first, sequence__lte=last).update(
        outcome=Change.Outcome.APPLIED, settled_at=moment
    )
    written = [change for change in applied if change.sequence not in refused]
    rows = list(_corrections(work, written, stored))
    if rows:
        bulk_update(Change, _IDENTITY, _STORED, rows)
    link_written(work, written, stored, first_links=first_links, hold=hold)


def _corrections(
    work: WorkIdentity, written: Sequence[PlannedChange], stored: Mapping[int, Stored]
) -> Iterator[tuple[Any, ...]]:
    """Rows of _IDENTITY and _STORED for changes that turned out otherwise than planned."""
    for change in written:
        back = stored.get(change.sequence)
        if back is None or not _differs(change, back):
            continue
        left, right = change.left_key, change.right_key
        if back.own_key and not change.own_key:
            left, right = (
                (back.own_key, right) if change.side == Side.LEFT else (left, back.own_key)
            )
        identity = Change.identity(work.partition_id, change.sequence)
        yield (
            work.partition_id,
            change.sequence,
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
