"""What was planned and written: one look-up over both shelves.

A change has one id for good, wherever it lies: a negative one if it was planned into a segment. A
run's changes read in order of their ids. A change of a
segment that was refused, or stored otherwise than planned, is a row of the row shelf (with the
same id) as well: that row counts.

Every read is bounded: rows through an index, segments through the bounds, counts and key filters
of their manifests, opened one after the other until the page is full.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from heapq import heappop, heappush
from itertools import islice
from typing import Any
from uuid import UUID

from django.db import connection
from django.db.models import Count, F, Q, QuerySet

from apps.core.protected import ProtectedValueError
from apps.ledger.models import Change, FieldSet, Segment, SegmentKeys, SegmentPart
from apps.ledger.segments import bloom
from apps.ledger.segments.reading import (
    APPLIED,
    KEYS,
    ChangeFilter,
    Keys,
    part_backwards,
    part_changes,
    part_counts,
    part_keys,
)
from apps.ledger.segments.writing import bound
from apps.ledger.selectors.keys import key_candidates, key_hash

Group = tuple[str, str, str, str]
"""Side, operation, cause, outcome."""

EVERYTHING = ChangeFilter()
RANGES = 100  # of ids, in one query


def change_page(
    run_id: UUID,
    *,
    operation: str = "",
    outcome: str = "",
    side: str = "",
    cause: str = "",
    search_key: str = "",
    after_id: int | None = None,
    limit: int = 50,
) -> list[Change]:
    """One page of a run's changes, oldest first; `after_id` is the last id of the page before.

    search_key: a canonical key text, or the plain value of a key of one field; of either side.
    """
    keys = tuple(key_candidates(search_key)) if search_key else ()
    wanted = ChangeFilter(
        operations=(operation,) if operation else (),
        outcomes=(outcome,) if outcome else (),
        sides=(side,) if side else (),
        causes=(cause,) if cause else (),
        left_keys=keys,
        right_keys=keys,
    )
    return run_changes(run_id, wanted, after_id=after_id, limit=limit)


def run_changes(
    run_id: UUID, wanted: ChangeFilter = EVERYTHING, *, after_id: int | None = None, limit: int
) -> list[Change]:
    """The next changes of a run that pass, by id."""
    rows = _of_run(run_id, wanted).order_by("run_id", "id")
    parts = SegmentPart.objects.filter(run_id=run_id)
    if after_id is not None:
        rows, parts = rows.filter(id__gt=after_id), parts.filter(last_id__gt=after_id)
    found = list(rows.select_related("field_set")[:limit])
    if wanted.left_keys or wanted.right_keys:
        segments = Segment.objects.filter(pk__in=parts.values("segment_id"))
        parts = parts.filter(segment_id__in=_segments_of_keys(segments, wanted))
    for part in parts.order_by("first_id", "id").select_related("segment"):
        if len(found) >= limit and found[limit - 1].pk < part.first_id:
            break
        found += part_changes(part, wanted, after_id=after_id, limit=limit)
        found = sorted(found, key=_by_id)[:limit]
    return found


def _by_id(change: Change) -> int:
    return int(change.pk)


def run_changes_backwards(
    run_id: UUID, wanted: ChangeFilter = EVERYTHING, *, page: int = 5_000
) -> Iterator[Change]:
    """All changes of a run that pass, the newest id first; each segment is opened once."""
    parts = SegmentPart.objects.filter(run_id=run_id).select_related("segment")
    waiting = list(parts.order_by("last_id"))
    begun: list[tuple[int, int, Change, Iterator[Change]]] = []

    def go_on(stream: Iterator[Change]) -> None:
        for change in islice(stream, 1):
            heappush(begun, (-change.pk, id(stream), change, stream))

    go_on(_rows_backwards(run_id, wanted, page))
    while begun or waiting:
        if waiting and (not begun or waiting[-1].last_id > begun[0][2].pk):
            go_on(part_backwards(waiting.pop(), wanted))
            continue
        _, _, change, stream = heappop(begun)
        yield change
        go_on(stream)


def _rows_backwards(run_id: UUID, wanted: ChangeFilter, page: int) -> Iterator[Change]:
    rows = _of_run(run_id, wanted).order_by("-run_id", "-id").select_related("field_set")
    found = list(rows[:page])
    while found:
        yield from found
        found = list(rows.filter(id__lt=found[-1].pk)[:page])


def run_keys(run_id: UUID, wanted: ChangeFilter = EVERYTHING) -> Iterator[Keys]:
    """Side, keys of both sides and moved key of all changes of a run that pass, in any order."""
    yield from _of_run(run_id, wanted).order_by("run_id", "id").values_list(*KEYS).iterator()
    for part in SegmentPart.objects.filter(run_id=run_id).select_related("segment"):
        yield from part_keys(part, wanted)


def field_sets_with(rule_id: UUID, field: str) -> tuple[int, ...]:
    """The ids of a rule's field sets with this field; one that is no set's where there is none."""
    rows = FieldSet.objects.filter(rule_id=rule_id)
    return tuple(row.pk for row in rows if field in row.names) or (0,)


def matching_rows(wanted: ChangeFilter) -> QuerySet[Change]:
    """The row shelf's changes that pass."""
    exact: dict[str, Sequence[Any]] = {
        "operation": wanted.operations,
        "outcome": wanted.outcomes,
        "side": wanted.sides,
        "cause": wanted.causes,
        "field_set": wanted.field_sets,
        "id": wanted.ids,
    }
    rows = Change.objects.filter(**{f"{name}__in": v for name, v in exact.items() if v})
    keys = Q()
    for side, texts in (("left", wanted.left_keys), ("right", wanted.right_keys)):
        if texts:
            keys |= Q(**{f"{side}_hash__in": [key_hash(text) for text in texts]})
    return rows.filter(keys)


def _of_run(run_id: UUID, wanted: ChangeFilter) -> QuerySet[Change]:
    """The row shelf's changes of a run that pass.

    Not asked as an equality: ordered by run and id, that is the order of ids to a planner, and
    PostgreSQL then walks the primary key through all other runs (half a second at a million rows).
    """
    return matching_rows(wanted).filter(run_id__gte=run_id, run_id__lte=run_id)


def change_counts(run_id: UUID) -> dict[tuple[str, str], int]:
    """Number of a run's changes by operation and outcome."""
    counts: Counter[tuple[str, str]] = Counter()
    for (_, operation, _, outcome), number in change_groups(run_id).items():
        counts[operation, outcome] += number
    return dict(counts)


def change_groups(run_id: UUID) -> dict[Group, int]:
    """Number of a run's changes by side, operation, cause and outcome."""
    names = ("side", "operation", "cause", "outcome")
    rows = Change.objects.filter(run_id=run_id).order_by().values_list(*names)
    counts: Counter[Group] = Counter(
        {(side, op, cause, out): n for side, op, cause, out, n in rows.annotate(n=Count("id"))}
    )
    parts = SegmentPart.objects.filter(run_id=run_id).select_related("segment")
    for part in parts:
        for (side, operation, cause, outcome), number in part_counts(part):
            counts[side, operation, cause, outcome] += number
    if parts:  # a change with a row of its own was counted with its part as well, as applied
        shadows = rows.filter(id__lt=0).annotate(n=Count("id"))
        for side, operation, cause, _, number in shadows:
            counts[side, operation, cause, APPLIED] -= number
    return {group: number for group, number in counts.items() if number}


def change_id(text: str) -> int | None:
    """The id of a change as addresses have it; None where it can be none."""
    return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else None


def change_by_id(change_id: int) -> Change | None:
    """One change, from whichever shelf it is on."""
    return next(iter(changes_by_id([change_id])), None)


def changes_by_id(ids: Sequence[int], *, skip_unreadable: bool = False) -> list[Change]:
    """These changes, from whichever shelf, in this order; without those that are gone.

    skip_unreadable: without those of segments that cannot be opened, too; else that raises
    ProtectedValueError.
    """
    rows = Change.objects.select_related("field_set").filter(pk__in=ids)
    found = {change.pk: change for change in rows}
    for part in _parts_with([pk for pk in ids if pk not in found]):
        inside = (pk for pk in ids if part.first_id <= pk <= part.last_id)
        left = tuple(pk for pk in inside if pk not in found)
        try:
            if left:
                changes = part_changes(part, ChangeFilter(ids=left), limit=len(left))
                found |= {change.pk: change for change in changes}
        except ProtectedValueError:
            if not skip_unreadable:
                raise
    return [found[pk] for pk in ids if pk in found]


def _parts_with(ids: Sequence[int]) -> Iterator[SegmentPart]:
    """The parts that may hold changes with these ids, each once."""
    seen: set[int] = set()
    ordered = sorted(ids)
    for start in range(0, len(ordered), RANGES):
        some = ordered[start : start + RANGES]
        chosen = Q(pk__in=())
        for pk in some:
            chosen |= Q(first_id__lte=pk, last_id__gte=pk)
        # The outer bounds are what an index is read by.
        parts = SegmentPart.objects.filter(first_id__lte=some[-1], last_id__gte=some[0])
        parts = parts.filter(chosen).order_by("-first_id")
        for part in parts.select_related("segment"):
            if part.pk not in seen:
                seen.add(part.pk)
                yield part


def record_changes(
    rule_ids: Sequence[UUID],
    *,
    left_key: str = "",
    right_key: str = "",
    before: datetime | None = None,
    limit: int = 50,
) -> list[Change]:
    """One record's life under these rules, newest first; keys are canonical key texts.

    Changes that know it by either key. before: only those planned earlier.
    """
    wanted = ChangeFilter(
        left_keys=(left_key,) if left_key else (), right_keys=(right_key,) if right_key else ()
    )
    if not rule_ids or not (left_key or right_key):
        return []
    found: dict[int, Change] = {}
    for side, key in (("left", left_key), ("right", right_key)):
        if not key:
            continue
        rows = Change.objects.filter(rule_id__in=rule_ids, **{f"{side}_hash": key_hash(key)})
        if before is not None:
            rows = rows.filter(planned_at__lt=before)
        # The sum keeps planners from walking the primary key instead of the record's few rows.
        rows = rows.select_related("field_set").order_by((F("id") + 0).desc())
        found.update((change.pk, change) for change in rows[:limit])
    for change in _in_segments(list(rule_ids), wanted, before, limit):
        found.setdefault(change.pk, change)
    return sorted(found.values(), key=_newest_first)[:limit]


def _newest_first(change: Change) -> tuple[float, int]:
    return (-change.planned_at.timestamp(), -int(change.pk))


def _in_segments(
    rule_ids: list[UUID], wanted: ChangeFilter, before: datetime | None, limit: int
) -> Iterator[Change]:
    segments = Segment.objects.filter(rule_id__in=rule_ids)
    if before is not None:
        segments = segments.filter(planned_from__lt=before)
    ids = _segments_of_keys(segments, wanted)
    chosen = SegmentPart.objects.filter(segment_id__in=ids).select_related("segment")
    found = 0
    for part in chosen.order_by("-segment__planned_to", "-first_id"):
        for change in part_changes(part, wanted, limit=limit, newest_first=True):
            if before is None or change.planned_at < before:
                found += 1
                yield change
        if found >= limit:
            return


def _segments_of_keys(segments: QuerySet[Segment], wanted: ChangeFilter) -> list[int]:
    """Those of the segments that may hold one of the keys."""
    found: set[int] = set()
    for side, keys in (("left", wanted.left_keys), ("right", wanted.right_keys)):
        for key in keys:
            found.update(segments_of_key(segments, side, key))
    return sorted(found)


def segments_of_key(segments: QuerySet[Segment], side: str, key: str) -> Iterator[int]:
    """Those of the segments that may hold a key of a side."""
    low, high = f"{side}_low__lte", f"{side}_high__gte"
    within = segments.filter(**{low: bound(key), high: bound(key)})
    return segments_of_digest(within, side, key_hash(key))


def segments_of_digest(segments: QuerySet[Segment], side: str, digest: bytes) -> Iterator[int]:
    """The segments whose key filter lets a key with this hash pass; reads a block of each.

    Those whose filters are not built yet pass, too.
    """
    bits = 'coalesce(k."left", k."right")' if side == "left" else 'k."right"'
    ids = list(segments.values_list("pk", flat=True))
    for start in range(0, len(ids), 500):
        marks = ", ".join(["%s"] * len(ids[start : start + 500]))
        table = SegmentKeys._meta.db_table
        sql = (
            f"SELECT segment_id, substr({bits}, "  # noqa: S608  # nosec B608  # bits of our own
            f"(%s & (k.blocks - 1)) * {bloom.BLOCK_BYTES} + 1, {bloom.BLOCK_BYTES}) AS block "
            f"FROM {table} k WHERE segment_id IN ({marks})"
        )
        with connection.cursor() as cursor:
            cursor.execute(sql, [bloom.block_of(digest), *ids[start : start + 500]])
            blocks = dict(cursor.fetchall())
        for segment_id in ids[start : start + 500]:
            block = blocks.get(segment_id)
            if block is None or bloom.may_hold(bytes(block), digest):
                yield segment_id


def changes_of_field(
    rule_id: UUID, field: str, since: datetime, until: datetime, *, limit: int = 50
) -> list[Change]:
    """Changes of a rule that wrote a field, planned in [since, until), newest first."""
    sets = field_sets_with(rule_id, field)
    found: dict[int, Change] = {}
    for pk in sets:
        rows = Change.objects.filter(rule_id=rule_id, field_set__gte=pk, field_set__lte=pk)
        rows = rows.filter(planned_at__gte=since, planned_at__lt=until)
        rows = rows.select_related("field_set").order_by("-field_set", "-planned_at")
        found.update((change.pk, change) for change in rows[:limit])
    chosen = set(sets)
    wanted = ChangeFilter(field_sets=sets)
    segments = Segment.objects.filter(rule_id=rule_id, planned_to__gte=since)
    for segment in segments.filter(planned_from__lt=until).order_by("-planned_to", "-pk"):
        if not chosen & set(segment.field_sets):
            continue
        page = sorted(found.values(), key=_newest_first)
        if len(page) >= limit and page[limit - 1].planned_at > segment.planned_to:
            break
        for part in segment.parts.select_related("segment"):
            for change in part_changes(part, wanted, limit=limit, newest_first=True):
                if since <= change.planned_at < until:
                    found.setdefault(change.pk, change)
    return sorted(found.values(), key=_newest_first)[:limit]


def applied_sample(run_id: UUID, limit: int) -> list[Change]:
    """Some of what a run inserted and updated, for verification; the newest of each shelf."""
    wanted = ChangeFilter(operations=("insert", "update"), outcomes=(APPLIED,))
    rows = _of_run(run_id, wanted).order_by("-run_id", "-id")
    found = list(rows[:limit])
    parts = SegmentPart.objects.filter(run_id=run_id).select_related("segment")
    for part in parts.order_by("-first_id"):
        if len(found) >= limit:
            break
        found += part_changes(part, wanted, limit=limit - len(found), newest_first=True)
    return found
