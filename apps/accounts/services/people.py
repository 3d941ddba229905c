"""Writes about people."""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction

from apps.accounts.models import User
from apps.accounts.selectors import rights_of
from apps.accounts.services.service_accounts import require_person
from apps.accounts.services.sessions import end_sessions
from apps.accounts.services.tokens import void_tokens
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.clock import now


@transaction.atomic
def create_administrator(username: str = "admin") -> tuple[User, str | None]:
    """The administrator of that name, and a one-time password if it was created just now."""
    user = User.objects.filter(username=username).first()
    if user is not None:
        return user, None
    password = _new_password()
    user = User.objects.create_superuser(
        username=username, password=password, must_change_password=True
    )
    record(Act.PERSON_CREATED, user, actor=None, details={"gained": sorted(rights_of(user))})
    open_enrolment(user)
    return user, password


@transaction.atomic
def issue_one_time_password(user: User) -> str:
    """A new one-time password, which ends the person's sessions and tokens.

    It is kept as a hash only. Raises ServiceAccountInvalid where this is no person.
    """
    require_person(user)
    password = _new_password()
    user.set_password(password)
    user.must_change_password = True
    user.save(update_fields=["password", "must_change_password"])
    open_enrolment(user)
    end_sessions(user)
    void_tokens(user, actor=None, reason="a one-time password was issued")
    record(Act.ONE_TIME_PASSWORD_ISSUED, user, actor=None)
    return password


def open_enrolment(user: User) -> None:
    """Let the person enrol a first second factor, and use a one-time password, for some time."""
    user.enrolment_ends_at = now() + timedelta(hours=settings.LOCKSTEP["ENROLMENT_HOURS"])
    user.save(update_fields=["enrolment_ends_at"])


@transaction.atomic
def password_was_changed(user: User, *, kept_session: str | None = None) -> None:
    """The person has chosen an own password; all sessions but `kept_session` end."""
    user.must_change_password = False
    user.save(update_fields=["must_change_password"])
    end_sessions(user, but=kept_session)
    record(Act.PASSWORD_CHANGED, user, actor=user)


def record_rights(holder: User | Group, before: frozenset[str], *, actor: User | None) -> None:
    """Put on record what a person or a role may do now and could not before, and the reverse.

    before: `rights_of` the holder before it was saved; empty for a new one. Call it in the
    transaction that saved it.
    """
    after = rights_of(holder)
    if after == before:
        return
    is_role = isinstance(holder, Group)
    record(
        Act.ROLE_RIGHTS_CHANGED if is_role else Act.PERSON_RIGHTS_CHANGED,
        holder,
        actor=actor,
        details={"gained": sorted(after - before), "lost": sorted(before - after)},
    )


def _new_password() -> str:
    return secrets.token_urlsafe(12)
