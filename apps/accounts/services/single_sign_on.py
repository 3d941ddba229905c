"""Single sign-on by OpenID Connect: the authorization code flow with PKCE, by Authlib.

The provider is set by the environment, one for the platform. What it says is taken only from an ID
token that it signed for this client, in answer to this browser's question (state and nonce).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from typing import Any

from authlib.common.errors import AuthlibBaseError
from authlib.integrations.django_client import DjangoOAuth2App, OAuth
from authlib.integrations.requests_client import OAuth2Session
from django.conf import settings
from django.db import IntegrityError, transaction
from django.http import HttpRequest, HttpResponseRedirect
from joserfc.errors import JoseError
from requests import RequestException

from apps.accounts.models import ExternalIdentity, User
from apps.accounts.services.factors import enrolled
from apps.connectors.errors import ConfigurationError
from apps.connectors.outbound import OutboundRefused
from apps.connectors.outbound.http import checked
from apps.core.clock import now

logger = logging.getLogger("lockstep.accounts")

SECONDS = 10  # that the provider has for each answer
# Signatures by a key that the provider alone has; never `none`, never our own secret.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
FAILURES = (
    AuthlibBaseError,
    JoseError,
    RequestException,
    ValueError,
    RuntimeError,
    KeyError,
    OutboundRefused,
)
FRESH_SECONDS = 300


class SingleSignOnRefused(ConfigurationError):
    code = "sign_in.single_sign_on_refused"
    default_remedy = "Try again; if it keeps happening, an administrator looks at the settings."


@dataclass(frozen=True, slots=True)
class Claims:
    """What the provider says: who, known by which name, by a second factor, how many s ago."""

    issuer: str
    subject: str
    name: str
    strong: bool
    age: float | None

    @property
    def fresh(self) -> bool:
        """Whether the person has proved it to the provider just now."""
        return self.age is not None and self.age < FRESH_SECONDS


def provider_name() -> str:
    """What the button says; empty where there is no single sign-on."""
    given = settings.SINGLE_SIGN_ON_SECRET
    return str(given["name"]) if given else ""


def ask_provider(request: HttpRequest, back: str, *, again: bool = False) -> str:
    """Where the browser has to go to be asked who it is, remembered in its session.

    Raises SingleSignOnRefused when the provider is not reached.

    back: absolute address to come back to. again: ask even who is signed in there.
    """
    more = {"prompt": "login", "max_age": "0"} if again else {}
    try:
        answer: HttpResponseRedirect = _provider().authorize_redirect(request, back, **more)
    except FAILURES as error:
        raise _refused("the identity provider does not answer as it should", error) from error
    return answer.url


def claims_of(request: HttpRequest) -> Claims:
    """What the provider says of whom it sent back. Raises SingleSignOnRefused."""
    given = settings.SINGLE_SIGN_ON_SECRET
    expected = {
        "iss": {"essential": True, "values": [given["issuer"]]},
        "aud": {"essential": True, "value": given["client_id"]},
    }
    try:
        token = _provider().authorize_access_token(request, claims_options=expected)
        said = token["userinfo"]
        methods = {*said.get("amr", ()), said.get("acr")}
        authenticated = said.get("auth_time")
        return Claims(
            issuer=given["issuer"],
            subject=str(said["sub"]),
            name=str(said.get("preferred_username") or said.get("email") or said["sub"]),
            strong=bool(methods & given["strong"]),
            age=None if authenticated is None else now().timestamp() - float(authenticated),
        )
    except FAILURES as error:
        raise _refused("the identity provider did not say who this is", error) from error


def _refused(message: str, error: Exception) -> SingleSignOnRefused:
    """Strangers are not told which address was refused; the log of the server is."""
    if isinstance(error, OutboundRefused):
        logger.warning("Single sign-on: %s %s", error, error.remedy)
    return SingleSignOnRefused(message)


def linked(claims: Claims) -> ExternalIdentity | None:
    """Whose identity this is, with what the provider says of it now."""
    found = ExternalIdentity.objects.select_related("user")
    identity = found.filter(issuer=claims.issuer, subject=claims.subject).first()
    if identity is not None:
        identity.strong = claims.strong
        identity.set_last_used_timestamp(commit=False)
        identity.save(update_fields=["strong", "last_used_at"])
    return identity


def link(user: User, claims: Claims, *, verified: bool) -> ExternalIdentity:
    """Let this identity sign in as `user`. Raises SingleSignOnRefused, EnrolmentClosed.

    verified: whether the person has proved a second factor in this session.
    """
    identity = ExternalIdentity(
        user=user,
        name=f"{provider_name()}: {claims.name}"[:64],
        issuer=claims.issuer,
        subject=claims.subject,
        strong=claims.strong,
    )
    try:
        with transaction.atomic():
            if claims.strong or verified:
                enrolled(user, verified=verified)
            identity.save()
    except IntegrityError as error:
        raise SingleSignOnRefused(
            "this identity belongs to somebody already", remedy="Unlink it there first."
        ) from error
    return identity


def _provider() -> Any:
    given = settings.SINGLE_SIGN_ON_SECRET
    if given is None:
        raise SingleSignOnRefused("there is no single sign-on here")
    client = _client(given["issuer"], given["client_id"], given["client_secret"])
    metadata = client.load_server_metadata()
    if metadata.get("issuer") != given["issuer"]:
        raise ValueError("the provider calls itself by another name")
    offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
    metadata["id_token_signing_alg_values_supported"] = [a for a in ALGORITHMS if a in offered]
    return client


class _Session(OAuth2Session):
    """What the provider's own description names is asked through the guard, too; and no further."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self.max_redirects = 0
        checked(self)


class _Provider(DjangoOAuth2App):
    client_cls = _Session


@cache
def _client(issuer: str, client_id: str, client_secret: str) -> Any:
    return OAuth().register(
        "provider",
        client_cls=_Provider,
        client_id=client_id,
        client_secret=client_secret,
        server_metadata_url=f"{issuer.rstrip('/')}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid profile email",
            "code_challenge_method": "S256",
            "default_timeout": SECONDS,
        },
    )
