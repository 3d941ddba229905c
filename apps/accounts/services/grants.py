"""Giving and taking grants, and tagging: who reaches which source, dataset or rule.

Nobody gives what is beyond the own reach, so that grants can be given by somebody who does not
reach everything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model

from apps.accounts.models import Grant, Level, User
from apps.accounts.selectors import kind_of, may_give
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.models import Tag
from apps.core.selectors import reaches, require_reach

_ACTIONS = {Level.SEE: "view", Level.RUN: "run", Level.CHANGE: "change"}
MOST_TAGS = 20


@transaction.atomic
def give_grant(
    holder: User | Group, obj: Model, level: int, *, actor: User | None, reason: str = ""
) -> Grant:
    """Let a person or a role reach an object, or all that carry a tag, up to this level.

    A grant that is there already gets the new level. Raises PermissionDenied.
    """
    _require_giver(actor, level, obj)
    place = {_column(holder): holder, "kind": kind_of(type(obj)), "object_id": obj.pk}
    before = Grant.objects.filter(**place).first()
    if before is not None:
        _require_giver(actor, before.level, obj)
    grant, _ = Grant.objects.update_or_create(
        **place, defaults={"level": Level(level), "given_by": actor}
    )
    if before is None or before.level != grant.level:
        details = {**_about(holder), "level": Level(level).label}
        record(Act.GRANT_GIVEN, obj, actor=actor, reason=reason, details=details)
    return grant


@transaction.atomic
def take_grant(grant: Grant, obj: Model | None, *, actor: User | None) -> None:
    """End a grant. obj: what it names, None where that is gone. Raises PermissionDenied."""
    if obj is None:
        _require_right(actor)
    else:
        _require_giver(actor, grant.level, obj)
    holder = grant.role if grant.role is not None else grant.person
    details = {**_about(holder), "level": grant.get_level_display()}
    grant.delete()
    record(Act.GRANT_TAKEN, obj or holder, actor=actor, details=details)


@transaction.atomic
def set_tags(obj: Any, names: Iterable[str], *, actor: User | None) -> None:
    """Give an object exactly these tags; those that are not there yet are made.

    Whoever holds a grant on a tag reaches the object then, so this is giving as well. Raises
    PermissionDenied.
    """
    _require_giver(actor, Level.CHANGE, obj)
    wanted = sorted({name.strip()[:60] for name in names if name.strip()})[:MOST_TAGS]
    before = sorted(obj.tags.values_list("name", flat=True))
    if wanted == before:
        return
    obj.tags.set([Tag.objects.get_or_create(name=name)[0] for name in wanted])
    changed = {
        "added": [name for name in wanted if name not in before],
        "removed": [name for name in before if name not in wanted],
    }
    record(Act.TAGS_CHANGED, obj, actor=actor, details=changed)


def grant_to_author(obj: Model, *, actor: User | None) -> None:
    """Whoever makes an object reaches it, without a grant by somebody else."""
    if actor is None or reaches(actor, "change", obj):
        return
    Grant.objects.create(
        person=actor, kind=kind_of(type(obj)), object_id=obj.pk, level=Level.CHANGE, given_by=actor
    )
    details = {**_about(actor), "level": Level.CHANGE.label}
    record(Act.GRANT_GIVEN, obj, actor=actor, reason="made by this person", details=details)


def _require_right(actor: User | None) -> None:
    if actor is not None and not may_give(actor):
        raise PermissionDenied("you may not grant anything")


def _require_giver(actor: User | None, level: int, obj: Model) -> None:
    _require_right(actor)
    require_reach(actor, _ACTIONS[Level(level)], obj)


def _column(holder: User | Group) -> str:
    return "role" if isinstance(holder, Group) else "person"


def _about(holder: User | Group | None) -> dict[str, str]:
    return {"role" if isinstance(holder, Group) else "person": str(holder)}
