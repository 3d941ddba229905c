"""Removing what the ledger holds."""

from __future__ import annotations

from uuid import UUID

from apps.ledger.models import (
    Change,
    Conflict,
    FieldSet,
    FormerValue,
    Link,
    Receipt,
    Rejection,
    Segment,
)
from apps.ledger.segments.writing import remove_segments

DELETE_CHUNK = 20_000
SEGMENT_CHUNK = 100


def forget_rule(rule_id: UUID) -> None:
    """Remove everything the ledger holds about a rule that is being removed itself."""
    segments = Segment.objects.filter(rule_id=rule_id)
    while chosen := list(segments.values_list("pk", flat=True)[:SEGMENT_CHUNK]):
        remove_segments(chosen)
    for model in (FormerValue, Change, Link, Rejection, Conflict, Receipt, FieldSet):
        rows = model.objects.filter(rule_id=rule_id)
        while ids := list(rows.values_list("pk", flat=True)[:DELETE_CHUNK]):
            model.objects.filter(pk__in=ids).delete()
