"""Tokens: made, replaced, revoked, and taken from programs that use them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from datetime import datetime, timedelta

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Q

from apps.accounts.models import Token, User
from apps.accounts.scopes import SCOPES, permissions_of
from apps.accounts.selectors import (
    may_be_acted_for,
    may_have_tokens,
    may_manage_tokens,
    with_factor_known,
)
from apps.accounts.token_text import digest_of, hint_of, is_well_formed, new_text
from apps.audit.actions import Act
from apps.audit.models import Outcome
from apps.audit.origin import acting_by
from apps.audit.services import record
from apps.connectors.errors import Action, ConfigurationError, LockstepError
from apps.core.clock import now

MOST_NETWORKS = 50
MOST_OVERLAP_HOURS = 7 * 24
NOTED_EVERY = timedelta(minutes=1)


class TokenInvalid(ConfigurationError):
    """A token cannot be made as asked for."""

    code = "token.invalid"
    default_remedy = "Correct what the message names."


class TokenRefused(LockstepError):
    """A program came with a token that opens nothing."""

    code = "token.refused"
    action = Action.ASK
    default_remedy = "Make a new token, or ask whoever looks after the account."


def create_token(
    owner: User,
    *,
    name: str,
    scopes: Iterable[str],
    days: int,
    networks: Iterable[str] = (),
    actor: User | None,
) -> tuple[Token, str]:
    """A new token and its text, which can be shown this one time.

    days: its life, at most `TOKEN_DAYS`. networks: addresses and networks (CIDR) that it may be
    used from; none: from everywhere. Raises TokenInvalid, PermissionDenied.
    """
    _require_manager(actor, owner)
    if not 1 <= days <= settings.LOCKSTEP["TOKEN_DAYS"]:
        raise TokenInvalid(f"a token lives 1 to {settings.LOCKSTEP['TOKEN_DAYS']} days")
    if not name.strip():
        raise TokenInvalid("a token needs a name that says what it is for")
    token = Token(
        owner_id=owner.pk,
        name=name.strip()[:100],
        scopes=known_scopes(scopes),
        networks=parse_networks(networks),
        expires_at=now() + timedelta(days=days),
    )
    with transaction.atomic():
        text = _store(token, actor)
        details = {"owner": str(owner), "scopes": token.scopes, "networks": token.networks}
        details["expires"] = token.expires_at.isoformat()
        record(Act.TOKEN_CREATED, token, actor=actor, details=details)
    return token, text


@transaction.atomic
def rotate_token(token: Token, *, overlap_hours: int, actor: User | None) -> tuple[Token, str]:
    """A new token that says the same and lives as long as the old one was given, and its text.

    overlap_hours: for so long the old one works beside it. Raises TokenInvalid where the old one
    opens nothing any more or has been replaced already, PermissionDenied.
    """
    old = Token.objects.select_for_update(of=("self",)).select_related("owner").get(pk=token.pk)
    _require_manager(actor, old.owner)
    if old.void_since is not None:
        raise TokenInvalid("this token has ended", remedy="Make a new one.")
    if Token.objects.filter(replaces=old).exists():
        raise TokenInvalid("this token was replaced already", remedy="Replace the newer one.")
    if not 0 <= overlap_hours <= MOST_OVERLAP_HOURS:
        raise TokenInvalid(f"both work for 0 to {MOST_OVERLAP_HOURS} hours at most")
    new = Token(
        owner=old.owner,
        name=old.name,
        scopes=old.scopes,
        networks=old.networks,
        expires_at=now() + min(old.expires_at - old.created_at, _longest_life()),
        replaces=old,
    )
    text = _store(new, actor)
    old.expires_at = min(old.expires_at, now() + timedelta(hours=overlap_hours))
    old.save(update_fields=["expires_at", "updated_at"])
    details = {"owner": str(old.owner), "replaces": str(old.pk), "overlap hours": overlap_hours}
    record(Act.TOKEN_ROTATED, new, actor=actor, details=details)
    return new, text


@transaction.atomic
def revoke_token(token: Token, *, actor: User | None) -> None:
    """It opens nothing from now on. Raises PermissionDenied."""
    _require_manager(actor, token.owner, making=False)
    if Token.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=now()):
        record(Act.TOKEN_REVOKED, token, actor=actor, details={"owner": str(token.owner)})


def void_tokens(owner: User, *, actor: User | None, reason: str = "") -> None:
    """Whatever programs hold for this account opens nothing any more, OAuth tokens included.

    Asks for no permission: it goes with what makes an account anew, and with leave to change it.
    """
    owner.tokens_void_until = now()
    User.objects.filter(pk=owner.pk).update(tokens_void_until=owner.tokens_void_until)
    if Token.objects.filter(owner_id=owner.pk, revoked_at=None).exists():
        record(Act.TOKENS_VOIDED, owner, actor=actor, reason=reason)


def use_token(text: str, address: str | None) -> tuple[User, Token]:
    """The account that a program with this token acts as, limited to the token's scopes.

    address: where the request comes from, None where nobody knows. Raises TokenRefused.
    """
    named = Token.objects.filter(digest=digest_of(text))
    token = named.first() if is_well_formed(text) else None
    if token is None:
        raise TokenRefused("there is no such token")
    token.owner = with_factor_known(User.objects.filter(pk=token.owner_id)).get()
    acting_by(f"token {token.pk}")
    problem = _problem(token, address)
    if problem:
        _note_refusal(token, problem)
        raise TokenRefused(problem)
    _note_use(token, address)
    token.owner.limits = permissions_of(token.scopes)
    return token.owner, token


def known_scopes(names: Iterable[str]) -> list[str]:
    """The scopes in their order, each once. Raises TokenInvalid for none, and for unknown ones."""
    wanted = set(names)
    unknown = sorted(wanted - SCOPES.keys())
    if unknown:
        raise TokenInvalid(f"there is no scope {', '.join(unknown)}")
    if not wanted:
        raise TokenInvalid("a token without a scope opens nothing", remedy="Choose some scopes.")
    return [name for name in SCOPES if name in wanted]


def parse_networks(texts: Iterable[str]) -> list[str]:
    """Addresses and networks in their plain form. Raises TokenInvalid."""
    found: list[str] = []
    for text in filter(None, (text.strip() for text in texts)):
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError:
            raise TokenInvalid(
                f"'{text[:60]}' is no network",
                remedy="Write an address, or a network such as 192.0.2.0/24 or 2001:db8::/48.",
            ) from None
    if len(found) > MOST_NETWORKS:
        raise TokenInvalid(f"a token names {MOST_NETWORKS} networks at most")
    return list(dict.fromkeys(found))


def is_within(address: str | None, networks: Iterable[str]) -> bool:
    """Whether an address lies in one of these networks; in any where there are none."""
    wanted = list(networks)
    if not wanted:
        return True
    if address is None:
        return False
    known = ipaddress.ip_address(address)
    mapped = getattr(known, "ipv4_mapped", None)
    return any((mapped or known) in ipaddress.ip_network(network) for network in wanted)


def _longest_life() -> timedelta:
    return timedelta(days=settings.LOCKSTEP["TOKEN_DAYS"])


def _require_manager(actor: User | None, owner: User, *, making: bool = True) -> None:
    """Raises PermissionDenied, or TokenInvalid where no program may act as the owner."""
    if actor is not None and not may_manage_tokens(actor, owner):
        raise PermissionDenied("you may not manage tokens of this account")
    if making and not may_have_tokens(owner):
        raise TokenInvalid(
            "a token needs an active account with a second factor",
            where=str(owner),
            remedy="Enrol a second factor first.",
        )


def _store(token: Token, actor: User | None) -> str:
    text = new_text()
    token.digest, token.hint, token.created_by = digest_of(text), hint_of(text), actor
    token.save()
    return text


def _problem(token: Token, address: str | None) -> str:
    """Why the token opens nothing; empty where it does."""
    if token.void_since is not None:
        is_expired = token.state == Token.State.EXPIRED
        return "this token has expired" if is_expired else "this token was revoked"
    if not may_be_acted_for(token.owner, has_factor=token.owner.has_factor):  # type: ignore[attr-defined]
        return "the account of this token may not be used"
    if not is_within(address, token.networks):
        return "this token may not be used from this address"
    return ""


def _note_use(token: Token, address: str | None) -> None:
    """When and from where, once a minute at most."""
    moment = now()
    if _is_due(token.last_used_at, moment):
        unnoted = Q(last_used_at=None) | Q(last_used_at__lt=moment - NOTED_EVERY)
        rows = Token.objects.filter(unnoted, pk=token.pk)
        rows.update(last_used_at=moment, last_used_address=address or "")


def _note_refusal(token: Token, problem: str) -> None:
    """On record, once a minute at most: who floods us does not flood the audit log."""
    moment = now()
    unnoted = Q(last_refused_at=None) | Q(last_refused_at__lt=moment - NOTED_EVERY)
    if Token.objects.filter(unnoted, pk=token.pk).update(last_refused_at=moment):
        record(Act.TOKEN_REFUSED, token, actor=token.owner, outcome=Outcome.REFUSED, reason=problem)


def _is_due(last: datetime | None, moment: datetime) -> bool:
    return last is None or last < moment - NOTED_EVERY
