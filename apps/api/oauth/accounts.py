"""Whom an OAuth client acts as, and whether it may."""

from __future__ import annotations

from datetime import datetime

from apps.accounts.models import ServiceAccount, User
from apps.accounts.selectors import may_have_tokens
from apps.api.models import OAuthClient


def acts_for(account: User | None, issued_at: datetime) -> bool:
    """Whether what was issued then may act as this account now."""
    if account is None or not may_have_tokens(account):
        return False
    until = account.tokens_void_until
    return until is None or issued_at > until


def client_may_act(client: OAuthClient, account: User | None) -> bool:
    """People consent to clients; a client that acts by itself does so as its service account."""
    if account is None:
        return client.user_id is not None
    return not account.is_service


def account_of(client: OAuthClient) -> ServiceAccount | None:
    """Whom a client acts as without anybody's consent."""
    return ServiceAccount.objects.filter(pk=client.user_id).first()
