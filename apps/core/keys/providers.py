"""Who holds the key-encryption key: one small interface, and the keys in a file or environment.

A provider's wrapped keys carry its name (`DataKey.wrapped_by`), so that they can be moved from one
provider to another: the old one only has to stay configured until `rewrap_keys` is through.
"""

from __future__ import annotations

import base64
import binascii
import os
from functools import cache
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.connectors.errors import ConfigurationError
from apps.core.keys.errors import KeyProviderRefused
from config.environment import Environment, KeyProviderName

KEY_BYTES = 32
NONCE_BYTES = 12


class KeyProvider(Protocol):
    """Wraps data keys of 32 bytes, and unwraps them.

    context: which key it is; one that was wrapped for another context does not unwrap. Both
    raise KeyProviderUnreachable when a later attempt may succeed, else KeyProviderRefused.
    """

    def wrap(self, key: bytes, context: str) -> tuple[bytes, str]:
        """The wrapped key, and what it was wrapped by: `provider:key`, at most 255 characters."""

    def unwrap(self, wrapped: bytes, context: str, wrapped_by: str) -> bytes:
        """The key again. wrapped_by: as `wrap` said it."""


class LocalKeys:
    """Key-encryption keys of the environment or a file: AES-256-GCM, `nonce | ciphertext, tag`."""

    def __init__(self, text: str) -> None:
        self.keys = parse_keys(text)

    def wrap(self, key: bytes, context: str) -> tuple[bytes, str]:
        key_id, secret = next(iter(self.keys.items()))
        nonce = os.urandom(NONCE_BYTES)
        wrapped = nonce + AESGCM(secret).encrypt(nonce, key, context.encode())
        return wrapped, f"{KeyProviderName.LOCAL}:{key_id}"

    def unwrap(self, wrapped: bytes, context: str, wrapped_by: str) -> bytes:
        key_id = wrapped_by.partition(":")[2]
        secret = self.keys.get(key_id)
        if secret is None:
            raise KeyProviderRefused(
                f"the key-encryption key '{key_id}' is not there",
                where=context,
                remedy="Put its line back into LOCKSTEP_ENCRYPTION_KEYS or the file of keys.",
            )
        try:
            return AESGCM(secret).decrypt(
                wrapped[:NONCE_BYTES], wrapped[NONCE_BYTES:], context.encode()
            )
        except (InvalidTag, ValueError):
            raise KeyProviderRefused(
                f"the key-encryption key '{key_id}' is another one, or the wrapped key was altered",
                where=context,
                remedy="Put the key back that was there when the data key was made.",
            ) from None


def parse_keys(text: str) -> dict[str, bytes]:
    """Keys by id, in the order given. Raises ConfigurationError; never shows a key."""
    keys: dict[str, bytes] = {}
    for number, line in enumerate(text.split(), start=1):
        key_id, _, encoded = line.partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except binascii.Error:
            key = b""
        if not key_id.isascii() or not 0 < len(key_id) < 200 or len(key) != KEY_BYTES:
            raise _wrong(f"encryption key {number} is not `id:` and 32 bytes in base64")
        if key_id in keys:
            raise _wrong(f"encryption key {number} has the id of an earlier one")
        keys[key_id] = key
    if not keys:
        raise _wrong("there is no encryption key")
    return keys


def _wrong(message: str) -> ConfigurationError:
    return ConfigurationError(message, where="LOCKSTEP_ENCRYPTION_KEYS")


@cache
def local_keys() -> LocalKeys | None:
    """The keys of environment or file; None where another provider took over and none is left."""
    text = Environment().encryption_key_text()
    return LocalKeys(text) if text else None


@cache
def provider(name: str) -> KeyProvider:
    """The provider of this name, as the environment configures it. Raises ConfigurationError."""
    found: KeyProvider | None = None
    if name == KeyProviderName.LOCAL:
        found = local_keys()
    elif name == KeyProviderName.AWS_KMS:
        from apps.core.keys.aws_kms import AwsKms

        found = AwsKms.of(Environment())
    elif name == KeyProviderName.VAULT:
        from apps.core.keys.vault import VaultTransit

        found = VaultTransit.of(Environment())
    if found is None:
        raise KeyProviderRefused(
            f"there is no key provider '{name}' in this environment",
            remedy="Configure the provider that the key was wrapped by until all are rewrapped.",
        )
    return found


def wrap(key: bytes, context: str) -> tuple[bytes, str]:
    """Wrap with the provider that is configured; what it gives, `KeyProvider.wrap` says."""
    return provider(Environment().key_provider).wrap(key, context)


def unwrap(wrapped: bytes, context: str, wrapped_by: str) -> bytes:
    """Unwrap with the provider that wrapped it."""
    key = provider(wrapped_by.partition(":")[0]).unwrap(wrapped, context, wrapped_by)
    if len(key) != KEY_BYTES:
        raise KeyProviderRefused("what was unwrapped is no key of 32 bytes", where=context)
    return key


def forget_providers() -> None:
    """The environment may have changed: read it again."""
    provider.cache_clear()
    local_keys.cache_clear()
