"""Retention of what people decide about: conflicts and rejections that are over go at last."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from apps.ledger.models import Conflict, EarlierValues, Rejection
from apps.ledger.selectors.inbox import OPEN

CHUNK = 5_000
OVER = (Rejection.State.RESOLVED, Rejection.State.DISMISSED)


def expire_closed(before: datetime) -> int:
    """Forget conflicts and rejections that were over before a time; returns how many.

    Of conflicts that still wait, what the sides held before then goes, not what they hold now.
    """
    conflicts = Conflict.objects.exclude(state__in=OPEN).filter(updated_at__lt=before)
    earlier = EarlierValues.objects.filter(met_at__lt=before)
    rejections = Rejection.objects.filter(state__in=OVER, updated_at__lt=before)
    return sum(_delete(rows) for rows in (earlier, conflicts, rejections))


def _delete(rows: QuerySet[Conflict] | QuerySet[EarlierValues] | QuerySet[Rejection]) -> int:
    count = 0
    while ids := list(rows.values_list("pk", flat=True)[:CHUNK]):
        rows.model.objects.filter(pk__in=ids).delete()
        count += len(ids)
    return count
