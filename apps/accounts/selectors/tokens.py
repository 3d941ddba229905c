"""Reads about tokens and the accounts that programs act as."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from apps.accounts.models import ServiceAccount, Token, User
from apps.accounts.selectors.people import has_no_more_rights, with_factor_known
from apps.core.selectors import may, scoped, without_grants

without_grants(ServiceAccount, Token)


def service_accounts(actor: Any, action: str = "view") -> QuerySet[ServiceAccount]:
    return scoped(ServiceAccount.objects.all(), actor, action)


def tokens_of(owner: User) -> QuerySet[Token]:
    """The account's tokens, the newest first."""
    return Token.objects.filter(owner_id=owner.pk).select_related("owner", "replaced_by")


def may_be_acted_for(account: User, *, has_factor: bool) -> bool:
    """Whether a program may act as this account at all.

    has_factor: whether the person has enrolled a second factor. A person who could not sign in
    is not reached by a token either: tokens are no way around the second factor.
    """
    if account.is_service:
        return account.is_active
    signs_in = account.is_active and account.is_staff and not account.must_change_password
    return signs_in and has_factor


def may_have_tokens(account: User) -> bool:
    """`may_be_acted_for` with the factors that the account has now."""
    known = with_factor_known(User.objects.filter(pk=account.pk)).get()
    return may_be_acted_for(known, has_factor=known.has_factor)  # type: ignore[attr-defined]


def may_manage_tokens(actor: User, owner: User) -> bool:
    """Whether `actor` may make, replace and revoke tokens of `owner`.

    People do so for themselves; for a service account, whoever may change it and holds all of its
    rights, because a token hands these out. A program makes no tokens.
    """
    if actor.limits is not None:
        return False
    if actor.pk == owner.pk:
        return not actor.is_service
    if not owner.is_service:
        return False
    account = ServiceAccount.objects.get(pk=owner.pk)
    return may(actor, "change", account) and has_no_more_rights(owner, actor)
