"""Rejections: records kept out of a run, edited, replayed, dismissed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction

from apps.core.clock import now
from apps.ledger.models import Rejection
from apps.ledger.services.work import WorkIdentity

if TYPE_CHECKING:
    from apps.accounts.models import User

WAITING = (Rejection.State.OPEN, Rejection.State.REPLAYING)


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record to keep out, with what is known of it."""

    stage: Rejection.Stage
    code: str
    message: str
    left_key: str = ""
    position: str = ""
    field: str = ""
    check: str = ""
    record: dict[str, str | None] | None = None
    raw: str = ""


def record_rejections(work: WorkIdentity, records: Sequence[RejectedRecord]) -> int:
    """Keep rejections; one that is known already is counted again. Returns how many are new."""
    new = 0
    for record in records:
        identity = _rejection_identity(record)
        known = Rejection.objects.filter(rule_id=work.rule_id, identity_hash=identity).first()
        if known is not None:
            _seen_again(known, work, record)
            continue
        rejection = Rejection(
            rule_id=work.rule_id,
            run_id=work.run_id,
            first_run_id=work.run_id,
            partition_id=work.partition_id,
            stage=record.stage,
            position=record.position[:255],
            left_key=record.left_key,
            identity_hash=identity,
            code=record.code,
            field=record.field[:255],
            check_name=record.check[:100],
        )
        rejection.seal_parts(message=record.message, record=record.record, raw=record.raw)
        try:
            with transaction.atomic():
                rejection.save(force_insert=True)
            new += 1
        except IntegrityError:  # another partition rejected the same record this moment
            continue
    return new


def _rejection_identity(record: RejectedRecord) -> bytes:
    subject = record.left_key or record.raw or record.position
    text = "\x1f".join((subject, record.code, record.field, record.check))
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def _seen_again(known: Rejection, work: WorkIdentity, record: RejectedRecord) -> None:
    if known.run_id != work.run_id:
        known.times += 1
    known.run_id = work.run_id
    known.partition_id = work.partition_id
    known.position = record.position[:255]
    if known.state in (Rejection.State.RESOLVED, Rejection.State.REPLAYING):
        known.state = Rejection.State.OPEN
        known.resolved_at = None
        known.resolved_run_id = None
    known.seal_parts(message=record.message, record=record.record, raw=record.raw)
    known.save()


def note_passed(rule_id: UUID, run_id: UUID, left_keys: Sequence[str]) -> None:
    """Remember that these records, once rejected, passed in a run that is not finished yet."""
    for start in range(0, len(left_keys), 500):
        Rejection.objects.filter(
            rule_id=rule_id, left_key__in=left_keys[start : start + 500], state__in=WAITING
        ).update(passed_run_id=run_id)


def resolve_rejections(rule_id: UUID, run_id: UUID, *, everything: bool) -> int:
    """Close the open rejections that a finished run did not repeat.

    everything: the run saw every record, so all of the rule's; else those that passed in it.
    """
    found = Rejection.objects.filter(rule_id=rule_id, state__in=WAITING).exclude(run_id=run_id)
    if not everything:
        found = found.filter(passed_run_id=run_id)
    return found.update(state=Rejection.State.RESOLVED, resolved_at=now(), resolved_run_id=run_id)


def _require_replayer(actor: User | None) -> None:
    if actor is not None and not actor.has_perm("ledger.replay_rejection"):
        raise PermissionDenied("you may not edit, replay or dismiss rejections")


def edit_rejection(
    rejection: Rejection, record: dict[str, str | None], *, actor: User | None
) -> None:
    """Keep the corrected record beside the original; a replay takes the corrected one."""
    _require_replayer(actor)
    rejection.seal_parts(edit=record)
    rejection.save(update_fields=["sealed_edit", "updated_at"])


def dismiss_rejection(rejection: Rejection, *, actor: User | None, note: str = "") -> None:
    """Close a rejection without doing anything about it; it reopens nothing by itself."""
    _require_replayer(actor)
    rejection.state = Rejection.State.DISMISSED
    rejection.note = note[:255]
    rejection.resolved_at = now()
    rejection.save(update_fields=["state", "note", "resolved_at", "updated_at"])


def mark_replaying(ids: Sequence[UUID]) -> None:
    Rejection.objects.filter(id__in=ids).update(state=Rejection.State.REPLAYING, updated_at=now())


def reopen_replaying(ids: Sequence[UUID]) -> None:
    """A replay that ended without an answer leaves its rejections open."""
    Rejection.objects.filter(id__in=ids, state=Rejection.State.REPLAYING).update(
        state=Rejection.State.OPEN, updated_at=now()
    )
