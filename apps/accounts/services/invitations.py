"""Invitations: a link by which one person chooses a password and enrols."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable
from datetime import timedelta

from django.conf import settings
from django.contrib.auth.models import Group
from django.db import transaction

from apps.accounts.models import ExternalIdentity, Invitation, User
from apps.accounts.selectors import users
from apps.accounts.services.people import open_enrolment
from apps.accounts.services.service_accounts import require_person
from apps.accounts.services.sessions import end_sessions
from apps.accounts.services.single_sign_on import Claims, link
from apps.accounts.services.tokens import void_tokens
from apps.audit.actions import Act
from apps.audit.services import record
from apps.connectors.errors import ConfigurationError
from apps.core.clock import now
from apps.core.selectors import require


class InvitationInvalid(ConfigurationError):
    code = "sign_in.invitation_invalid"
    default_remedy = "Ask whoever invited you for a new link."


def invite(user: User, *, actor: User | None) -> str:
    """A new invitation of `user`; earlier ones are void. Gives the link's token.

    actor: who invites, None for the command line. The person has no password until the invitation
    is accepted, so that only its holder can sign in.
    """
    require(actor, users, "change", user)
    require_person(user)
    token = secrets.token_urlsafe(32)
    with transaction.atomic():
        user.invitations.filter(used_at=None).delete()
        Invitation.objects.create(
            user=user,
            digest=_digest(token),
            invited_by=actor,
            expires_at=now() + timedelta(hours=settings.LOCKSTEP["ENROLMENT_HOURS"]),
        )
        user.set_unusable_password()
        user.must_change_password = False
        user.save(update_fields=["password", "must_change_password"])
        end_sessions(user)
        void_tokens(user, actor=actor, reason="invited anew")
        record(Act.PERSON_INVITED, user, actor=actor)
    return token


def invite_new(
    username: str, *, is_superuser: bool = False, roles: Iterable[Group] = (), email: str = ""
) -> tuple[User, str]:
    """A new person on the staff and the token of the invitation; from the command line."""
    with transaction.atomic():
        user = User(username=username, email=email, is_staff=True, is_superuser=is_superuser)
        user.set_unusable_password()
        user.full_clean()
        user.save()
        user.groups.set(roles)
        return user, invite(user, actor=None)


def find(token: str) -> Invitation:
    """The open invitation of this token. Raises InvitationInvalid."""
    invitation = Invitation.objects.select_related("user").filter(digest=_digest(token)).first()
    if invitation is None:
        raise InvitationInvalid("there is no such invitation, or a newer one has replaced it")
    if invitation.used_at is not None:
        raise InvitationInvalid("this invitation has been used")
    if invitation.expires_at <= now() or not invitation.user.is_active:
        raise InvitationInvalid("this invitation has expired")
    return invitation


def accept(token: str, password: str) -> User:
    """Give the invited person this password, once, and time to enrol. Raises InvitationInvalid."""
    with transaction.atomic():
        user = _used(token)
        user.set_password(password)
        user.must_change_password = False
        user.save(update_fields=["password", "must_change_password"])
        open_enrolment(user)
    return user


def accept_by_identity(token: str, claims: Claims) -> ExternalIdentity:
    """Let the invited person in by the organisation's identity provider, without a password.

    Raises InvitationInvalid, SingleSignOnRefused.
    """
    with transaction.atomic():
        user = _used(token)
        open_enrolment(user)
        return link(user, claims, verified=False)


def _used(token: str) -> User:
    """Whom the invitation invites; it is used up."""
    invitation = find(token)
    unused = Invitation.objects.filter(pk=invitation.pk, used_at=None)
    if unused.update(used_at=now()) != 1:
        raise InvitationInvalid("this invitation has been used")
    return invitation.user


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
