"""The scoped queryset of each model of this room: what an actor may see or do."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from apps.core.selectors import narrows, scoped
from apps.ledger.models import Change, Conflict, Link, Rejection
from apps.rules.selectors import reached_rule_ids


@narrows(Change, Link, Rejection, Conflict)
def _granted(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    """With their rule."""
    return rows.filter(rule_id__in=reached_rule_ids(actor, action))


def changes(actor: Any, action: str = "view") -> QuerySet[Change]:
    return scoped(Change.objects.all(), actor, action)


def links(actor: Any, action: str = "view") -> QuerySet[Link]:
    return scoped(Link.objects.all(), actor, action)


def rejections(actor: Any, action: str = "view") -> QuerySet[Rejection]:
    return scoped(Rejection.objects.all(), actor, action)


def conflicts(actor: Any, action: str = "view") -> QuerySet[Conflict]:
    """action: `view`, or `decide`."""
    return scoped(Conflict.objects.all(), actor, action)
