"""Dispatching work to workers, and finding what was lost.

The database is the truth. A message to the broker is only a hint: whatever waits for work and
nobody holds is sent again.

Of a run's partitions only a few wait in the queue at a time; when a worker takes one, the next is
sent, to the queue's end. So a run with a thousand partitions uses every worker that is free, and
another run waits for a few of them only.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from celery import current_app
from django.conf import settings
from django.db import transaction
from django.db.models import Q
from kombu.exceptions import OperationalError

from apps.core.clock import now
from apps.core.selectors import platform_state
from apps.runs.models import ACTIVE_STATUSES, Partition

logger = logging.getLogger(__name__)
MOST_AT_ONCE = 1_000


def dispatch(partition_ids: Iterable[UUID]) -> None:
    """Tell workers about partitions, once the transaction around is committed."""
    ids = list(partition_ids)
    transaction.on_commit(lambda: _send(ids))


def dispatch_run(run_id: UUID) -> None:
    """Tell workers about a run's first partitions, once the transaction around is committed."""
    transaction.on_commit(lambda: send_next(run_id))


def send_next(run_id: UUID) -> int:
    """Send a run's partitions, by number, until its window is full; how many were sent."""
    moment = now()
    workable = Partition.objects.filter(
        run_id=run_id, run__status__in=ACTIVE_STATUSES, state__in=Partition.WORKABLE
    )
    in_queue = workable.filter(_unheld(moment), dispatched_at__isnull=False).count()
    room = int(settings.LOCKSTEP["RUN_WINDOW"]) - in_queue
    if room <= 0:
        return 0
    unsent = workable.filter(_due(moment), _unheld(moment), dispatched_at=None)
    ids = list(unsent.order_by("number").values_list("pk", flat=True)[:room])
    # Another worker may be doing the same: each partition is sent by one of them.
    mine = [pk for pk in ids if unsent.filter(pk=pk).update(dispatched_at=moment)]
    _tell(mine)
    return len(mine)


def _unheld(moment: datetime) -> Q:
    return Q(lease_until=None) | Q(lease_until__lt=moment)


def _due(moment: datetime) -> Q:
    return Q(not_before=None) | Q(not_before__lte=moment)


def _send(partition_ids: list[UUID]) -> None:
    Partition.objects.filter(pk__in=partition_ids).update(dispatched_at=now())
    _tell(partition_ids)


def _tell(partition_ids: list[UUID]) -> None:
    for partition_id in partition_ids:
        try:
            current_app.send_task("runs.work", args=[str(partition_id)])
        except (OperationalError, OSError) as error:
            logger.warning("broker not reachable, tick sends again: %s", error)
            return


def redispatch_lost() -> int:
    """Send partitions again that wait for work, are due, and that nobody holds.

    Those that were never sent follow within their run's window.
    """
    if platform_state().paused:
        return 0
    moment = now()
    patience = timedelta(seconds=min(30.0, float(settings.LOCKSTEP["LEASE_SECONDS"])))
    ready = Partition.objects.filter(
        _unheld(moment), _due(moment), state__in=Partition.WORKABLE, run__status__in=ACTIVE_STATUSES
    )
    lost = ready.filter(dispatched_at__lt=moment - patience)
    ids = list(lost.values_list("pk", flat=True)[:MOST_AT_ONCE])
    if ids:
        _send(ids)
    unsent = ready.filter(dispatched_at=None).values_list("run_id", flat=True)
    runs = list(unsent.order_by().distinct()[:MOST_AT_ONCE])
    return len(ids) + sum(send_next(run_id) for run_id in runs)
