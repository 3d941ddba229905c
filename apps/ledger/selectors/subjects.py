"""What the ledger keeps of a dataset's records outside the keys of the persons they are about."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from django.db.models import Q

from apps.ledger.models import Change, FormerValue, Segment
from apps.mappings.models import Mapping
from apps.rules.models import Rule


@dataclass(frozen=True, slots=True)
class Copies:
    """What an erasure does not reach. words: hashes of words of former values, of records of which
    another dataset, or none, says whom they are about."""

    segments: int
    changes: int
    words: int


def subject_side(mapping: Mapping) -> str:
    """The side whose subject field says whom records are about; empty where none does."""
    sides = (("left", mapping.left), ("right", mapping.right))
    return next((side for side, dataset in sides if dataset.subject_field), "")


def copies_beyond_subjects(dataset_id: UUID) -> Copies:
    """What is kept of the records of rules over a dataset, beyond the reach of its subjects."""
    sides = Q(mapping__left_id=dataset_id) | Q(mapping__right_id=dataset_id)
    rules = list(Rule.objects.filter(sides).select_related("mapping__left", "mapping__right"))
    ids = [rule.pk for rule in rules]
    others = [rule.pk for rule in rules if _subject_dataset(rule.mapping) != dataset_id]
    words = FormerValue.objects.filter(Q(subject=None) | Q(rule_id__in=others), rule_id__in=ids)
    return Copies(
        Segment.objects.filter(rule_id__in=ids).count(),
        Change.objects.filter(rule_id__in=ids).count(),
        words.count(),
    )


def _subject_dataset(mapping: Mapping) -> UUID | None:
    side = subject_side(mapping)
    dataset_id: UUID | None = getattr(mapping, f"{side}_id") if side else None
    return dataset_id
