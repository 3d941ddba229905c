"""What becomes of data keys: made, retired, rewrapped, destroyed."""

from __future__ import annotations

import os

from django.db import IntegrityError, models, transaction

from apps.core.clock import now
from apps.core.keys import providers
from apps.core.keys.errors import DataKeyMissing
from apps.core.keys.ring import forget_keys
from apps.core.models import DataKey


def make_missing_keys() -> int:
    """Make an active key for each purpose that has none; how many. Any number may try at once."""
    purposes = set(DataKey.Purpose.values)
    there = set(_active().values_list("purpose", flat=True))
    return sum(_made(purpose) for purpose in sorted(purposes - there))


def _made(purpose: str) -> bool:
    try:
        with transaction.atomic():
            _new_key(purpose).save(force_insert=True)
    except IntegrityError:  # another process was faster
        return False
    return True


def renew_key(purpose: str) -> DataKey:
    """Make a new active key; the present one from now on only decrypts.

    Other processes go on with the old one until they read the list again: `ring.LIST_SECONDS`.
    """
    with transaction.atomic():
        for old in _active().select_for_update().filter(purpose=purpose):
            old.state, old.retired_at = DataKey.State.RETIRED, now()
            old.save(update_fields=["state", "retired_at"])
        key = _new_key(purpose)
        key.save(force_insert=True)
        transaction.on_commit(forget_keys)
    return key


def rewrap_keys() -> list[DataKey]:
    """Wrap all data keys with the key-encryption key that is in use now.

    Each is its own step: what was not reached keeps its old wrapping and opens as before.
    Raises the provider's error.
    """
    rewrapped = []
    for key in DataKey.objects.exclude(state=DataKey.State.DESTROYED).order_by("created_at"):
        if key.wrapped is None:
            raise DataKeyMissing(f"the data key {key.name} is empty")
        before = bytes(key.wrapped)
        secret = providers.unwrap(before, key.context, key.wrapped_by)
        key.wrapped, key.wrapped_by = providers.wrap(secret, key.context)
        same = DataKey.objects.filter(pk=key.pk, wrapped=before)
        if same.update(wrapped=key.wrapped, wrapped_by=key.wrapped_by):
            rewrapped.append(key)
    return rewrapped


def destroy_key(key: DataKey) -> bool:
    """Forget a retired key for good; whether it was retired. The caller knows that no value
    refers to it."""
    rows = DataKey.objects.filter(pk=key.pk, state=DataKey.State.RETIRED)
    gone = rows.update(state=DataKey.State.DESTROYED, wrapped=None, destroyed_at=now())
    transaction.on_commit(forget_keys)
    return bool(gone)


def _active() -> models.QuerySet[DataKey]:
    return DataKey.objects.filter(state=DataKey.State.ACTIVE)


def _new_key(purpose: str) -> DataKey:
    """Unsaved, wrapped."""
    key = DataKey(purpose=purpose)
    key.wrapped, key.wrapped_by = providers.wrap(os.urandom(providers.KEY_BYTES), key.context)
    return key
