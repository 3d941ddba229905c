"""Writes about people."""

from __future__ import annotations

import secrets

from apps.accounts.models import User


def create_administrator(username: str = "admin") -> tuple[User, str | None]:
    """The administrator of that name, and a one-time password if it was created just now."""
    user = User.objects.filter(username=username).first()
    if user is not None:
        return user, None
    password = secrets.token_urlsafe(12)
    user = User.objects.create_superuser(
        username=username, password=password, must_change_password=True
    )
    return user, password


def password_was_changed(user: User) -> None:
    """The person has chosen an own password."""
    user.must_change_password = False
    user.save(update_fields=["must_change_password"])
