"""The face for workers: look, escalate, send."""

from __future__ import annotations

from celery import shared_task

from apps.alerts import services


@shared_task(name="alerts.watch")  # type: ignore[untyped-decorator]
def watch() -> None:
    services.watch()
    services.escalate()
    services.deliver_due()
