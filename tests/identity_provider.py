"""An OpenID provider without a network: it answers what Authlib asks through requests."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import RSAKey
from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter

ISSUER = "https://id.example"
CLIENT, SECRET = "lockstep", "the client's secret"


@dataclass
class IdentityProvider:
    """Signs whom `claims` says in; the fields may be set to lie."""

    claims: dict[str, Any] = field(default_factory=lambda: {"sub": "7", "amr": ["pwd", "mfa"]})
    issuer: str = ISSUER
    audience: Any = CLIENT
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "1"}))
    signing_key: Any = None  # another one than it publishes
    algorithm: str = "RS256"
    nonce: str | None = None  # another one than it was given
    asked: dict[str, str] = field(default_factory=dict)

    def approve(self, address: str) -> dict[str, str]:
        """The person has been sent to `address` and said yes; the query to come back with."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        self.asked = query
        return {"code": "a code", "state": query["state"]}

    def send(self, request: PreparedRequest, **kwargs: Any) -> Response:
        path = urlsplit(str(request.url)).path
        assert kwargs["timeout"], "every question has its time"
        if path == "/.well-known/openid-configuration":
            return _json(self._metadata())
        if path == "/keys":
            return _json({"keys": [self.key.as_dict(private=False)]})
        assert path == "/token"
        return self._token(parse_qs(str(request.body)))

    def _metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/keys",
            "id_token_signing_alg_values_supported": ["RS256", "HS256", "none"],
        }

    def _token(self, form: dict[str, list[str]]) -> Response:
        digest = hashlib.sha256(form["code_verifier"][0].encode()).digest()
        proof = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if proof != self.asked["code_challenge"] or form["code"] != ["a code"]:
            return _json({"error": "invalid_grant"}, 400)
        said = {
            "iss": ISSUER,
            "aud": self.audience,
            "iat": int(time.time()),
            "exp": int(time.time()) + 60,
            "nonce": self.nonce or self.asked["nonce"],
            **self.claims,
        }
        header = {"alg": self.algorithm, "kid": "1"}
        token = jwt.encode(header, said, self.signing_key or self.key, algorithms=[self.algorithm])
        return _json({"access_token": "x", "token_type": "Bearer", "id_token": token})


def installed(monkeypatch: pytest.MonkeyPatch, settings: Any) -> IdentityProvider:
    """A provider that the platform is set up with."""
    from apps.accounts.services import single_sign_on

    provider = IdentityProvider()
    single_sign_on._client.cache_clear()
    settings.SINGLE_SIGN_ON_SECRET = {
        "issuer": ISSUER,
        "client_id": CLIENT,
        "client_secret": SECRET,
        "name": "Example ID",
        "strong": frozenset({"mfa"}),
    }
    monkeypatch.setattr(
        HTTPAdapter, "send", lambda _, request, **more: provider.send(request, **more)
    )
    return provider


def _json(content: Any, status: int = 200) -> Response:
    answer = Response()
    answer.status_code = status
    answer.headers["Content-Type"] = "application/json"
    answer._content = json.dumps(content).encode()
    return answer
