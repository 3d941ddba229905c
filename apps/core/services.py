"""Writes that every room shares."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from django.core.exceptions import PermissionDenied
from django.db import connection

from apps.core.keys import forget_keys, make_missing_keys
from apps.core.models import DataKey, OutboxEvent, PlatformState
from apps.core.selectors import platform_state

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser


def publish(topic: str, subject: uuid.UUID, payload: dict[str, Any] | None = None) -> OutboxEvent:
    """Tell upper rooms that something happened; call it inside the transaction it belongs to."""
    return OutboxEvent.objects.create(topic=topic, subject=subject, payload=payload or {})


def set_platform_paused(paused: bool, *, actor: AbstractUser | None, reason: str = "") -> None:
    """Pause or resume everything. `actor` None is the system itself (the command line)."""
    if actor is not None and not actor.has_perm("core.pause_platform"):
        raise PermissionDenied("you may not pause or resume everything")
    state = platform_state()
    state.paused = paused
    state.pause_reason = reason if paused else ""
    state.changed_by_id = actor.pk if actor else None
    state.save()


def prepare_data_keys() -> None:
    """Make the data keys that are missing, where their table is there, and read all anew."""
    forget_keys()
    if DataKey._meta.db_table in connection.introspection.table_names():
        make_missing_keys()


__all__ = ["PlatformState", "prepare_data_keys", "publish", "set_platform_paused"]
