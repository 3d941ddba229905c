"""Dispatching work to workers, and finding what was lost.

The database is the truth. A message to the broker is only a hint: whatever waits for work and
nobody holds is sent again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
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


def dispatch(partition_ids: Iterable[UUID]) -> None:
    """Tell workers about partitions, once the transaction around is committed."""
    ids = list(partition_ids)
    transaction.on_commit(lambda: _send(ids))


def _send(partition_ids: list[UUID]) -> None:
    Partition.objects.filter(pk__in=partition_ids).update(dispatched_at=now())
    for partition_id in partition_ids:
        try:
            current_app.send_task("runs.work", args=[str(partition_id)])
        except (OperationalError, OSError) as error:
            logger.warning("broker not reachable, tick sends again: %s", error)
            return


def redispatch_lost() -> int:
    """Send partitions again that wait for work, are due, and that nobody holds."""
    if platform_state().paused:
        return 0
    moment = now()
    patience = timedelta(seconds=min(30.0, float(settings.LOCKSTEP["LEASE_SECONDS"])))
    lost = (
        Partition.objects.filter(state__in=Partition.WORKABLE, run__status__in=ACTIVE_STATUSES)
        .filter(Q(lease_until=None) | Q(lease_until__lt=moment))
        .filter(Q(not_before=None) | Q(not_before__lte=moment))
        .filter(Q(dispatched_at=None) | Q(dispatched_at__lt=moment - patience))
    )
    ids = list(lost.values_list("pk", flat=True)[:1000])
    if ids:
        _send(ids)
    return len(ids)
