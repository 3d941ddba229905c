"""Data keys: what stored values are encrypted with, and the keys that they are wrapped by.

Two floors. A *data key* encrypts values; it lies in the database, wrapped. The *key-encryption
key* that wraps it is in no database: a file, the environment, AWS KMS or Vault has it.

`providers` wraps and unwraps, `ring` holds the unwrapped keys of this process, `lifecycle` makes,
retires, rewraps and destroys them.
"""

from apps.core.keys.errors import DataKeyMissing, KeyProviderRefused, KeyProviderUnreachable
from apps.core.keys.lifecycle import (
    destroy_key,
    make_missing_keys,
    renew_key,
    rewrap_keys,
)
from apps.core.keys.ring import LIST_SECONDS, current_ring, forget_keys

__all__ = [
    "LIST_SECONDS",
    "DataKeyMissing",
    "KeyProviderRefused",
    "KeyProviderUnreachable",
    "current_ring",
    "destroy_key",
    "forget_keys",
    "make_missing_keys",
    "renew_key",
    "rewrap_keys",
]
