"""Changes that were planned and not written, on both shelves. None is left out, however many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from uuid import UUID

from django.db.models import QuerySet

from apps.ledger.models import Change, SegmentPart
from apps.ledger.segments.reading import ChangeFilter, part_changes

CHUNK = 500
PAGE = 5_000
_MOVED = (Change.Outcome.STALE, Change.Outcome.SKIPPED, Change.Outcome.IN_DOUBT)
_REFUSED = (*_MOVED, Change.Outcome.REJECTED)


class Unwritten(NamedTuple):
    """What is to be known of a change that was not written."""

    side: str
    operation: str
    left_key: str
    right_key: str


def refused_changes(partition_id: UUID) -> Iterator[Unwritten]:
    """The changes of a partition that were refused, or left out by whoever approved the plan."""
    rows = Change.objects.filter(partition_id=partition_id)
    parts = SegmentPart.objects.filter(partition_id=partition_id)
    return _unwritten(rows, parts, _REFUSED)


def moved_changes(run_ids: Sequence[UUID]) -> Iterator[Unwritten]:
    """The changes of these runs that moved, are in doubt, or were left out."""
    for start in range(0, len(run_ids), CHUNK):
        chosen = run_ids[start : start + CHUNK]
        rows = Change.objects.filter(run_id__in=chosen)
        parts = SegmentPart.objects.filter(run_id__in=chosen)
        yield from _unwritten(rows, parts, _MOVED)


def _unwritten(
    rows: QuerySet[Change], parts: QuerySet[SegmentPart], outcomes: Sequence[str]
) -> Iterator[Unwritten]:
    found = rows.filter(outcome__in=outcomes).values_list(*Unwritten._fields)
    yield from map(Unwritten._make, found.iterator(PAGE))
    wanted = ChangeFilter(outcomes=tuple(map(str, outcomes)))
    for part in parts.select_related("segment").order_by("first_id"):
        size = part.last_sequence - part.first_sequence + 1
        for change in part_changes(part, wanted, limit=size):
            yield Unwritten(change.side, change.operation, change.left_key, change.right_key)
