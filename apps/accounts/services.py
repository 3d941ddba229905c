"""Writes about people."""

from __future__ import annotations

import secrets

from apps.accounts.models import User


def create_administrator(username: str = "admin") -> tuple[User, str | None]:
    """The administrator of that name, and a one-time password if it was created just now."""
    user = User.objects.filter(username=username).first()
    if user is not None:
        return user, None
    password = _new_password()
    user = User.objects.create_superuser(
        username=username, password=password, must_change_password=True
    )
    return user, password


def issue_one_time_password(user: User) -> str:
    """A new one-time password, which ends the person's sessions. It is kept as a hash only."""
    password = _new_password()
    user.set_password(password)
    user.must_change_password = True
    user.save(update_fields=["password", "must_change_password"])
    return password


def password_was_changed(user: User) -> None:
    """The person has chosen an own password."""
    user.must_change_password = False
    user.save(update_fields=["must_change_password"])


def _new_password() -> str:
    return secrets.token_urlsafe(12)
