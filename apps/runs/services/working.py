"""The worker's side: take a partition under its lease, do its step, handle what goes wrong."""

from __future__ import annotations

import logging
import random
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

from django.db import DatabaseError, transaction

from apps.connectors.errors import Action, LeaseLost, LockstepError
from apps.core.clock import now
from apps.runs.models import Partition, Run, RunLog
from apps.runs.services.advancing import advance
from apps.runs.services.applying import apply
from apps.runs.services.context import forget_context
from apps.runs.services.dispatching import send_next
from apps.runs.services.ending import fail
from apps.runs.services.errors import RunCancelled, RunRefused, Unexpected
from apps.runs.services.leasing import Lease, acquire, heartbeat, release
from apps.runs.services.loading import resume_relay
from apps.runs.services.logs import log
from apps.runs.services.places import offer
from apps.runs.services.planning import plan
from apps.runs.services.preparing import prepare
from apps.runs.services.verifying import verify

logger = logging.getLogger(__name__)
MOST_FAILURES = 6
PAUSE_SECONDS = 30.0


def work(partition_id: UUID) -> bool:
    """Do what a partition waits for. False when there was nothing to do for this worker."""
    lease = acquire(partition_id)
    if lease is None:
        return False
    partition = Partition.objects.select_related(
        "run__rule__mapping__left__source", "run__rule__mapping__right__source", "run__version"
    ).get(pk=partition_id)
    if partition.cut:
        send_next(partition.run_id)
    if _do_step(partition, lease):
        advance(partition.run_id)
        offer(lease.places)
    return True


def _do_step(partition: Partition, lease: Lease) -> bool:
    """Do the step, and handle what goes wrong. False where another worker has taken it over."""
    try:
        with heartbeat(lease):
            _step(partition)(partition, lease)
    except LeaseLost:
        logger.warning("partition %s was taken over", partition.pk)
        return False
    except RunCancelled:
        release(lease)
    except RunRefused as error:
        release(lease, not_before=now() + timedelta(seconds=PAUSE_SECONDS))
        log(partition.run, f"Waiting: {error.message}", level=RunLog.Level.WARNING)
    except LockstepError as error:
        _failed(partition, lease, error)
    except DatabaseError:
        logger.error("the platform's database failed under partition %s", partition.pk)
        _failed(partition, lease, _busy())
    except Exception as error:
        # Not the message: drivers quote values in theirs.
        places = "".join(traceback.format_tb(error.__traceback__))
        logger.error("partition %s failed: %s at\n%s", partition.pk, type(error).__name__, places)
        text = f"{type(error).__name__} in {_step(partition).__name__}"
        _failed(partition, lease, Unexpected(text))
    return True


def _busy() -> LockstepError:
    from apps.connectors.errors import TargetBusy

    return TargetBusy("the platform's own database did not answer in time")


def _step(partition: Partition) -> Callable[[Partition, Lease], None]:
    if partition.kind == Partition.Kind.PREPARE:
        return prepare
    if partition.kind == Partition.Kind.VERIFY:
        return verify
    if partition.state == Partition.State.TO_PLAN:
        return plan
    return resume_relay if partition.run.lane == Run.Lane.RELAY else apply


def _failed(partition: Partition, lease: Lease, error: LockstepError) -> None:
    """Retry later with back-off what may pass by itself; end the run for everything else."""
    forget_context()
    failures = partition.failures + 1
    facts = {"error_code": error.code, "error": str(error)[:2000], "failures": failures}
    if error.action is Action.RETRY and failures < MOST_FAILURES:
        seconds = min(300.0, 2.0**failures) * random.uniform(0.5, 1.0)  # noqa: S311  # nosec B311  # only spreads retries
        later = now() + timedelta(seconds=seconds)
        if release(lease, **facts, not_before=later, dispatched_at=None):
            log(
                partition.run,
                f"{error} Trying again in {seconds:.0f} s ({failures} of {MOST_FAILURES}).",
                level=RunLog.Level.WARNING,
                partition=partition.number,
            )
        return
    with transaction.atomic():  # else a crash between the two would let the run go on without it
        if release(lease, **facts, state=Partition.State.FAILED):
            fail(partition.run_id, error)


def work_until_finished(
    run: Run, *, on_progress: Callable[[Run], None] | None = None, poll_seconds: float = 0.1
) -> Run:
    """Work a run in this process, beside any workers, until it ends or waits for a person."""
    while True:
        run.refresh_from_db()
        if on_progress is not None:
            on_progress(run)
        if not run.is_active or run.is_waiting:
            return run
        waiting = run.partitions.filter(state__in=Partition.WORKABLE).order_by("number")
        if not any(work(pk) for pk in list(waiting.values_list("pk", flat=True))):
            advance(run.pk)
            time.sleep(poll_seconds)
