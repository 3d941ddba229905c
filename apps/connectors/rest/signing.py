"""How requests are signed in.

A signer changes a prepared request just before it is sent. Credentials go to the API's own origin
alone (the client sees to that), and a token to the address that it was set for.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

import requests
from requests.auth import _basic_auth_str

from apps.connectors.errors import SignInRefused
from apps.connectors.rest.definition import Signing
from apps.connectors.rest.settings import RestSettings

_TOKEN_MARGIN = 30.0  # seconds before its end in which a token is not used any more
_TOKEN_SECONDS = 300.0  # how long a token is used of which the server does not say


class Signer(ABC):
    @abstractmethod
    def sign(self, request: requests.PreparedRequest) -> None:
        """Add what signs the request in."""

    def renew(self) -> bool:
        """After a refusal: whether there are new credentials to try with."""
        return False


class NoSigner(Signer):
    def sign(self, request: requests.PreparedRequest) -> None:
        """Nothing is asked for."""


@dataclass(slots=True)
class HeaderSigner(Signer):
    name: str
    value: str

    def sign(self, request: requests.PreparedRequest) -> None:
        request.headers[self.name] = self.value


@dataclass(slots=True)
class QuerySigner(Signer):
    name: str
    value: str

    def sign(self, request: requests.PreparedRequest) -> None:
        parts = urlsplit(str(request.url))
        pair = urlencode({self.name: self.value})
        request.url = urlunsplit(parts._replace(query=f"{parts.query}&{pair}".lstrip("&")))


@dataclass(slots=True)
class HmacSigner(Signer):
    """Signs what `Signing` names, each request anew."""

    key: str
    key_id: str
    key_name: str
    signing: Signing

    def sign(self, request: requests.PreparedRequest) -> None:
        parts = urlsplit(str(request.url))
        moment = str(int(time.time()))
        body = request.body if isinstance(request.body, str | bytes) else b""
        pieces = {
            "{timestamp}": moment.encode(),
            "{method}": str(request.method).encode(),
            "{path}": parts.path.encode(),
            "{query}": parts.query.encode(),
            "{body}": body if isinstance(body, bytes) else body.encode(),
        }
        message = _replaced(self.signing.message.replace("\\n", "\n"), pieces)
        digest = hmac.new(self.key.encode(), message, getattr(hashlib, self.signing.algorithm))
        text = (
            digest.hexdigest()
            if self.signing.encoding == "hex"
            else base64.b64encode(digest.digest()).decode()
        )
        request.headers[self.signing.header] = f"{self.signing.prefix}{text}"
        if self.signing.timestamp_header:
            request.headers[self.signing.timestamp_header] = moment
        if self.key_name and self.key_id:
            request.headers[self.key_name] = self.key_id


def _replaced(template: str, pieces: dict[str, bytes]) -> bytes:
    """Each name replaced once: what a body holds is never taken for a name."""
    message, rest = b"", template
    while rest:
        name = next((name for name in pieces if rest.startswith(name)), None)
        message += pieces[name] if name else rest[0].encode()
        rest = rest[len(name) if name else 1 :]
    return message


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    ends: float  # monotonic seconds


_tokens: dict[str, _Token] = {}
_tokens_lock = threading.Lock()


class OAuthSigner(Signer):
    """OAuth 2.0 client credentials (RFC 6749, 4.4): tokens are kept until they end.

    fetch: sends the form to the token address and gives the status and the parsed answer.
    """

    def __init__(
        self, settings: RestSettings, fetch: Callable[[dict[str, str], str], tuple[int, Any]]
    ) -> None:
        self._settings = settings
        self._fetch = fetch
        known = (settings.api.token_url, settings.user, settings.scope, settings.secret_text)
        self._name = hashlib.sha256(repr(known).encode()).hexdigest()
        self._used = ""

    def sign(self, request: requests.PreparedRequest) -> None:
        with _tokens_lock:
            token = _tokens.get(self._name)
            if token is None or token.ends <= time.monotonic():
                token = _tokens[self._name] = self._new_token()
        self._used = token.value
        request.headers["Authorization"] = f"Bearer {token.value}"

    def renew(self) -> bool:
        with _tokens_lock:
            token = _tokens.get(self._name)
            if token is not None and token.value == self._used:
                del _tokens[self._name]
        return True

    def _new_token(self) -> _Token:
        form = {"grant_type": "client_credentials"}
        if self._settings.scope:
            form["scope"] = self._settings.scope
        basic = _basic_auth_str(self._settings.user, self._settings.secret_text)
        status, answer = self._fetch(form, basic)
        where = self._settings.api.token_url
        if status != 200 or not isinstance(answer, dict):
            known = answer.get("error") if isinstance(answer, dict) else None
            reason = f", '{known[:60]}'" if isinstance(known, str) else ""
            raise SignInRefused(f"no token was given (HTTP {status}{reason})", where=where)
        value = answer.get("access_token")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise SignInRefused("the answer holds no 'access_token'", where=where)
        try:
            seconds = float(answer.get("expires_in") or _TOKEN_SECONDS)
        except (TypeError, ValueError):
            seconds = _TOKEN_SECONDS
        return _Token(value, time.monotonic() + max(seconds - _TOKEN_MARGIN, 1.0))


def simple_signer(settings: RestSettings) -> Signer:
    """The signer for everything but OAuth 2.0, which needs a client of its own."""
    api, secret = settings.api, settings.secret_text
    if api.auth == "basic":
        return HeaderSigner("Authorization", _basic_auth_str(settings.user, secret))
    if api.auth == "bearer":
        return HeaderSigner("Authorization", f"Bearer {secret}")
    if api.auth == "api_key_header":
        return HeaderSigner(api.key_name, secret)
    if api.auth == "api_key_query":
        return QuerySigner(api.key_name, secret)
    if api.auth == "hmac":
        return HmacSigner(secret, settings.user, api.key_name, api.signing)
    return NoSigner()
