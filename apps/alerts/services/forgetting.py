"""Removing what ended long ago."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db import models

from apps.alerts.models import Delivery, Incident, IncidentState
from apps.core.clock import now

AT_ONCE = 1_000


def forget_ended() -> int:
    """Remove incidents that have been over for as long as changes are kept; how many.

    Their timeline and messages go with them. Test messages belong to none.
    """
    before = now() - timedelta(days=settings.LOCKSTEP["LEDGER_KEEP_DAYS"])
    ended = Incident.objects.filter(state=IncidentState.RESOLVED, resolved_at__lt=before)
    tests = Delivery.objects.filter(incident=None, created_at__lt=before)
    _delete(tests)
    return _delete(ended)


def _delete(rows: models.QuerySet[models.Model]) -> int:
    """A thousand at a time, so that no transaction is long."""
    removed = 0
    while chosen := list(rows.values_list("pk", flat=True)[:AT_ONCE]):
        rows.filter(pk__in=chosen).delete()
        removed += len(chosen)
    return removed
