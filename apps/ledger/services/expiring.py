"""Retention beside changes: conflicts and rejections that are over, and words of former values."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db.models import QuerySet

from apps.ledger.models import Conflict, EarlierValues, FormerValue, Rejection
from apps.ledger.selectors.inbox import OPEN

CHUNK = 5_000
OVER = (Rejection.State.RESOLVED, Rejection.State.DISMISSED, Rejection.State.DRY_RUN)


def expire_closed(before: datetime) -> int:
    """Forget conflicts and rejections that were over before a time; returns how many.

    Of conflicts that still wait, what the sides held before then goes, not what they hold now.
    """
    conflicts = Conflict.objects.exclude(state__in=OPEN).filter(updated_at__lt=before)
    earlier = EarlierValues.objects.filter(met_at__lt=before)
    rejections = Rejection.objects.filter(state__in=OVER, updated_at__lt=before)
    return sum(_delete(rows) for rows in (earlier, conflicts, rejections))


def expire_former_values(before: datetime) -> None:
    """Forget the words of changes that were planned before a time."""
    _delete(FormerValue.objects.filter(planned_at__lt=before))


def _delete(rows: QuerySet[Any]) -> int:
    count = 0
    while ids := list(rows.values_list("pk", flat=True)[:CHUNK]):
        rows.model.objects.filter(pk__in=ids).delete()
        count += len(ids)
    return count
