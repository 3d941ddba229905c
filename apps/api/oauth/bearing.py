"""Access tokens of OAuth clients, as the API takes them."""

from __future__ import annotations

from oauth2_provider.models import get_access_token_model

from apps.accounts.models import User
from apps.accounts.scopes import permissions_of
from apps.accounts.services import TokenRefused, is_within
from apps.accounts.token_text import digest_of, is_well_formed
from apps.api.oauth.accounts import account_of, acts_for
from apps.api.oauth.secret_texts import ACCESS
from apps.audit.origin import acting_by


def use_access_token(text: str, address: str | None) -> tuple[User, str, frozenset[str]]:
    """The account that a client acts as, the client's name in bookkeeping, and its scopes.

    Raises TokenRefused, without saying more than the client knows.
    """
    rows = get_access_token_model().objects.select_related("application", "user")
    named = rows.filter(token_checksum=digest_of(text))
    token = named.first() if is_well_formed(text, ACCESS) else None
    if token is None or token.is_expired():
        raise TokenRefused("this access token has ended", remedy="Get a new one.")
    client = token.application
    account = token.user or account_of(client)
    if not client.is_active or account is None or not acts_for(account, token.created):
        raise TokenRefused("the account or the client of this access token may not be used")
    if not is_within(address, client.networks):
        raise TokenRefused("this access token may not be used from this address")
    scopes = frozenset(token.scope.split()) & frozenset(client.allowed_scopes)
    name = f"client {client.pk}"
    acting_by(name)
    account.limits = permissions_of(scopes)
    return account, name, scopes
