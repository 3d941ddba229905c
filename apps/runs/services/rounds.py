"""Rounds: records that had moved when they were to be written are planned again in the same run.

A round is a partition of its own over just these records. After a bounded number of rounds what
still moves counts as stale, and the next run takes it up. A plan that a person approved, and an
undo, have no second round: they write what was looked at or nothing.

A record that takes a unique value from one that another partition, or another batch, writes is
planned again as well (`is_torn`): in the first round both are in one batch. So the records of large
tables need not be planned together for the sake of a few.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import F

from apps.runs.models import Partition, Run, RunLog
from apps.runs.services.dispatching import dispatch
from apps.runs.services.logs import log

MOST_ROUNDS = 3


def begin_round(run: Run, records: Sequence[Partition]) -> bool:
    """Let what had moved, or waits, be planned again. False: nothing is, or it may not be."""
    last = max((part.round for part in records), default=0)
    of_last = [part for part in records if part.round == last]
    moved = sum(part.stale for part in of_last)
    if not moved or last >= MOST_ROUNDS or not may_plan_again(run):
        return False
    run.partitions.filter(pk__in=[part.pk for part in of_last]).update(
        replanned=F("replanned") + F("stale"), stale=0
    )
    number = max(part.number for part in records) + 1
    part = Partition.objects.create(
        run=run, number=number, kind=Partition.Kind.RECORDS, round=last + 1
    )
    log(
        run,
        f"{moved} had moved meanwhile, or waited for others; planning them again",
        level=RunLog.Level.WARNING,
    )
    dispatch([part.pk])
    return True


def is_torn(partition: Partition, batch_rows: int) -> bool:
    """Whether records of a run are written apart from one another, and may be planned again."""
    is_part = bool(partition.cut) or partition.planned > batch_rows
    one_way = partition.run.version.spec().two_way is None
    return is_part and one_way and partition.round == 0 and may_plan_again(partition.run)


def may_plan_again(run: Run) -> bool:
    """Whether a run may write what was not in the plan that was judged."""
    has_key = bool(run.version.mapping_version.spec().left.key)
    return run.kind == Run.Kind.SYNC and run.decided_at is None and has_key
