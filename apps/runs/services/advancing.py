"""Moving a run from phase to phase. Each step is conditional, so that it may be tried twice.

`advance` looks at the rows and does what follows from them; workers call it after each partition,
`tick` calls it for runs that a crash left between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from apps.core.clock import now
from apps.ledger.services import resolve_matches, resolve_rejections, withdraw_all_conflicts
from apps.runs.models import (
    Checkpoint,
    Partition,
    Run,
    RunLog,
    RunStatus,
)
from apps.runs.services.cursors import later_cursor
from apps.runs.services.dispatching import dispatch
from apps.runs.services.ending import cancel_partitions, end, fail, sum_counters
from apps.runs.services.errors import PartitionFailed
from apps.runs.services.locations import locations
from apps.runs.services.logs import log
from apps.runs.services.reviewing import begin_apply, review
from apps.runs.services.rounds import begin_round


def advance(run_id: UUID) -> None:
    """Take the next step of a run if all of the present phase is done."""
    with transaction.atomic():
        run = Run.objects.select_for_update().filter(pk=run_id).first()
        if run is None or not run.is_active:
            return
        parts = list(run.partitions.order_by("number"))
        if run.cancel_requested_at is not None:
            _cancel(run, parts)
            return
        broken = next((part for part in parts if part.state == Partition.State.FAILED), None)
        if broken is not None:
            fail(run_id, PartitionFailed(broken.error or "a partition failed"))
            return
        if any(part.state in Partition.WORKABLE for part in parts):
            return
        records = [part for part in parts if part.kind == Partition.Kind.RECORDS]
        if run.status == RunStatus.PLANNING and records:
            review(run, parts)
        elif run.status == RunStatus.APPLYING:
            _after_apply(run, parts, records)
        elif run.status == RunStatus.VERIFYING:
            _finish(run, parts)


def _after_apply(run: Run, parts: Sequence[Partition], records: Sequence[Partition]) -> None:
    """Apply a round that is planned; plan what had moved once more; else verify."""
    if any(part.state == Partition.State.PLANNED for part in records):
        begin_apply(run)
    elif not begin_round(run, records):
        _begin_verify(run, parts)


def _cancel(run: Run, parts: Sequence[Partition]) -> None:
    """End a run that is to stop, unless a worker still holds a part of it."""
    moment = now()
    held = [
        part
        for part in parts
        if part.state in Partition.WORKABLE and part.lease_until and part.lease_until > moment
    ]
    if held:
        return
    sum_counters(run)
    cancel_partitions(run)
    log(run, "Cancelled; what was written stays written", level=RunLog.Level.WARNING)
    end(run, RunStatus.CANCELLED)


def _begin_verify(run: Run, parts: Sequence[Partition]) -> None:
    sum_counters(run, parts)
    run.applied_at = now()
    run.status = RunStatus.VERIFYING
    run.save()
    part = Partition.objects.create(run=run, number=len(parts), kind=Partition.Kind.VERIFY)
    dispatch([part.pk])


def _finish(run: Run, parts: Sequence[Partition]) -> None:
    sum_counters(run, parts)
    if run.kind == Run.Kind.SYNC:
        _resolve(run)
        _store_checkpoint(run)
    accuracy = run.accuracy or {"sampled": 0, "equal": 0}
    differs = accuracy["equal"] < accuracy["sampled"]
    problems = run.rejected or run.stale or run.in_doubt or run.deletes_held_back or differs
    log(run, f"Done: {_what_was_done(run)}")
    end(run, RunStatus.PARTIAL if problems else RunStatus.SUCCEEDED)


def _what_was_done(run: Run) -> str:
    counted = [
        f"{run.inserted} inserted",
        f"{run.updated} updated",
        f"{run.deleted} deleted",
        f"{run.unchanged} unchanged",
        f"{run.rejected} rejected",
        f"{run.stale} moved meanwhile",
    ]
    for word in ("conflicts", "skipped", "in_doubt"):
        number = getattr(run, word)
        if number:
            counted.append(f"{number} {word.replace('_', ' ')}")
    return ", ".join(counted)


def _resolve(run: Run) -> None:
    """Rejections whose record passed, or that a run over everything did not repeat, are over.

    So are conflicts that a run over everything did not meet.
    """
    resolve_matches(run.rule_id, run.pk)
    resolve_rejections(run.rule_id, run.pk, everything=run.sees_everything)
    if run.sees_everything:
        withdraw_all_conflicts(run.rule_id, run.pk)


_MOVED_ON = (  # what is searched is for others to say
    "cursor_field",
    "cursor",
    "right_cursor",
    "swept_at",
    "version",
    "locations",
    "succeeded_at",
    "updated_at",
)


def _store_checkpoint(run: Run) -> None:
    """Move the rule's checkpoint on; the cursor never goes backwards."""
    if run.rejection_ids or run.selection:
        return
    checkpoint, _ = Checkpoint.objects.get_or_create(rule=run.rule)
    spec = run.version.spec()
    if checkpoint.cursor_field != spec.cursor_field:
        checkpoint.cursor, checkpoint.cursor_field = "", spec.cursor_field
    if run.cursor_to:
        moved_on = run.cursor_from and checkpoint.cursor
        checkpoint.cursor = (
            later_cursor(checkpoint.cursor, run.cursor_to) if moved_on else run.cursor_to
        )
    if run.right_cursor_to:
        moved_on = run.right_cursor_from and checkpoint.right_cursor
        checkpoint.right_cursor = (
            later_cursor(checkpoint.right_cursor, run.right_cursor_to)
            if moved_on
            else run.right_cursor_to
        )
    if (run.sweep or not run.cursor_from) and not run.deletes_held_back:
        checkpoint.swept_at = run.started_at
    checkpoint.version = run.version
    checkpoint.locations = locations(run.rule)
    checkpoint.succeeded_at = now()
    checkpoint.save(update_fields=_MOVED_ON)
