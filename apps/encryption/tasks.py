"""The face for workers: go on with a rotation, erase and destroy keys, prove."""

from __future__ import annotations

from celery import shared_task
from django.contrib.auth import get_user_model

from apps.encryption import services
from apps.encryption.models import Rotation

WORK_SECONDS = 20.0  # then other tasks have their turn


@shared_task(name="encryption.rotate")  # type: ignore[untyped-decorator]
def rotate() -> None:
    """Asked for every few seconds: the rows say whether there is anything to do."""
    running = Rotation.objects.filter(state=Rotation.State.RUNNING).first()
    if running is not None:
        services.continue_rotation(running.pk, WORK_SECONDS)


@shared_task(name="encryption.maintain")  # type: ignore[untyped-decorator]
def maintain() -> None:
    services.replay_erasures()
    services.destroy_unused_keys()


@shared_task(name="encryption.prove")  # type: ignore[untyped-decorator]
def prove(user_id: int) -> None:
    """user_id: of the person who asked for it."""
    services.prove(actor=get_user_model().objects.get(pk=user_id))
