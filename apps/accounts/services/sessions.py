"""Ending sessions."""

from __future__ import annotations

from apps.accounts.models import Invitation, Session, User
from apps.accounts.sessions import digest_of
from apps.core.clock import now


def end_sessions(user: User, *, but: str | None = None, only: str | None = None) -> int:
    """End the person's sessions; how many there were.

    but: key of a session that stays. only: hashed key, as listed, of the one session to end.
    """
    sessions = Session.objects.filter(user=user)
    if but is not None:
        sessions = sessions.exclude(session_key=digest_of(but))
    if only is not None:
        sessions = sessions.filter(session_key=only)
    return sessions.delete()[0]


def forget_expired() -> None:
    """Remove sessions and invitations that are past their time."""
    Session.objects.filter(expire_date__lte=now()).delete()
    Invitation.objects.filter(expires_at__lte=now(), used_at=None).delete()
