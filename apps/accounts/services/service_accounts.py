"""Accounts that programs act as."""

from __future__ import annotations

from collections.abc import Iterable

from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction

from apps.accounts.models import ServiceAccount, User
from apps.accounts.selectors import is_within_rights, rights_of, service_accounts
from apps.audit.actions import Act
from apps.audit.services import record
from apps.connectors.errors import ConfigurationError
from apps.core.selectors import require


class ServiceAccountInvalid(ConfigurationError):
    code = "service_account.invalid"
    default_remedy = "Correct what the message names."


@transaction.atomic
def create_service_account(
    name: str, roles: Iterable[Group] = (), *, actor: User | None
) -> ServiceAccount:
    """An account that nobody signs in to; tokens and grants make it useful.

    Raises ServiceAccountInvalid, PermissionDenied (also for roles that may more than `actor`).
    """
    require(actor, service_accounts, "add")
    chosen = list(roles)
    if actor is not None and not all(is_within_rights(role, actor) for role in chosen):
        raise PermissionDenied("you may not give roles that may more than you")
    account = ServiceAccount(username=name.strip(), is_service=True)
    account.set_unusable_password()
    try:
        account.full_clean()
    except ValidationError as error:
        raise ServiceAccountInvalid(" ".join(error.messages)) from None
    account.save()
    account.groups.set(chosen)
    record(
        Act.SERVICE_CREATED, account, actor=actor, details={"gained": sorted(rights_of(account))}
    )
    return account


def require_person(account: User) -> None:
    """Raise ServiceAccountInvalid where nobody is to sign in as this account."""
    if account.is_service:
        raise ServiceAccountInvalid(
            f"{account} is a service account, nobody signs in as it",
            remedy="Make a token for it instead.",
        )
