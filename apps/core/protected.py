"""Protected values: AES-256-GCM, bound to the row and field that they belong to.

Stored form: `1 | length of key id | key id | 96-bit nonce | ciphertext and tag`. The associated
data names table, row and field, so a ciphertext that is pasted into another row does not open.
Keys come from `config.environment` as lines `id:base64`; the first one seals, all of them open.
"""

from __future__ import annotations

import base64
import binascii
import os
from functools import cache
from typing import Any

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.connectors.errors import ConfigurationError

VERSION = 1
NONCE_BYTES = 12


class ProtectedValueError(ConfigurationError):
    code = "protected.unreadable"
    default_remedy = "Restore the encryption key that this value was stored with."


@cache
def _keys() -> dict[str, AESGCM]:
    from config.environment import Environment

    keys = parse_keys(Environment().encryption_key_text())
    return {key_id: AESGCM(key) for key_id, key in keys.items()}


def parse_keys(text: str) -> dict[str, bytes]:
    """Keys by id, in the order given. Raises ConfigurationError; never shows a key."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.split(), start=1):
        key_id, _, encoded = line.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not key_id.isascii() or not 0 < len(key_id) < 256 or len(key) != 32:
            raise ConfigurationError(
                f"encryption key {number} is not `id:` and 32 bytes in base64",
                where="LOCKSTEP_ENCRYPTION_KEYS",
            )
        if key_id in keys:
            raise ConfigurationError(
                f"encryption key {number} has the id of an earlier one",
                where="LOCKSTEP_ENCRYPTION_KEYS",
            )
        keys[key_id] = key
    if not keys:
        raise ConfigurationError("there is no encryption key", where="LOCKSTEP_ENCRYPTION_KEYS")
    return keys


def seal(plain: bytes, identity: str) -> bytes:
    """Encrypt `plain` for the place that `identity` names, such as `source|<id>|secrets`."""
    key_id, key = next(iter(_keys().items()))
    nonce = os.urandom(NONCE_BYTES)
    head = bytes([VERSION, len(key_id)]) + key_id.encode()
    return head + nonce + key.encrypt(nonce, plain, head + identity.encode())


def unseal(sealed: bytes | memoryview, identity: str) -> bytes:
    """Decrypt. Raises ProtectedValueError when key, bytes or place are not the right ones."""
    data = bytes(sealed)
    if len(data) < 2 or data[0] != VERSION:
        raise ProtectedValueError("this is no protected value", where=identity)
    head = data[: 2 + data[1]]
    key = _keys().get(head[2:].decode(errors="replace"))
    if key is None:
        raise ProtectedValueError("the key of this value is not there", where=identity)
    body = data[len(head) :]
    try:
        return key.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], head + identity.encode())
    except (InvalidTag, ValueError):  # ValueError: too short to hold a nonce
        raise ProtectedValueError("this value was altered or moved", where=identity) from None


def seal_json(value: Any, identity: str) -> bytes:
    return seal(orjson.dumps(value), identity)


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
