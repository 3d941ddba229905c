"""Rounds: records that had moved when they were to be written are planned again in the same run.

A round is a partition of its own over just these records. After a bounded number of rounds what
still moves counts as stale, and the next run takes it up. A plan that a person approved, and an
undo, have no second round: they write what was looked at or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import F

from apps.runs.models import Partition, Run, RunLog
from apps.runs.services.dispatching import dispatch
from apps.runs.services.logs import log

MOST_ROUNDS = 3


def begin_round(run: Run, records: Sequence[Partition]) -> bool:
    """Let what had moved be planned again. False: nothing had, or it may not be."""
    last = max((part.round for part in records), default=0)
    of_last = [part for part in records if part.round == last]
    moved = sum(part.stale for part in of_last)
    if not moved or last >= MOST_ROUNDS or not _may_plan_again(run):
        return False
    run.partitions.filter(pk__in=[part.pk for part in of_last]).update(
        replanned=F("replanned") + F("stale"), stale=0
    )
    number = max(part.number for part in records) + 1
    part = Partition.objects.create(
        run=run, number=number, kind=Partition.Kind.RECORDS, round=last + 1
    )
    log(run, f"{moved} had moved meanwhile; planning them again", level=RunLog.Level.WARNING)
    dispatch([part.pk])
    return True


def _may_plan_again(run: Run) -> bool:
    has_key = bool(run.version.mapping_version.spec().left.key)
    return run.kind == Run.Kind.SYNC and run.decided_at is None and has_key
