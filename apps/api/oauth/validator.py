"""What the library asks at each step, where ours is stricter.

Codes are kept as digests, as all else is. A request without a scope is refused. Whom a code or a
refresh token stands for has to be somebody who may be acted for at that moment. A code that comes
twice, or a refresh token that was replaced, revokes everything that came of it: one of the two who
hold it has stolen it (RFC 9700, sections 4.2.4 and 4.14.2).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from oauth2_provider.models import (
    get_access_token_model,
    get_grant_model,
    get_refresh_token_model,
)
from oauth2_provider.oauth2_validators import OAuth2Validator

from apps.accounts.models import User
from apps.accounts.token_text import digest_of
from apps.api.models import UsedCode
from apps.api.oauth.accounts import acts_for, client_may_act
from apps.audit.actions import Act
from apps.audit.models import Outcome
from apps.audit.services import record
from apps.core.clock import now


class StrictValidator(OAuth2Validator):  # type: ignore[misc]
    """The library's validator with `apps.api.oauth`'s rules."""

    # Codes

    def save_authorization_code(
        self, client_id: str, code: dict[str, str], request: Any, *args: Any, **kwargs: Any
    ) -> None:
        kept = {**code, "code": digest_of(code["code"])}
        super().save_authorization_code(client_id, kept, request, *args, **kwargs)

    def validate_code(
        self, client_id: str, code: str, client: Any, request: Any, *args: Any, **kwargs: Any
    ) -> bool:
        digest = digest_of(code)
        self._refuse_replay(digest)
        valid = super().validate_code(client_id, digest, client, request, *args, **kwargs)
        if not valid:
            return False
        issued_at = get_grant_model().objects.get(code=digest, application=client).created
        return acts_for(request.user, issued_at) and client_may_act(client, request.user)

    def invalidate_authorization_code(
        self, client_id: str, code: str, request: Any, *args: Any, **kwargs: Any
    ) -> None:
        """It is gone, and known as used; the token that was just made for it is known with it."""
        digest = digest_of(code)
        super().invalidate_authorization_code(client_id, digest, request, *args, **kwargs)
        made = get_refresh_token_model().objects.filter(application=request.client)
        family = made.filter(user=request.user).order_by("-created", "-pk").first()
        UsedCode.objects.create(
            digest=digest, used_at=now(), family=family.token_family if family else None
        )

    def confirm_redirect_uri(
        self, client_id: str, code: str, redirect_uri: str, client: Any, *args: Any, **kwargs: Any
    ) -> bool:
        digest = digest_of(code)
        return bool(
            super().confirm_redirect_uri(client_id, digest, redirect_uri, client, *args, **kwargs)
        )

    def get_code_challenge(self, code: str, request: Any) -> str | None:
        found: str | None = super().get_code_challenge(digest_of(code), request)
        return found

    def get_code_challenge_method(self, code: str, request: Any) -> str | None:
        found: str | None = super().get_code_challenge_method(digest_of(code), request)
        return found

    def get_authorization_code_scopes(
        self, client_id: str, code: str, redirect_uri: str, request: Any
    ) -> list[str]:
        digest = digest_of(code)
        found: list[str] = super().get_authorization_code_scopes(
            client_id, digest, redirect_uri, request
        )
        return found

    # Scopes

    def validate_scopes(
        self,
        client_id: str,
        scopes: list[str],
        client: Any,
        request: Any,
        *args: Any,
        **kwargs: Any,
    ) -> bool:
        known = super().validate_scopes(client_id, scopes, client, request, *args, **kwargs)
        return bool(scopes) and bool(known)

    # Refreshing

    def validate_refresh_token(
        self, refresh_token: str, client: Any, request: Any, *args: Any, **kwargs: Any
    ) -> bool:
        digest = digest_of(refresh_token)
        rows = get_refresh_token_model().objects.filter(token_checksum=digest)
        known = rows.filter(application=client).first()
        valid = super().validate_refresh_token(refresh_token, client, request, *args, **kwargs)
        if known is not None and known.revoked is not None:
            _record_replay(known.application, known.user, "a refresh token was used again")
        if not valid or known is None:
            return False
        begun = _begun(known.token_family)
        if now() - begun > timedelta(days=settings.LOCKSTEP["TOKEN_DAYS"]):
            return False  # however often it was refreshed: the person has to consent anew
        return acts_for(request.user, begun) and client_may_act(client, request.user)

    @staticmethod
    def _refuse_replay(digest: str) -> None:
        """Where a code was used before: what it brought is void."""
        used = UsedCode.objects.filter(digest=digest).first()
        if used is None or used.family is None:
            return
        refresh = get_refresh_token_model().objects.filter(token_family=used.family)
        first = refresh.select_related("application", "user").first()
        if first is None:
            return
        with transaction.atomic():
            revoke_family(used.family)
            _record_replay(first.application, first.user, "an authorization code was used again")


def _begun(family: Any) -> datetime:
    """When somebody consented to what these refresh tokens came of."""
    code = UsedCode.objects.filter(family=family).values_list("used_at", flat=True)
    kept = get_refresh_token_model().objects.filter(token_family=family)
    first: datetime = (*code, *kept.order_by("created").values_list("created", flat=True)[:1])[0]
    return first


def revoke_family(family: Any) -> None:
    """End all refresh tokens that came of one consent, and the access tokens that they brought."""
    refresh = get_refresh_token_model().objects.filter(token_family=family)
    access = get_access_token_model().objects
    access.filter(refresh_token__in=refresh).delete()
    access.filter(source_refresh_token__in=refresh).delete()
    refresh.filter(revoked=None).update(revoked=now())


def _record_replay(client: Any, user: User | None, reason: str) -> None:
    record(Act.TOKEN_REFUSED, client, actor=user, outcome=Outcome.REFUSED, reason=reason)
