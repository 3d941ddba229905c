"""The face for workers: seal what waits, verify everything."""

from __future__ import annotations

from celery import shared_task
from django.contrib.auth import get_user_model

from apps.audit import services


@shared_task(name="audit.seal")  # type: ignore[untyped-decorator]
def seal() -> None:
    services.seal_pending()


@shared_task(name="audit.verify")  # type: ignore[untyped-decorator]
def verify(user_id: int | None = None) -> None:
    """user_id: of the person who asked for it."""
    person = get_user_model().objects.filter(pk=user_id).first() if user_id else None
    services.verify(actor=person)
