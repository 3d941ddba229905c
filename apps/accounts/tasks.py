"""The face for workers: forget what is past its time."""

from __future__ import annotations

from celery import shared_task

from apps.accounts import services
from apps.core.rate_limits import forget_full_buckets


@shared_task(name="accounts.forget_expired")  # type: ignore[untyped-decorator]
def forget_expired() -> None:
    """Sessions and invitations that have ended, and how often somebody has asked."""
    services.forget_expired()
    forget_full_buckets()
