"""The face for workers: keep the ledger small."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.conf import settings

from apps.core.clock import now
from apps.ledger import services
from apps.runs.models import ACTIVE_STATUSES, Run


@shared_task(name="ledger.maintain")  # type: ignore[untyped-decorator]
def maintain() -> None:
    """Move old changes to segments and forget those past their time.

    What runs that go on or wait need, also of those that they undo, stays where it is.
    """
    active = Run.objects.filter(status__in=ACTIVE_STATUSES)
    needed = {pk for pair in active.values_list("pk", "undoes_id") for pk in pair if pk}
    moment = now()
    services.maintain(
        compact_before=moment - timedelta(days=settings.LOCKSTEP["LEDGER_COMPACT_DAYS"]),
        expire_before=moment - timedelta(days=settings.LOCKSTEP["LEDGER_KEEP_DAYS"]),
        kept_runs=needed,
    )
