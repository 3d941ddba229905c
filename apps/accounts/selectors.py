"""Reads about people that more than one face needs."""

from __future__ import annotations

from django.db.models import QuerySet

from apps.accounts.models import User
from apps.core.selectors import scoped


def users(actor: User, action: str = "view") -> QuerySet[User]:
    return scoped(User.objects.all(), actor, action)
