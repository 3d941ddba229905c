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


REACH_ALL = "core.reach_all_objects"

Narrowing = Callable[[models.QuerySet[Any], Any, str], models.QuerySet[Any]]
"""Those of the rows that an actor reaches with an action, by grants alone."""

_narrowings: dict[type[models.Model], Narrowing | None] = {}


def narrows(*kinds: type[models.Model]) -> Callable[[Narrowing], Narrowing]:
    """Say which rows of these models grants reach; a room's selectors do so once per model."""

    def register(narrowing: Narrowing) -> Narrowing:
        _narrowings.update(dict.fromkeys(kinds, narrowing))
        return narrowing

    return register


def without_grants(*kinds: type[models.Model]) -> None:
    """Say that these models hang on no source, dataset or rule: the permission alone counts."""
    _narrowings.update(dict.fromkeys(kinds))


def needs_grants(model: type[models.Model]) -> bool:
    """Whether rows of this model are reached by grants; also of one that nothing is said about."""
    return model not in _narrowings or _narrowings[model] is not None


def reaches_all(actor: AbstractUser | AnonymousUser | None) -> bool:
    """Whether `actor` needs no grants: an administrator, or somebody with that permission."""
    return actor is not None and actor.is_active and bool(actor.has_perm(REACH_ALL))


def reached(
    queryset: models.QuerySet[M], actor: AbstractUser | AnonymousUser | None, action: str = "view"
) -> models.QuerySet[M]:
    """The rows that `actor` reaches with `action`, whatever the permissions on the model say.

    Nothing of a model about which nobody has said what grants mean for it.
    """
    if reaches_all(actor):
        return queryset
    if actor is None or not actor.is_active or queryset.model not in _narrowings:
        return queryset.none()
    narrow = _narrowings[queryset.model]
    return narrow(queryset, actor, action) if narrow else queryset


def reaches(actor: AbstractUser | AnonymousUser | None, action: str, obj: models.Model) -> bool:
    """Whether `actor` reaches this stored object with `action`."""
    if reaches_all(actor):
        return True
    rows = type(obj)._default_manager.filter(pk=obj.pk)
    return reached(rows, actor, action).exists()


def scoped(
    queryset: models.QuerySet[M],
    actor: AbstractUser | AnonymousUser | None,
    action: str = "view",
) -> models.QuerySet[M]:
    """The rows of `queryset` that `actor` may apply `action` to; nothing by default.

    The permission says what may be done, grants say to which objects: both are needed.
    """
    if not permits(actor, queryset.model, action):
        return queryset.none()
    return reached(queryset, actor, action)


def may(actor: AbstractUser | AnonymousUser | None, action: str, obj: models.Model) -> bool:
    """Whether `actor` may apply `action` to this stored object."""
    return permits(actor, type(obj), action) and reaches(actor, action, obj)


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


def require_reach(
    actor: AbstractUser | AnonymousUser | None, action: str, obj: models.Model
) -> None:
    """Raise PermissionDenied unless `actor` reaches `obj` with `action`.

    For an act whose permission is on another model. actor: None is the system itself.
    """
    if actor is not None and not reaches(actor, action, obj):
        raise PermissionDenied(
            f"you may not {action} this {obj._meta.verbose_name}: nobody granted it to you"
        )


def platform_state() -> PlatformState:
    """The one row; made at first use."""
    state, _ = PlatformState.objects.get_or_create(id=PlatformState.SINGLETON)
    return state
