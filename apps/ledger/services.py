"""Writes to record memory: plans, outcomes, links, rejections.

Callers hold a lease and wrap these in a transaction that checks its fencing token first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import pyarrow as pa
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, transaction

from apps.core.bulk import bulk_insert, bulk_upsert
from apps.core.clock import now
from apps.core.protected import seal
from apps.ledger.models import Change, Link, Rejection, seal_images
from apps.ledger.selectors import PlannedChange, key_hash

if TYPE_CHECKING:
    from apps.accounts.models import User

DELETE_CHUNK = 20_000
WAITING = (Rejection.State.OPEN, Rejection.State.REPLAYING)


@dataclass(frozen=True, slots=True)
class WorkIdentity:
    """Which run, partition and rule a row belongs to."""

    rule_id: UUID
    run_id: UUID
    partition_id: UUID


CHANGE_COLUMNS = (
    "run_id",
    "partition_id",
    "rule_id",
    "sequence",
    "side",
    "operation",
    "cause",
    "left_key",
    "right_key",
    "key_after",
    "left_hash",
    "right_hash",
    "fields",
    "sealed_images",
    "image",
    "outcome",
    "code",
    "planned_at",
)


def store_changes(work: WorkIdentity, batch: pa.Table, first_sequence: int) -> None:
    """Write planned changes (a table as `Planner.changes` yields it) to the row shelf."""
    bulk_insert(Change, CHANGE_COLUMNS, _change_rows(work, batch, first_sequence))


def _change_rows(work: WorkIdentity, batch: pa.Table, first: int) -> Iterator[Sequence[Any]]:
    moment = now()
    partition = str(work.partition_id)
    columns = [
        batch.column(name).to_pylist()
        for name in (
            "operation",
            "cause",
            "left_key",
            "right_key",
            "key_after",
            "fields",
            "before",
            "after",
            "image",
        )
    ]
    for offset, values in enumerate(zip(*columns, strict=True)):
        operation, cause, left_key, right_key, key_after, fields, before, after, image = values
        sequence = first + offset
        yield (
            work.run_id,
            work.partition_id,
            work.rule_id,
            sequence,
            "right",
            operation,
            cause,
            left_key or "",
            right_key,
            key_after if key_after and key_after != right_key else "",
            key_hash(left_key) if left_key else None,
            key_hash(right_key),
            orjson.dumps(fields).decode(),
            seal_images(before, after, Change.identity(partition, sequence)),
            image or "",
            Change.Outcome.PLANNED.value,
            "",
            moment,
        )


def discard_plan(partition_id: UUID) -> None:
    """Forget a partition's plan that was never applied: it is planned anew."""
    while True:
        ids = Change.objects.filter(partition_id=partition_id).values("id")[:DELETE_CHUNK]
        deleted, _ = Change.objects.filter(id__in=list(ids.values_list("id", flat=True))).delete()
        if not deleted:
            return


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
    first_links: bool = False,
) -> None:
    """Record the outcome of a batch: `refused` by sequence, all others are applied.

    first_links: the rule had no links before this run, so none can lead elsewhere.

    Idempotent: settling twice leaves the same rows.
    """
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
    _settle_links(work, written, first_links)


def _settle_links(work: WorkIdentity, written: Sequence[PlannedChange], first_links: bool) -> None:
    kept = [c for c in written if c.operation != "delete"]
    gone = [
        key_hash(c.right_key)
        for c in written
        if c.operation == "delete" or c.key_after != c.right_key
    ]
    for start in range(0, len(gone), 500):
        Link.objects.filter(rule_id=work.rule_id, right_hash__in=gone[start : start + 500]).delete()
    pairs = ((c.left_key, c.key_after, c.image) for c in kept)
    store_links(work, pairs, first_links=first_links)


def store_links(
    work: WorkIdentity, pairs: Iterable[tuple[str, str, str]], *, first_links: bool = False
) -> None:
    """Link left_key, right_key, image triples, or refresh the links there are.

    first_links: the rule had no links before this run, so none can lead elsewhere.
    """
    rows = [
        (
            work.rule_id,
            left,
            right,
            key_hash(left),
            key_hash(right),
            "",
            image or "",
            Link.State.LIVE.value,
            work.run_id,
        )
        for left, right, image in pairs
    ]
    if rows and not first_links:
        _unlink_elsewhere(work.rule_id, {row[3]: row[4] for row in rows})
    if rows:
        bulk_upsert(
            Link,
            (
                "rule_id",
                "left_key",
                "right_key",
                "left_hash",
                "right_hash",
                "left_image",
                "right_image",
                "state",
                "run_id",
            ),
            ("rule_id", "right_hash"),
            ("left_key", "left_hash", "right_image", "state", "run_id"),
            rows,
        )


def _unlink_elsewhere(rule_id: UUID, right_of_left: Mapping[bytes, bytes]) -> None:
    """A left record has one link: forget those to other right records than the ones given."""
    lefts = list(right_of_left)
    for start in range(0, len(lefts), 500):
        known = Link.objects.filter(rule_id=rule_id, left_hash__in=lefts[start : start + 500])
        old = [
            pk
            for pk, left, right in known.values_list("pk", "left_hash", "right_hash")
            if right_of_left[bytes(left)] != bytes(right)
        ]
        if old:
            Link.objects.filter(pk__in=old).delete()


def close_links(rule_id: UUID, pairs: Iterable[tuple[str, str]]) -> None:
    """Forget links (left key, right key) whose two records are both gone."""
    wanted = {key_hash(right): key_hash(left) for left, right in pairs}
    rights = list(wanted)
    for start in range(0, len(rights), 500):
        known = Link.objects.filter(rule_id=rule_id, right_hash__in=rights[start : start + 500])
        gone = [
            pk
            for pk, left, right in known.values_list("pk", "left_hash", "right_hash")
            if wanted[bytes(right)] == bytes(left)
        ]
        Link.objects.filter(pk__in=gone).delete()


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


def forget_rule(rule_id: UUID) -> None:
    """Remove everything the ledger holds about a rule that is being removed itself."""
    for model in (Change, Link, Rejection):
        while True:
            ids = list(
                model.objects.filter(rule_id=rule_id).values_list("pk", flat=True)[:DELETE_CHUNK]
            )
            if not ids:
                break
            model.objects.filter(pk__in=ids).delete()
