"""Which clients people have let in, and how they are put out again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import Exists, OuterRef
from oauth2_provider.models import (
    clear_expired,
    get_access_token_model,
    get_grant_model,
    get_refresh_token_model,
)

from apps.accounts.models import User
from apps.api.models import OAuthClient, UsedCode
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.clock import now

REMEMBERED = timedelta(days=31)  # longer than what a code brings can be refreshed


@dataclass(frozen=True, slots=True)
class Consent:
    """A client that holds something of a person: what it may, and since when."""

    client: OAuthClient
    scopes: list[str]
    since: datetime


def consents_of(person: User) -> list[Consent]:
    """The clients that can still act as this person, by name."""
    live = get_refresh_token_model().objects.filter(user=person, revoked=None)
    rows = live.select_related("application", "access_token").order_by("created")
    found: dict[int, Consent] = {}
    for token in rows:
        scopes = token.access_token.scope.split() if token.access_token else []
        known = found.get(token.application_id)
        since = known.since if known else token.created
        merged = sorted({*scopes, *(known.scopes if known else ())})
        found[token.application_id] = Consent(token.application, merged, since)
    return sorted(found.values(), key=lambda consent: consent.client.name)


@transaction.atomic
def withdraw_consent(person: User, client: OAuthClient) -> bool:
    """End all that a client holds of a person; whether there was anything."""
    ended = end_tokens(client, person)
    if ended:
        record(Act.CLIENT_WITHDRAWN, client, actor=person)
    return ended


def end_tokens(client: OAuthClient, person: User | None = None) -> bool:
    """End codes and tokens of a client, or those that it holds of one person."""
    held = {"application": client, **({"user": person} if person else {})}
    get_grant_model().objects.filter(**held).delete()
    access = get_access_token_model().objects.filter(**held).delete()[0]
    refresh = get_refresh_token_model().objects.filter(**held, revoked=None)
    return bool(refresh.update(revoked=now()) or access)


def forget_ended() -> None:
    """Remove what has ended long enough ago."""
    clear_expired()
    living = get_refresh_token_model().objects.filter(revoked=None, token_family=OuterRef("family"))
    old = UsedCode.objects.filter(~Exists(living), used_at__lte=now() - REMEMBERED)
    old.delete()
