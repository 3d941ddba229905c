"""Ending a run, however it ends: its status, its cause, its counters."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import transaction

from apps.connectors.errors import LockstepError
from apps.core.clock import now
from apps.core.services import publish
from apps.ledger.services import reopen_replaying
from apps.runs.models import COUNTER_NAMES, Partition, Run, RunLog, RunStatus
from apps.runs.selectors import counter_sums
from apps.runs.services.logs import log


def end(run: Run, status: RunStatus) -> None:
    """Give the run its last status."""
    run.status = status
    run.finished_at = now()
    run.save()
    if run.rejection_ids:
        reopen_replaying([UUID(pk) for pk in run.rejection_ids])
    publish("run.finished", run.pk, {"rule": str(run.rule_id), "status": status.value})


def fail(run_id: UUID, error: LockstepError) -> None:
    """End a run because of an error that does not pass by itself."""
    with transaction.atomic():
        run = Run.objects.select_for_update().filter(pk=run_id).first()
        if run is None or not run.is_active:
            return
        sum_counters(run)
        note_cause(run, error)
        cancel_partitions(run)
        log(run, f"Failed: {error}", level=RunLog.Level.ERROR)
        end(run, RunStatus.FAILED)


def cancel_partitions(run: Run) -> None:
    """Whatever of the run has not been done is not done any more."""
    run.partitions.filter(state__in=(*Partition.WORKABLE, Partition.State.PLANNED)).update(
        state=Partition.State.CANCELLED, lease_until=None
    )


def note_cause(run: Run, error: LockstepError) -> None:
    """Say on the run why it ended; does not save."""
    run.cause_code = error.code
    run.cause = str(error)[:4000]
    run.remedy = error.remedy[:4000]


def sum_counters(run: Run, parts: Sequence[Partition] | None = None) -> None:
    """Set the run's counters to the sums of its partitions'; does not save.

    parts: all of them, where they have been read within this transaction.
    """
    if parts is None:
        sums = counter_sums(run)
    else:
        sums = {name: sum(getattr(part, name) for part in parts) for name in COUNTER_NAMES}
    for name, value in sums.items():
        setattr(run, name, value)
