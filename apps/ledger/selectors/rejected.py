"""Reads of rejections."""

from __future__ import annotations

from uuid import UUID

from apps.ledger.models import Rejection


def open_rejection_keys(rule_id: UUID, limit: int = 10_000) -> list[str]:
    """Left keys of a rule's open rejections."""
    waiting = (Rejection.State.OPEN, Rejection.State.REPLAYING)
    rows = Rejection.objects.filter(rule_id=rule_id, state__in=waiting).exclude(left_key="")
    return list(rows.values_list("left_key", flat=True).distinct()[:limit])
