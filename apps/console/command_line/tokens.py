"""`token create`, `list`, `rotate` and `revoke`."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from django.contrib.auth.models import Group

from apps.accounts import services
from apps.accounts.models import Token, User
from apps.accounts.selectors import tokens_of
from apps.console.command_line.output import DONE, Output, WrongUsage
from apps.core.selectors import by_id


def create(arguments: Namespace, output: Output) -> int:
    """Make a token; its text is on standard output, all else is not."""
    token, text = services.create_token(
        _account(arguments.account, arguments.service),
        name=arguments.name,
        scopes=arguments.scopes,
        days=arguments.days,
        networks=arguments.network,
        actor=None,
    )
    return _told(token, text, output)


def show(arguments: Namespace, output: Output) -> int:
    """Tokens of one account, or all."""
    rows = Token.objects.select_related("owner").order_by("owner__username", "-created_at")
    if arguments.account:
        rows = tokens_of(_account(arguments.account)).order_by("-created_at")
    tokens = list(rows)
    for token in tokens:
        used = f"{token.last_used_at:%Y-%m-%d %H:%M}" if token.last_used_at else "never"
        output.line(
            f"{token.pk}  {token.hint}…  {token.state.label:8} {token.owner}: {token.name}; "
            f"{', '.join(token.scopes)}; ends {token.expires_at:%Y-%m-%d}; used {used}"
        )
    output.result([_facts(token) for token in tokens])
    return DONE


def rotate(arguments: Namespace, output: Output) -> int:
    new, text = services.rotate_token(
        _token(arguments.token), overlap_hours=arguments.overlap, actor=None
    )
    return _told(new, text, output)


def revoke(arguments: Namespace, output: Output) -> int:
    token = _token(arguments.token)
    services.revoke_token(token, actor=None)
    token.refresh_from_db()
    output.line(f"{token} of {token.owner} opens nothing any more.")
    output.result(_facts(token))
    return DONE


def _told(token: Token, text: str, output: Output) -> int:
    output.line(text)
    output.result({**_facts(token), "text": text})
    return DONE


def _facts(token: Token) -> dict[str, Any]:
    used = token.last_used_at
    return {
        "id": str(token.pk),
        "account": str(token.owner),
        "name": token.name,
        "begins_with": token.hint,
        "state": token.state.value,
        "scopes": token.scopes,
        "networks": token.networks,
        "expires_at": token.expires_at.isoformat(),
        "last_used_at": used.isoformat() if used else None,
        "last_used_address": token.last_used_address,
    }


def _account(name: str, role: str | None = None) -> User:
    """The account of that name; with `role`, made as a service account where there is none."""
    account = User.objects.filter(username=name).first()
    if account is not None:
        return account
    if role is None:
        raise WrongUsage(
            f"there is no account '{name}'",
            remedy="Name one, or make a service account with --service ROLE.",
        )
    group = Group.objects.filter(name=role).first()
    if group is None:
        raise WrongUsage(f"there is no role '{role}'", remedy="See “Roles” in the admin.")
    return services.create_service_account(name, [group], actor=None)


def _token(text: str) -> Token:
    token = by_id(Token.objects.select_related("owner"), text)
    if token is None:
        raise WrongUsage(f"there is no token '{text}'", remedy="`lockstep token list` lists them.")
    return token
