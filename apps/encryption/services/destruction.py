"""Destroying data keys: what was encrypted with one and lies in no table any more is gone for good.

A retired key of values is destroyed a day later at the earliest, when no column holds a value that
begins with its id. By then no process seals with it (`LIST_SECONDS`), and no transaction that did
is still open. Keys for hashes stay: the audit log names them for ever. So do keys while a backup
needs them: a backup of the database has its own copy of this table.
"""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.clock import now
from apps.core.keys import destroy_key
from apps.core.keys.ring import head_of
from apps.core.models import DataKey
from apps.encryption.columns import rotated_columns
from apps.encryption.models import Rotation

KEPT = timedelta(days=1)


def destroy_unused_keys() -> list[DataKey]:
    """Destroy the retired keys that nothing refers to; returns them."""
    if Rotation.objects.filter(state=Rotation.State.RUNNING).exists():
        return []
    retired = DataKey.objects.filter(
        purpose=DataKey.Purpose.VALUES,
        state=DataKey.State.RETIRED,
        retired_at__lt=now() - KEPT,
    )
    return [key for key in retired if not _is_used(key) and _destroyed(key)]


def _is_used(key: DataKey) -> bool:
    head = head_of(key.pk)
    return any(column.values().filter(column.under(head)).exists() for column in rotated_columns())


def _destroyed(key: DataKey) -> bool:
    with transaction.atomic():
        if not destroy_key(key):
            return False
        record(Act.KEY_DESTROYED, key, actor=None)
    return True
