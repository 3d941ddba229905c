"""Reads that every room shares. `scoped` is the root of each room's scoped querysets."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from django.core.exceptions import PermissionDenied, ValidationError
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


def by_id(queryset: models.QuerySet[M], text: str | None) -> M | None:
    """The row with the id that somebody typed or sent, None where it is no id at all."""
    try:
        return queryset.filter(pk=text).first() if text else None
    except (ValidationError, ValueError):
        return None


def require(
    actor: AbstractUser | AnonymousUser | None,
    scope: Callable[[Any, str], models.QuerySet[M]],
    action: str,
    obj: M | None = None,
) -> None:
    """Raise PermissionDenied unless `actor` may apply `action` to `obj`: what services ask.

    actor: None is the system itself, which may do everything. scope: the room's scoped queryset
    of the model. action: `save` stands for `add` where the object is new, else for `change`.
    obj: None where there is no object yet; the model's permission counts then.
    """
    if actor is None:
        return
    stored = obj is not None and not obj._state.adding
    if action == "save":
        action = "change" if stored else "add"
    rows = scope(actor, action)
    options = rows.model._meta
    if obj is not None and stored:
        if not rows.filter(pk=obj.pk).exists():
            raise PermissionDenied(f"you may not {action} this {options.verbose_name}")
    elif not permits(actor, rows.model, action):
        raise PermissionDenied(f"you may not {action} {options.verbose_name_plural}")


def platform_state() -> PlatformState:
    """The one row; made at first use."""
    state, _ = PlatformState.objects.get_or_create(id=PlatformState.SINGLETON)
    return state
