"""Reads of rejections."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from django.db.models import QuerySet

from apps.ledger.models import Rejection

PAGE = 5_000


def open_rejection_keys(rule_id: UUID) -> Iterator[str]:
    """Left keys of a rule's open rejections, each once."""
    rows = _open(rule_id).exclude(left_key="")
    return rows.order_by().values_list("left_key", flat=True).distinct().iterator(PAGE)


def open_right_rejection_keys(rule_id: UUID) -> Iterator[str]:
    """Right keys of open rejections of what was planned, each once.

    A record that comes from the right is found by nothing else.
    """
    rows = _open(rule_id).exclude(stage=Rejection.Stage.CHECK).exclude(right_key="")
    return rows.order_by().values_list("right_key", flat=True).distinct().iterator(PAGE)


def _open(rule_id: UUID) -> QuerySet[Rejection]:
    waiting = (Rejection.State.OPEN, Rejection.State.REPLAYING)
    return Rejection.objects.filter(rule_id=rule_id, state__in=waiting)
