"""Moving a run from phase to phase. Each step is conditional, so that it may be tried twice.

`advance` looks at the rows and does what follows from them; workers call it after each partition,
`tick` calls it for runs that a crash left between two steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from apps.connectors.errors import LockstepError
from apps.core.clock import now
from apps.core.services import publish
from apps.engine.guards import PlanCounts, judge
from apps.ledger.selectors import has_links, link_count
from apps.ledger.services import reopen_replaying, resolve_rejections
from apps.runs.models import (
    Checkpoint,
    Partition,
    Run,
    RunLog,
    RunStatus,
)
from apps.runs.selectors import counter_sums
from apps.runs.services.cursors import later_cursor
from apps.runs.services.dispatching import dispatch
from apps.runs.services.errors import NothingUsable, PartitionFailed
from apps.runs.services.logs import log


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
            _review(run, records)
        elif run.status == RunStatus.APPLYING:
            _begin_verify(run)
        elif run.status == RunStatus.VERIFYING:
            _finish(run)


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
    run.partitions.filter(state__in=(*Partition.WORKABLE, Partition.State.PLANNED)).update(
        state=Partition.State.CANCELLED, lease_until=None
    )
    log(run, "Cancelled; what was written stays written", level=RunLog.Level.WARNING)
    _end(run, RunStatus.CANCELLED)


def _review(run: Run, records: Sequence[Partition]) -> None:
    """Judge the whole plan; then apply it, or stop. Approval will wait here."""
    _sum_counters(run)
    run.planned_at = run.planned_at or now()
    run.status = RunStatus.REVIEWING
    run.save()
    try:
        _judge(run)
    except LockstepError as error:
        if not run.is_dry:
            refuse(run, error)
            return
        log(run, f"Would be refused: {error.message}", level=RunLog.Level.WARNING)
        run.cause_code, run.cause, run.remedy = error.code, error.message, error.remedy
    if run.is_dry:
        run.partitions.filter(kind=Partition.Kind.RECORDS).update(state=Partition.State.DONE)
        log(run, "Dry run: nothing was written")
        _end(run, RunStatus.PLANNED)
        return
    run.status = RunStatus.APPLYING
    run.save(update_fields=["status", "updated_at"])
    run.partitions.filter(kind=Partition.Kind.RECORDS).update(
        state=Partition.State.TO_APPLY, lease_until=None, not_before=None, failures=0
    )
    dispatch([part.pk for part in records])


def _judge(run: Run) -> None:
    """Raises what the guards say against the plan."""
    rule = run.version.spec()
    everything = not run.cursor_from and not run.rejection_ids
    judge(
        rule,
        PlanCounts(
            inserts=run.planned_inserts,
            updates=run.planned_updates,
            deletes=run.planned_deletes,
            read=run.read,
            rejected=run.rejected,
            linked=link_count(run.rule_id),
            source_empty=everything and run.read == 0,
            target_known=has_links(run.rule_id) or run.lane != Run.Lane.STREAM,
        ),
    )
    if everything and run.read and run.rejected >= run.read and not run.planned:
        raise NothingUsable(f"all {run.read} records that were read were rejected")


def _begin_verify(run: Run) -> None:
    _sum_counters(run)
    run.applied_at = now()
    run.status = RunStatus.VERIFYING
    run.save()
    number = run.partitions.count()
    part = Partition.objects.create(run=run, number=number, kind=Partition.Kind.VERIFY)
    dispatch([part.pk])


def _finish(run: Run) -> None:
    _sum_counters(run)
    _resolve(run)
    _store_checkpoint(run)
    accuracy = run.accuracy or {"sampled": 0, "equal": 0}
    differs = accuracy["equal"] < accuracy["sampled"]
    with_problems = run.rejected or run.stale or run.deletes_held_back or differs
    log(
        run,
        f"Done: {run.inserted} inserted, {run.updated} updated, {run.deleted} deleted, "
        f"{run.unchanged} unchanged, {run.rejected} rejected, {run.stale} moved meanwhile",
    )
    _end(run, RunStatus.PARTIAL if with_problems else RunStatus.SUCCEEDED)


def _resolve(run: Run) -> None:
    """Rejections whose record passed, or that a run over everything did not repeat, are over."""
    everything = not run.cursor_from and not run.rejection_ids
    resolve_rejections(run.rule_id, run.pk, everything=everything)


def _store_checkpoint(run: Run) -> None:
    """Move the rule's checkpoint on; the cursor never goes backwards."""
    if run.rejection_ids:
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
    if (run.sweep or not run.cursor_from) and not run.deletes_held_back:
        checkpoint.swept_at = run.started_at
    checkpoint.version = run.version
    checkpoint.succeeded_at = now()
    checkpoint.save()


def refuse(run: Run, error: LockstepError) -> None:
    """A guard stopped the plan: nothing is written."""
    _note_cause(run, error)
    run.partitions.filter(state=Partition.State.PLANNED).update(state=Partition.State.CANCELLED)
    log(run, f"Refused: {error.message}", level=RunLog.Level.ERROR)
    _end(run, RunStatus.REFUSED)


def fail(run_id: UUID, error: LockstepError) -> None:
    """End a run because of an error that does not pass by itself."""
    with transaction.atomic():
        run = Run.objects.select_for_update().filter(pk=run_id).first()
        if run is None or not run.is_active:
            return
        _sum_counters(run)
        _note_cause(run, error)
        run.partitions.filter(state__in=(*Partition.WORKABLE, Partition.State.PLANNED)).update(
            state=Partition.State.CANCELLED, lease_until=None
        )
        log(run, f"Failed: {error}", level=RunLog.Level.ERROR)
        _end(run, RunStatus.FAILED)


def _note_cause(run: Run, error: LockstepError) -> None:
    run.cause_code = error.code
    run.cause = str(error)[:4000]
    run.remedy = error.remedy[:4000]


def _end(run: Run, status: RunStatus) -> None:
    run.status = status
    run.finished_at = now()
    run.save()
    if run.rejection_ids:
        reopen_replaying([UUID(pk) for pk in run.rejection_ids])
    publish("run.finished", run.pk, {"rule": str(run.rule_id), "status": status.value})


def _sum_counters(run: Run) -> None:
    for name, value in counter_sums(run).items():
        setattr(run, name, value)
