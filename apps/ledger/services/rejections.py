"""Rejections: records kept out of a run, edited, replayed, dismissed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from django.db import transaction

from apps.audit import services as audit
from apps.audit.actions import Act
from apps.core.clock import now
from apps.core.selectors import require
from apps.ledger.models import Rejection
from apps.ledger.selectors.scopes import rejections
from apps.ledger.services.subjects import Sealers
from apps.ledger.services.work import WorkIdentity

if TYPE_CHECKING:
    from apps.accounts.models import User

CHUNK = 500
WAITING = (Rejection.State.OPEN, Rejection.State.REPLAYING)
NOT_OVER = (*WAITING, Rejection.State.DRY_RUN)


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record to keep out, with what is known of it."""

    stage: Rejection.Stage
    code: str
    message: str
    left_key: str = ""
    right_key: str = ""
    position: str = ""
    field: str = ""
    check: str = ""
    record: dict[str, str | None] | None = None
    raw: str = ""


def record_rejections(
    work: WorkIdentity, records: Sequence[RejectedRecord], *, is_dry: bool = False
) -> int:
    """Keep rejections; one that is known already is counted again. Returns how many are new.

    is_dry: a dry run keeps no record out. What it meets is not open, and what is
    open stays so.
    """
    by_identity = {_rejection_identity(record): record for record in records}
    identities = list(by_identity)
    new = 0
    for start in range(0, len(identities), CHUNK):
        chunk = identities[start : start + CHUNK]
        rows = Rejection.objects.filter(rule_id=work.rule_id, identity_hash__in=chunk)
        known = {bytes(row.identity_hash): row for row in rows}
        sealers = Sealers(work.rule_id, [by_identity[identity].record for identity in chunk])
        for identity, row in known.items():
            _count_again(row, work, is_dry=is_dry)
            _seen_again(row, work, by_identity[identity], sealers)
        made = [_made(work, i, by_identity[i], sealers) for i in chunk if i not in known]
        for row in made if is_dry else ():
            row.state = Rejection.State.DRY_RUN
        # Another partition may reject the same record this moment.
        Rejection.objects.bulk_create(made, ignore_conflicts=True)
        new += len(made)
    return new


def _made(
    work: WorkIdentity, identity: bytes, record: RejectedRecord, sealers: Sealers
) -> Rejection:
    rejection = Rejection(
        rule_id=work.rule_id,
        run_id=work.run_id,
        first_run_id=work.run_id,
        partition_id=work.partition_id,
        stage=record.stage,
        position=record.position[:255],
        left_key=record.left_key,
        right_key=record.right_key,
        identity_hash=identity,
        code=record.code,
        field=record.field[:255],
        check_name=record.check[:100],
    )
    rejection.seal_parts(
        message=record.message,
        record=record.record,
        raw=record.raw,
        sealer=sealers.of(record.record),
    )
    return rejection


def _rejection_identity(record: RejectedRecord) -> bytes:
    subject = record.left_key or record.raw or record.position
    text = "\x1f".join((subject, record.code, record.field, record.check))
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


def _count_again(known: Rejection, work: WorkIdentity, *, is_dry: bool) -> None:
    over = (Rejection.State.RESOLVED, Rejection.State.DRY_RUN)
    if is_dry:
        if known.state in over:
            known.state = Rejection.State.DRY_RUN
        return
    if known.run_id != work.run_id:
        known.times += 1
    if known.state in (*over, Rejection.State.REPLAYING):
        known.state = Rejection.State.OPEN


def _seen_again(
    known: Rejection, work: WorkIdentity, record: RejectedRecord, sealers: Sealers
) -> None:
    known.run_id = work.run_id
    known.partition_id = work.partition_id
    known.position = record.position[:255]
    if known.state in NOT_OVER:
        known.resolved_at = None
        known.resolved_run_id = None
    known.seal_parts(
        message=record.message,
        record=record.record,
        raw=record.raw,
        sealer=sealers.of(record.record),
    )
    known.save()


def note_passed(
    rule_id: UUID, run_id: UUID, left_keys: Sequence[str], right_keys: Sequence[str] = ()
) -> None:
    """Remember that these records, once rejected, passed in a run that is not finished yet.

    right_keys: of records that were planned, whose rejection a left key may not name.
    """
    waiting = Rejection.objects.filter(rule_id=rule_id, state__in=NOT_OVER)
    if not waiting.exists():
        return
    planned = waiting.exclude(stage=Rejection.Stage.CHECK)
    for rows, name, keys in (
        (waiting, "left_key", left_keys),
        (planned, "right_key", right_keys),
    ):
        for start in range(0, len(keys), CHUNK):
            chosen = rows.filter(**{f"{name}__in": keys[start : start + CHUNK]})
            chosen.update(passed_run_id=run_id)


def resolve_rejections(rule_id: UUID, run_id: UUID, *, everything: bool) -> int:
    """Close the rejections that a finished run did not repeat.

    everything: the run saw every record, so all of the rule's; else those that passed in it.
    """
    found = Rejection.objects.filter(rule_id=rule_id, state__in=NOT_OVER).exclude(run_id=run_id)
    if not everything:
        found = found.filter(passed_run_id=run_id)
    return found.update(state=Rejection.State.RESOLVED, resolved_at=now(), resolved_run_id=run_id)


@transaction.atomic
def edit_rejection(
    rejection: Rejection, record: dict[str, str | None], *, actor: User | None
) -> None:
    """Keep the corrected record beside the original; a replay takes the corrected one."""
    require(actor, rejections, "replay", rejection)
    rejection.seal_parts(edit=record, sealer=Sealers(rejection.rule_id, [record]).of(record))
    rejection.save(update_fields=["sealed_edit", "updated_at"])
    act = Act.REJECTION_EDITED
    audit.record(act, _subject(rejection), actor=actor, details=_about(rejection))


@transaction.atomic
def dismiss_rejection(rejection: Rejection, *, actor: User | None, note: str = "") -> None:
    """Close a rejection without doing anything about it; it reopens nothing by itself."""
    require(actor, rejections, "replay", rejection)
    rejection.state = Rejection.State.DISMISSED
    rejection.note = note[:255]
    rejection.resolved_at = now()
    rejection.save(update_fields=["state", "note", "resolved_at", "updated_at"])
    act = Act.REJECTION_DISMISSED
    audit.record(act, _subject(rejection), actor=actor, reason=note, details=_about(rejection))


def _subject(rejection: Rejection) -> audit.Subject:
    """Named by what was wrong: the record's key is a value of a record."""
    return audit.Subject.of(rejection, rejection.code)


def _about(rejection: Rejection) -> dict[str, str]:
    return {"rule": str(rejection.rule_id), "field": rejection.field}


def mark_replaying(ids: Sequence[UUID]) -> None:
    Rejection.objects.filter(id__in=ids).update(state=Rejection.State.REPLAYING, updated_at=now())


def reopen_replaying(ids: Sequence[UUID]) -> None:
    """A replay that ended without an answer leaves its rejections open."""
    Rejection.objects.filter(id__in=ids, state=Rejection.State.REPLAYING).update(
        state=Rejection.State.OPEN, updated_at=now()
    )
