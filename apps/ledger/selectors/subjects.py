"""What the ledger keeps of a dataset's records outside the keys of the persons they are about."""

from __future__ import annotations

from uuid import UUID

from django.db.models import Q

from apps.ledger.models import Change, Segment
from apps.rules.models import Rule


def copies_beyond_subjects(dataset_id: UUID) -> tuple[int, int]:
    """Segments, and changes on the row shelf, of the rules over a dataset."""
    sides = Q(mapping__left_id=dataset_id) | Q(mapping__right_id=dataset_id)
    rules = list(Rule.objects.filter(sides).values_list("pk", flat=True))
    return (
        Segment.objects.filter(rule_id__in=rules).count(),
        Change.objects.filter(rule_id__in=rules).count(),
    )
