"""Who a request acts as: by `Authorization: Bearer …`, and by nothing else.

Neither sessions nor passwords open the API, so it needs no protection against forged requests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.request import Request

from apps.accounts.models import User
from apps.accounts.services import TokenRefused, use_token
from apps.api.oauth.bearing import use_access_token
from apps.api.oauth.secret_texts import ACCESS
from apps.core.addresses import client_address

REALM = 'Bearer realm="lockstep"'


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request acts by. name: in bookkeeping; scopes: what it allows."""

    name: str
    scopes: frozenset[str]


class BearerAuthentication(BaseAuthentication):
    """Personal and service tokens, and the access tokens of OAuth clients."""

    def authenticate(self, request: Request) -> tuple[User, Credential] | None:
        text = bearer_text(request)
        if text is None:
            return None
        if is_in_clear(request._request):
            raise TokenRefused(
                "this token came without encryption",
                remedy="Replace it, whoever listened has it; then use https.",
            )
        return self.opened(text, client_address(request._request))

    def opened(self, text: str, address: str | None) -> tuple[User, Credential]:
        """The account behind a bearer text. Raises TokenRefused."""
        if text.startswith(ACCESS):
            account, name, scopes = use_access_token(text, address)
            return account, Credential(name, scopes)
        account, token = use_token(text, address)
        return account, Credential(f"token {token.pk}", frozenset(token.scopes))

    def authenticate_header(self, request: Request) -> str:
        return REALM


def is_in_clear(request: HttpRequest) -> bool:
    """Whether secrets came by HTTP where HTTPS is what everybody is led to."""
    return settings.SECURE_SSL_REDIRECT and not request.is_secure()


def bearer_text(request: Any) -> str | None:
    """What follows `Bearer`; None where nothing of the kind was sent. Raises TokenRefused."""
    header = get_authorization_header(request)
    if not header:
        return None
    scheme, _, text = header.partition(b" ")
    if scheme.lower() != b"bearer":
        raise TokenRefused("the API takes bearer tokens only")
    try:
        return text.strip().decode("ascii")
    except UnicodeError:
        raise TokenRefused("there is no such token") from None
