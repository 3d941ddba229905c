"""The face for workers: forget what is past its time, seal what was marked."""

from __future__ import annotations

from celery import shared_task

from apps.hub.services import housekeeping


@shared_task(name="hub.maintain")  # type: ignore[untyped-decorator]
def maintain() -> None:
    housekeeping.maintain()
