"""The face for workers: forget what is past its time."""

from __future__ import annotations

from celery import shared_task

from apps.api import services
from apps.api.oauth import consents


@shared_task(name="api.forget_calls")  # type: ignore[untyped-decorator]
def forget_calls() -> None:
    """Answers that need not be given again, codes and tokens of OAuth that have ended."""
    services.forget_calls()
    consents.forget_ended()
