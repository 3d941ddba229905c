"""Reads about people that more than one face needs."""

from __future__ import annotations

from django.contrib.auth.models import Permission
from django.db.models import Q, QuerySet

from apps.accounts.models import User
from apps.core.selectors import scoped


def has_no_more_rights(person: User, actor: User) -> bool:
    """Whether `person` may do nothing that `actor` may not do; always so for an administrator."""
    if actor.is_superuser:
        return True
    if person.is_superuser:
        return False
    # As if active: a right that sleeps with its account wakes when somebody activates it.
    groups = Permission.objects.filter(Q(group__user=person) | Q(user=person))
    held = groups.values_list("content_type__app_label", "codename")
    return {f"{app}.{codename}" for app, codename in held} <= actor.get_all_permissions()


def users(actor: User, action: str = "view") -> QuerySet[User]:
    return scoped(User.objects.all(), actor, action)
