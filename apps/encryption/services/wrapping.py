"""Another key around the data keys: no value is touched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.keys import rewrap_keys
from apps.core.models import DataKey
from apps.core.selectors import require
from apps.encryption.selectors import data_keys

if TYPE_CHECKING:
    from apps.accounts.models import User


def rewrap(*, actor: User | None) -> list[DataKey]:
    """Wrap all data keys with the key-encryption key in use now; put on record.

    Raises the provider's error where a key cannot be unwrapped or wrapped; those before it are
    done, and doing it again does no harm.
    """
    require(actor, data_keys, "rotate")
    keys = rewrap_keys()
    wrapped_by = sorted({key.wrapped_by for key in keys})
    record(Act.KEYS_REWRAPPED, actor=actor, details={"keys": len(keys), "wrapped_by": wrapped_by})
    return keys
