"""Protected values: AES-256-GCM, bound to the row and field that they belong to.

Stored form: `2 | 64-bit id of the data key | 96-bit nonce | ciphertext and tag`. The associated
data is what stands before the nonce, and the name of table, row and field: a ciphertext that is
pasted into another row does not open. Data keys: `core.keys`.

Values under the key of a data subject (`core.keys.subjects`) have its id there, behind a `3`.

Values from before there were data keys begin with `1 | length of key id | key id`, and open with
the key of that id in environment or file; a rotation leaves none of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Protocol

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.connectors.errors import ConfigurationError
from apps.core.keys.providers import local_keys
from apps.core.keys.ring import FORMAT_VERSION, current_ring, key_of_values
from apps.core.models import DataKey

WITHOUT_DATA_KEY = 1
SUBJECT_VERSION = 3
KEY_ID_BYTES = 8
HEAD_BYTES = 1 + KEY_ID_BYTES
NONCE_BYTES = 12
SUBJECTS = "keys of data subjects"


class ProtectedValueError(ConfigurationError):
    code = "protected.unreadable"
    default_remedy = "Restore the encryption key that this value was stored with."


class ErasedValueError(ProtectedValueError):
    """Its person's key was destroyed, so that nobody can read it any more."""

    code = "protected.erased"
    default_remedy = "Nothing: the person's values were erased on purpose."


class Sealer(Protocol):
    """A key that values can be sealed with."""

    @property
    def head(self) -> bytes:
        """What the values begin with."""

    @property
    def aead(self) -> AESGCM: ...


def derived_keys(purpose: str) -> Mapping[str, bytes]:
    """A 256-bit key for `purpose` from each key for hashes, by its name; the first is in use."""
    return current_ring().derived(purpose)


def seal(plain: bytes, identity: str, sealer: Sealer | None = None) -> bytes:
    """Encrypt `plain` for the place that `identity` names, such as `source|<id>|secrets`.

    sealer: the key of the person whom it is about; None: the data key in use.
    """
    key = sealer or current_ring().active_key(DataKey.Purpose.VALUES)
    nonce = os.urandom(NONCE_BYTES)
    return key.head + nonce + key.aead.encrypt(nonce, plain, key.head + identity.encode())


def unseal(sealed: bytes | memoryview, identity: str) -> bytes:
    """Decrypt. Raises ProtectedValueError when key, bytes or place are not the right ones."""
    data = bytes(sealed)
    head = data[:HEAD_BYTES]
    key = current_ring().of_values.get(head)
    if key is None:
        head, key = _other_key(data, identity)
    body = data[len(head) :]
    try:
        return key.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], head + identity.encode())
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise ProtectedValueError("this value was altered or moved", where=identity) from None


def _other_key(data: bytes, identity: str) -> tuple[bytes, AESGCM]:
    """What stands before the nonce, and the key that it names, where that is none at hand."""
    key: AESGCM | None = None
    head = data[:HEAD_BYTES]
    if len(data) >= HEAD_BYTES and data[0] == FORMAT_VERSION:
        key = key_of_values(head)
    elif len(data) >= HEAD_BYTES and data[0] == SUBJECT_VERSION:
        from apps.core.keys.subjects import aead_of_subject  # which seals keys itself

        key = aead_of_subject(head, identity)
    elif len(data) > 2 and data[0] == WITHOUT_DATA_KEY:
        head = data[: 2 + data[1]]
        local = local_keys()
        secret = local.keys.get(head[2:].decode(errors="replace")) if local else None
        key = AESGCM(secret) if secret else None
    else:
        raise ProtectedValueError("this is no protected value", where=identity)
    if key is None:
        raise ProtectedValueError("the key of this value is not there", where=identity)
    return head, key


def key_name_of(sealed: bytes) -> str | None:
    """The name of the key that a stored value says it is under; None where it is no such value."""
    if len(sealed) >= HEAD_BYTES + NONCE_BYTES and sealed[0] == FORMAT_VERSION:
        return sealed[1:HEAD_BYTES].hex()
    if len(sealed) >= HEAD_BYTES + NONCE_BYTES and sealed[0] == SUBJECT_VERSION:
        return SUBJECTS
    if len(sealed) > 2 and sealed[0] == WITHOUT_DATA_KEY:
        return sealed[2 : 2 + sealed[1]].decode(errors="replace")
    return None


def seal_json(value: Any, identity: str, sealer: Sealer | None = None) -> bytes:
    return seal(orjson.dumps(value), identity, sealer)


def unseal_json(sealed: bytes | memoryview, identity: str) -> Any:
    return orjson.loads(unseal(sealed, identity))


def seal_large(plain: bytes, identity: str) -> tuple[bytes, bytes]:
    """Encrypt with a key of its own: the sealed key, and `nonce | ciphertext and tag`.

    Whoever removes the sealed key has destroyed the content for good.
    """
    key, nonce = AESGCM.generate_key(256), os.urandom(NONCE_BYTES)
    sealed = nonce + AESGCM(key).encrypt(nonce, plain, identity.encode())
    return seal(key, f"{identity}|key"), sealed


def unseal_large(
    sealed_key: bytes | memoryview, sealed: bytes | memoryview, identity: str
) -> bytes:
    """Decrypt what `seal_large` gave. Raises ProtectedValueError."""
    data = memoryview(sealed)
    key = AESGCM(unseal(sealed_key, f"{identity}|key"))
    try:
        return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], identity.encode())
    except (InvalidTag, ValueError):
        raise ProtectedValueError("this value was altered or moved", where=identity) from None
