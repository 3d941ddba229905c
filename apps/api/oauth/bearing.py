"""Access tokens of OAuth clients, as the API takes them."""

from __future__ import annotations

from oauth2_provider.models import get_access_token_model

from apps.accounts.models import User
from apps.accounts.scopes import permissions_of
from apps.accounts.services import TokenRefused, is_within
from apps.accounts.token_text import digest_of, is_well_formed
from apps.api.models import OAuthClient
from apps.api.oauth.accounts import account_of, acts_for
from apps.api.oauth.secret_texts import ACCESS
from apps.audit.actions import Act
from apps.audit.models import Outcome
from apps.audit.origin import acting_by
from apps.audit.services import record
from apps.core.rate_limits import RateLimit, take

NOTED = RateLimit("refused access tokens on record", most=1, seconds=60)


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
    name = f"client {client.pk}"
    acting_by(name)
    problem = ""
    if not client.is_active or account is None or not acts_for(account, token.created):
        problem = "the account or the client of this access token may not be used"
    elif not is_within(address, client.networks):
        problem = "this access token may not be used from this address"
    if problem or account is None:
        _note_refusal(client, account, problem)
        raise TokenRefused(problem)
    scopes = frozenset(token.scope.split()) & frozenset(client.allowed_scopes)
    account.limits = permissions_of(scopes)
    return account, name, scopes


def _note_refusal(client: OAuthClient, account: User | None, problem: str) -> None:
    """On record, once a minute at most: who floods us does not flood the audit log."""
    if take(NOTED, str(client.pk)).allowed:
        record(Act.TOKEN_REFUSED, client, actor=account, outcome=Outcome.REFUSED, reason=problem)
