"""Reads about people that more than one face needs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.contrib.auth.models import Group, Permission
from django.db.models import Exists, OuterRef, Q, QuerySet

from apps.accounts.models import (
    AuthenticatorApp,
    ExternalIdentity,
    Passkey,
    RecoveryCode,
    Session,
    StandardRole,
    User,
)
from apps.accounts.selectors.grants import all_grants_of, grants_within
from apps.core.clock import now
from apps.core.selectors import scoped, without_grants

without_grants(User, Group, StandardRole)


def has_no_more_rights(person: User, actor: User) -> bool:
    """Whether `person` may do nothing, and reaches nothing, that `actor` may not and does not."""
    if actor.is_superuser:
        return True
    if person.is_superuser:
        return False
    # As if active: a right that sleeps with its account wakes when somebody activates it.
    groups = Permission.objects.filter(Q(group__user=person) | Q(user=person))
    held = groups.values_list("content_type__app_label", "codename")
    if not {f"{app}.{codename}" for app, codename in held} <= actor.get_all_permissions():
        return False
    return grants_within(all_grants_of(person), actor)


def permissions_within_rights(actor: User) -> QuerySet[Permission]:
    """The permissions that `actor` holds and so may give."""
    every = Permission.objects.select_related("content_type")
    if actor.is_superuser:
        return every
    held = actor.get_all_permissions()
    ids = [row.pk for row in every if f"{row.content_type.app_label}.{row.codename}" in held]
    return every.filter(pk__in=ids)


def roles_within_rights(actor: User) -> QuerySet[Group]:
    """The roles that may do nothing, and reach nothing, which `actor` may not and does not."""
    if actor.is_superuser:
        return Group.objects.all()
    beyond = Permission.objects.exclude(pk__in=permissions_within_rights(actor).values("pk"))
    within = Group.objects.exclude(permissions__in=beyond)
    reaching = Group.objects.filter(grants__isnull=False).distinct()
    further = [role.pk for role in reaching if not grants_within(role.grants.all(), actor)]
    return within.exclude(pk__in=further)


def is_within_rights(role: Group, actor: User) -> bool:
    """Whether the role may do nothing that `actor` may not do."""
    return roles_within_rights(actor).filter(pk=role.pk).exists()


def rights_of(holder: User | Group) -> frozenset[str]:
    """What a person or a role holds by itself, as words: roles, permissions, being somebody."""
    if isinstance(holder, Group):
        return _names(holder.permissions)
    marks = {
        "active": holder.is_active,
        "staff": holder.is_staff,
        "administrator": holder.is_superuser,
    }
    roles = {f"role {name}" for name in holder.groups.values_list("name", flat=True)}
    held = {name for name, is_held in marks.items() if is_held}
    return frozenset(held | roles) | _names(holder.user_permissions)


def _names(permissions: Any) -> frozenset[str]:
    pairs = permissions.values_list("content_type__app_label", "codename")
    return frozenset(f"{app}.{codename}" for app, codename in pairs)


def users(actor: User | None, action: str = "view") -> QuerySet[User]:
    return scoped(User.objects.all(), actor, action)


def with_factor_known(people: QuerySet[User]) -> QuerySet[User]:
    """`people` with `has_factor`: whether an authenticator app or a passkey is enrolled."""
    held = (
        Exists(kind.objects.filter(user=OuterRef("pk"), confirmed=True))
        for kind in (AuthenticatorApp, Passkey)
    )
    identity = ExternalIdentity.objects.filter(user=OuterRef("pk"), strong=True)
    return people.annotate(has_factor=next(held) | next(held) | Exists(identity))


def own_factors(user: User) -> list[AuthenticatorApp | Passkey]:
    """The person's apps and passkeys; recovery codes are a way back, not a factor to live with."""
    return [
        *AuthenticatorApp.objects.filter(user=user, confirmed=True).order_by("id"),
        *Passkey.objects.filter(user=user, confirmed=True).order_by("id"),
    ]


def identities(user: User) -> list[ExternalIdentity]:
    """Who the person is at an identity provider."""
    return list(ExternalIdentity.objects.filter(user=user).order_by("id"))


def may_enrol(user: User) -> bool:
    """Whether the person may add a first factor with nothing but the password."""
    ends = user.enrolment_ends_at
    return ends is not None and ends > now() and not own_factors(user)


def is_enrolling_app(user: User) -> bool:
    """Whether an authenticator app waits for its first code."""
    return AuthenticatorApp.objects.filter(user=user, confirmed=False).exists()


def live_sessions(user: User) -> QuerySet[Session]:
    """Where the person is signed in, the latest use first."""
    used_since = now() - timedelta(seconds=settings.SESSION_IDLE_SECONDS)
    sessions = Session.objects.filter(user=user, expire_date__gt=now())
    return sessions.filter(last_seen_at__gt=used_since).order_by("-last_seen_at")


def recovery_codes_left(user: User) -> int:
    return RecoveryCode.objects.filter(sheet__user=user, used_at=None).count()
