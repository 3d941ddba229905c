"""Reads about OAuth clients."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from apps.api.models import IdempotentCall, OAuthClient, UsedCode
from apps.core.selectors import scoped, without_grants

without_grants(OAuthClient, IdempotentCall, UsedCode)


def oauth_clients(actor: Any, action: str = "view") -> QuerySet[OAuthClient]:
    return scoped(OAuthClient.objects.select_related("user"), actor, action)
