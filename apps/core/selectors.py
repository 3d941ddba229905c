"""Reads that every room shares. `scoped` is the root of each room's scoped querysets."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from django.db import models

from apps.core.models import PlatformState

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser, AnonymousUser

M = TypeVar("M", bound=models.Model)


def permits(
    actor: AbstractUser | AnonymousUser | None, model: type[models.Model], action: str
) -> bool:
    """Whether `actor` holds the permission `action` (view, change, run, …) on this model."""
    if actor is None or not actor.is_active:
        return False
    options = model._meta
    return bool(actor.has_perm(f"{options.app_label}.{action}_{options.model_name}"))


def scoped(
    queryset: models.QuerySet[M],
    actor: AbstractUser | AnonymousUser | None,
    action: str = "view",
) -> models.QuerySet[M]:
    """The rows of `queryset` that `actor` may apply `action` to; nothing by default."""
    return queryset if permits(actor, queryset.model, action) else queryset.none()


def platform_state() -> PlatformState:
    """The one row; made at first use."""
    state, _ = PlatformState.objects.get_or_create(id=PlatformState.SINGLETON)
    return state
