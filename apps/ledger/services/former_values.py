"""Keeping the words of values that a run replaced or removed, so that people find the record."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import transaction

from apps.core.bulk import bulk_upsert
from apps.core.keys.subjects import erasures_of
from apps.core.protected import ErasedValueError
from apps.ledger.models import Change, FormerValue, Image, Operation
from apps.ledger.segments.reading import ChangeFilter
from apps.ledger.selectors.history import run_changes_backwards
from apps.ledger.selectors.words import token, words_of
from apps.ledger.services.subjects import SubjectIndices

CHUNK = 1_000  # changes
COLUMNS = ("token", "rule_id", "change_id", "planned_at", "subject")
_REPLACING = ChangeFilter(
    operations=(Operation.UPDATE.value, Operation.DELETE.value),
    outcomes=(Change.Outcome.APPLIED.value,),
)


def keep_former_values(
    rule_id: UUID,
    run_id: UUID,
    names: Mapping[str, Collection[str]],
    *,
    before_each: Callable[[], None],
) -> None:
    """Keep by which words a run's old values are found; once more changes nothing.

    names: by side, the fields that people search by. before_each: called in each transaction
    before it writes; what it raises ends the work. Of who was erased since, nothing is kept.
    """
    if not any(names.values()):
        return
    subjects = SubjectIndices(rule_id)
    changes = run_changes_backwards(run_id, _REPLACING)
    while chunk := list(islice(changes, CHUNK)):
        found = [(c, image, subjects.of(c, image)) for c, image in _opened(chunk)]
        with transaction.atomic():
            before_each()
            erased = erasures_of(subject for _, _, subject in found if subject)
            rows = [row for one in found for row in _rows(*one, names, erased)]
            bulk_upsert(FormerValue, COLUMNS, ("token", "planned_at", "change_id"), (), rows)


def forget_former_values(rule_id: UUID) -> None:
    """Remove the words of all former values of a rule."""
    FormerValue.objects.filter(rule_id=rule_id).delete()


def _opened(changes: Sequence[Change]) -> Iterator[tuple[Change, Image | None]]:
    """The changes with what was there before; without those of who was erased."""
    for change in changes:
        try:
            yield change, change.images_in_clear()[0]
        except ErasedValueError:
            continue


def _rows(
    change: Change,
    before: Image | None,
    subject: bytes | None,
    names: Mapping[str, Collection[str]],
    erased: Mapping[bytes, datetime],
) -> Iterator[tuple[Any, ...]]:
    erased_at = erased.get(subject) if subject else None
    if erased_at is not None and change.planned_at <= erased_at:
        return
    wanted = names.get(change.side, ())
    words = {
        word
        for name, value in (before or {}).items()
        if value and name in wanted
        for word in words_of(value)
    }
    for word in sorted(words):
        yield token(word), change.rule_id, change.pk, change.planned_at, subject
