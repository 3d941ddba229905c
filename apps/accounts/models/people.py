"""People who sign in, and the accounts of programs."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractUser, UserManager
from django.db import models
from django.db.models import Q, QuerySet


class User(AbstractUser):
    """A person. With `must_change_password`, nothing opens but the page that changes it.

    limits: the permissions that whoever acts as this account holds at most, where a token acts;
    None in a browser. Services and selectors ask `has_perm`, so that no path forgets them.
    """

    must_change_password = models.BooleanField(
        default=False, help_text="Set for a one-time password: the person chooses an own one first."
    )
    # A first second factor is taken on trust; nobody trusts a password alone for ever.
    enrolment_ends_at = models.DateTimeField(null=True, blank=True, editable=False)
    time_zone = models.CharField(
        max_length=60, blank=True, help_text="Times are shown in this zone; empty: the platform's."
    )
    # Nobody signs in as one of these: only tokens and OAuth clients act as it.
    is_service = models.BooleanField(default=False, editable=False)
    # Whatever was issued until then opens nothing any more.
    tokens_void_until = models.DateTimeField(null=True, blank=True, editable=False)

    limits: frozenset[str] | None = None

    class Meta(AbstractUser.Meta):
        permissions = [("assign_rights", "Can give people roles, and roles permissions")]
        constraints = [
            models.CheckConstraint(
                condition=Q(is_service=False) | Q(is_staff=False, is_superuser=False),
                name="service_account_is_no_staff",
            )
        ]

    def has_perm(self, perm: str, obj: Any = None) -> bool:
        if self.limits is not None and perm not in self.limits:
            return False
        return super().has_perm(perm, obj)

    def get_all_permissions(self, obj: Any = None) -> set[str]:
        held = super().get_all_permissions(obj)
        return held if self.limits is None else held & self.limits


class ServiceAccountManager(UserManager["ServiceAccount"]):
    def get_queryset(self) -> QuerySet[ServiceAccount]:
        return super().get_queryset().filter(is_service=True)


class ServiceAccount(User):
    """An account that programs act as: roles and grants, but nobody signs in."""

    objects: ClassVar[ServiceAccountManager] = ServiceAccountManager()  # type: ignore[assignment]

    class Meta:
        proxy = True
        verbose_name = "service account"
        ordering = ["username"]
