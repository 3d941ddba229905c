"""Vault's transit engine as the holder of the key-encryption key (also OpenBao).

HTTP API: `POST /v1/<mount>/encrypt/<key>` and `/decrypt/<key>`, texts in base64. The key has to
be of an AEAD type such as aes256-gcm96, because the context goes along as associated data.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from apps.connectors.outbound import OutboundRefused
from apps.connectors.outbound.http import checked_session
from apps.core.keys.errors import KeyProviderRefused, KeyProviderUnreachable
from apps.core.redaction import hide
from config.environment import Environment, KeyProviderName

TIMEOUT_SECONDS = 10
BUSY = (412, 429)  # replication is behind, too many requests


class VaultTransit:
    """One key of a transit engine."""

    def __init__(
        self,
        address: str,
        key: str,
        *,
        mount: str = "transit",
        token: str = "",
        token_file: Path | None = None,
        namespace: str = "",
        ca_file: Path | None = None,
    ) -> None:
        """token_file: read before each request, so that an agent may renew it."""
        self.base = f"{address.rstrip('/')}/v1/{quote(mount.strip('/'))}"
        self.mount, self.key = mount.strip("/"), key
        self.token, self.token_file = token, token_file
        self.namespace, self.ca_file = namespace, ca_file
        self.session = checked_session()

    @classmethod
    def of(cls, environment: Environment) -> VaultTransit | None:
        """None where the environment names no Vault."""
        if environment.vault_address is None:
            return None
        token = environment.vault_token
        return cls(
            environment.vault_address,
            environment.vault_key,
            mount=environment.vault_mount,
            token=token.get_secret_value() if token else "",
            token_file=environment.vault_token_file,
            namespace=environment.vault_namespace or "",
            ca_file=environment.vault_ca_file,
        )

    def wrap(self, key: bytes, context: str) -> tuple[bytes, str]:
        answer = self._ask("encrypt", plaintext=_text(key), associated_data=_text(context.encode()))
        ciphertext = answer.get("ciphertext", "")
        if not str(ciphertext).startswith("vault:"):
            raise self._refused("it gave no ciphertext")
        return ciphertext.encode(), f"{KeyProviderName.VAULT}:{self.mount}/{self.key}"

    def unwrap(self, wrapped: bytes, context: str, wrapped_by: str) -> bytes:
        answer = self._ask(
            "decrypt", ciphertext=wrapped.decode(), associated_data=_text(context.encode())
        )
        try:
            return base64.b64decode(answer.get("plaintext", ""), validate=True)
        except (binascii.Error, TypeError):
            raise self._refused("what it unwrapped is no base64") from None

    def _ask(self, verb: str, **body: str) -> dict[str, Any]:
        """The `data` of the answer. What Vault says in an error is told, the key never is."""
        try:
            answer = self.session.post(
                f"{self.base}/{verb}/{quote(self.key, safe='')}",
                json=body,
                headers=self._headers(),
                timeout=TIMEOUT_SECONDS,
                verify=str(self.ca_file) if self.ca_file else True,
                allow_redirects=False,
            )
            content = answer.json()
        except requests.JSONDecodeError:
            content = {}
        except OutboundRefused as error:
            raise KeyProviderRefused(error.message, where=self.base, remedy=error.remedy) from None
        except (requests.RequestException, OSError) as error:
            raise KeyProviderUnreachable(
                f"Vault does not answer ({type(error).__name__})", where=self.base
            ) from None
        if answer.status_code >= 500 or answer.status_code in BUSY:
            raise KeyProviderUnreachable(
                f"Vault answers {answer.status_code}: {_errors(content)}", where=self.base
            )
        if answer.status_code != 200:
            raise self._refused(f"Vault answers {answer.status_code}: {_errors(content)}")
        data: dict[str, Any] = content.get("data") or {}
        return data

    def _headers(self) -> dict[str, str]:
        token = self.token
        if self.token_file is not None:
            token = self.token_file.read_text(encoding="ascii").strip()
        hide(token)
        headers = {"X-Vault-Token": token, "X-Vault-Request": "true"}
        return headers | ({"X-Vault-Namespace": self.namespace} if self.namespace else {})

    def _refused(self, message: str) -> KeyProviderRefused:
        return KeyProviderRefused(message, where=f"{self.base} key {self.key}")


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _errors(content: Any) -> str:
    errors = content.get("errors") if isinstance(content, dict) else None
    return "; ".join(str(error) for error in errors or []) or "no reason given"
