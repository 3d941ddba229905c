"""The face for workers: look, escalate, send."""

from __future__ import annotations

import logging

from celery import shared_task

from apps.alerts import services

logger = logging.getLogger("lockstep.alerts")


@shared_task(name="alerts.watch")  # type: ignore[untyped-decorator]
def watch() -> None:
    for step in (services.watch, services.escalate, services.deliver_due):
        try:
            step()
        except Exception:
            logger.exception("%s failed; what follows goes on", step.__name__)


@shared_task(name="alerts.forget")  # type: ignore[untyped-decorator]
def forget() -> None:
    services.forget_ended()
