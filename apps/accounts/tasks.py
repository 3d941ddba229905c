"""The face for workers: forget what is past its time."""

from __future__ import annotations

from celery import shared_task

from apps.accounts import services


@shared_task(name="accounts.forget_expired")  # type: ignore[untyped-decorator]
def forget_expired() -> None:
    """Sessions and invitations that have ended."""
    services.forget_expired()
