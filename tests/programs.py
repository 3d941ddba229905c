"""Programs for tests: what sends a token, as a client of the API does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from django.http import HttpResponse
from django.test import Client

from apps.accounts.models import User
from apps.accounts.scopes import SCOPES
from apps.accounts.services import create_token
from tests.people import enrolled

API = "/api/v1/"


@dataclass
class Program:
    """Sends a bearer text with each request, and a new idempotency key with each unsafe one."""

    bearer: str
    client: Client = field(default_factory=Client)

    def get(self, place: str, headers: dict[str, str] | None = None, **query: Any) -> HttpResponse:
        return self.client.get(self._at(place), query, headers=self._headers(headers))

    def post(
        self, place: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> HttpResponse:
        return self._send("post", place, body, headers)

    def patch(self, place: str, body: Any, headers: dict[str, str] | None = None) -> HttpResponse:
        """Changes what was read just now, unless the headers say otherwise."""
        given = headers if headers is not None else {"If-Match": self.get(place)["ETag"]}
        return self._send("patch", place, body, given)

    def _send(
        self, method: str, place: str, body: Any, headers: dict[str, str] | None
    ) -> HttpResponse:
        given = self._headers({"Idempotency-Key": uuid4().hex, **(headers or {})})
        content = {} if body is None else body
        send = getattr(self.client, method)
        return send(self._at(place), content, content_type="application/json", headers=given)

    def _headers(self, more: dict[str, str] | None) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.bearer}", **(more or {})}

    @staticmethod
    def _at(place: str) -> str:
        path = place.removeprefix("http://testserver")
        return path if path.startswith("/") else f"{API}{path}"


def program(account: User, scopes: Iterable[str] = tuple(SCOPES)) -> Program:
    """A program with a new token of this account; a person gets a second factor first."""
    if not account.is_service:
        enrolled(account)
    _, text = create_token(account, name="test", scopes=scopes, days=1, actor=None)
    return Program(text)
