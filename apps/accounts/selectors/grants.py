"""What grants reach: the condition that each room's narrowing is made of, and who reaches what.

A grant names a source, a dataset, a rule or a tag. What hangs on these (runs on rules, fields on
datasets, …) is reached through them; each room says how, beside its scoped querysets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.contrib.auth.models import Group, Permission
from django.db.models import Model, Q, QuerySet

from apps.accounts.models import Grant, Level, User, level_of
from apps.core.models import Tag
from apps.core.selectors import REACH_ALL, narrows, reaches_all

GIVE = "accounts.give_grant"


def kind_of(model: type[Model]) -> Grant.Kind:
    """What grants call a model."""
    return Grant.Kind(str(model._meta.model_name))


def all_grants_of(person: Any) -> QuerySet[Grant]:
    """The grants that a person holds, alone or by a role."""
    roles = Group.objects.filter(user=person.pk).values("pk")
    return Grant.objects.filter(Q(person_id=person.pk) | Q(role__in=roles))


def _held(actor: Any, kind: str, level: int) -> QuerySet[Grant]:
    """Those of a kind that go at least to this level."""
    return all_grants_of(actor).filter(kind=kind, level__gte=level)


def granted_tags(actor: Any, action: str) -> QuerySet[Any]:
    """Ids of the tags that `actor` reaches with this action."""
    return _held(actor, Grant.Kind.TAG, level_of(action)).values("object_id")


def granted(model: type[Model], actor: Any, action: str) -> Q:
    """Which rows of a model with tags are granted to `actor` for this action, by themselves.

    model: one that grants name. The condition joins nothing, so that no row comes twice.
    """
    tagged = model.tags.through.objects.filter(  # type: ignore[attr-defined]
        tag__in=granted_tags(actor, action)
    )
    ids = _held(actor, kind_of(model), level_of(action)).values("object_id")
    return Q(pk__in=ids) | Q(pk__in=tagged.values(f"{model._meta.model_name}_id"))


@narrows(Tag)
def _granted_tags(rows: QuerySet[Tag], actor: Any, action: str) -> QuerySet[Tag]:
    return rows.filter(pk__in=granted_tags(actor, action))


def grants_on(obj: Model) -> QuerySet[Grant]:
    """The grants that name this object, and those on its tags."""
    named = Q(kind=kind_of(type(obj)), object_id=obj.pk)
    tags = obj.tags.values("pk")  # type: ignore[attr-defined]
    rows = Grant.objects.filter(named | Q(kind=Grant.Kind.TAG, object_id__in=tags))
    return rows.select_related("person", "role").order_by("kind", "created_at")


def grants_of(holder: User | Group) -> QuerySet[Grant]:
    """The grants that a person holds alone, or those of a role."""
    column = "role" if isinstance(holder, Group) else "person"
    return Grant.objects.filter(**{column: holder}).order_by("kind", "created_at")


def may_give(actor: Any) -> bool:
    """Whether `actor` may give and take grants (only of what is within the own reach)."""
    return bool(actor.is_active and actor.has_perm(GIVE))


@dataclass(frozen=True, slots=True)
class Reach:
    """Somebody who reaches an object: how far, and why, in words."""

    person: User
    level: Level
    why: str


def who_reaches(obj: Model, further: QuerySet[Grant] | None = None) -> list[Reach]:
    """Everybody active who reaches an object, the furthest reason of each, by name.

    further: grants on what this object hangs on as well, such as those on a dataset's source.
    What they may do there is said by their permissions.
    """
    grants = list(grants_on(obj))
    if further is not None:
        grants += list(further.select_related("person", "role"))
    everywhere = set(_reaching_all().values_list("pk", flat=True))
    people = User.objects.filter(is_active=True).order_by("username").prefetch_related("groups")
    found = (_reach(person, person.pk in everywhere, grants) for person in people)
    return [reach for reach in found if reach is not None]


def _reaching_all() -> QuerySet[User]:
    room, _, codename = REACH_ALL.partition(".")
    right = Permission.objects.filter(content_type__app_label=room, codename=codename)
    by_role = Group.objects.filter(permissions__in=right)
    return User.objects.filter(
        Q(is_superuser=True) | Q(user_permissions__in=right) | Q(groups__in=by_role)
    )


def _reach(person: User, everywhere: bool, grants: list[Grant]) -> Reach | None:
    """How far a person reaches what the grants are on."""
    if everywhere:
        why = "administrator" if person.is_superuser else "reaches all objects"
        return Reach(person, Level.CHANGE, why)
    roles = {group.pk for group in person.groups.all()}
    own = [g for g in grants if g.person_id == person.pk or g.role_id in roles]
    if not own:
        return None
    best = max(own, key=lambda grant: grant.level)
    by = f"role {best.role.name}" if best.role is not None else "own grant"
    on = "a tag" if best.kind == Grant.Kind.TAG else f"the {best.get_kind_display().lower()}"
    return Reach(person, Level(best.level), f"{by}, on {on}")


def grants_within(grants: Iterable[Grant], actor: User) -> bool:
    """Whether these grants reach nothing that `actor` does not reach by grants of the same name."""
    if reaches_all(actor):
        return True
    own: dict[tuple[str, Any], int] = {}
    for held in all_grants_of(actor):
        name = (held.kind, held.object_id)
        own[name] = max(own.get(name, 0), held.level)
    return all(own.get((g.kind, g.object_id), 0) >= g.level for g in grants)
