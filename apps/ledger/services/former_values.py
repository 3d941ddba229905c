"""Keeping the words of values that a run replaced or removed, so that people find the record."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from itertools import islice
from typing import Any
from uuid import UUID

from apps.core.bulk import bulk_upsert
from apps.ledger.models import Change, FormerValue, Operation, Side
from apps.ledger.segments.reading import ChangeFilter
from apps.ledger.selectors.history import run_changes_backwards
from apps.ledger.selectors.words import token, words_of

CHUNK = 5_000
COLUMNS = ("token", "rule_id", "change_id", "planned_at")
_REPLACING = ChangeFilter(
    operations=(Operation.UPDATE.value, Operation.DELETE.value),
    outcomes=(Change.Outcome.APPLIED.value,),
)


def keep_former_values(run_id: UUID, *, left: Collection[str], right: Collection[str]) -> None:
    """Keep by which words a run's old values are found; once more changes nothing.

    left, right: the fields of each side that people search by.
    """
    if not (left or right):
        return
    names = {Side.LEFT.value: frozenset(left), Side.RIGHT.value: frozenset(right)}
    rows = (
        row
        for change in run_changes_backwards(run_id, _REPLACING)
        for row in _rows(change, names[change.side])
    )
    while chunk := list(islice(rows, CHUNK)):
        bulk_upsert(FormerValue, COLUMNS, ("token", "rule_id", "change_id"), (), chunk)


def _rows(change: Change, names: frozenset[str]) -> Iterator[tuple[Any, ...]]:
    before, _ = change.images_in_clear()
    words = {
        word
        for name, value in (before or {}).items()
        if value and name in names
        for word in words_of(value)
    }
    for word in sorted(words):
        yield token(word), change.rule_id, change.pk, change.planned_at
