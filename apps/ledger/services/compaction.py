"""Compaction and retention: what is settled and old moves to segments, and goes at last.

Every step is one transaction that writes the new segment and removes what it replaces, so that a
crash between two steps loses and doubles nothing; the sealed key goes with the content, so that
what was removed cannot be read from a copy of the content alone. Who calls names the runs that
must stay as they are: those that go on, wait for approval, or can still be undone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from django.db import transaction
from django.db.models import QuerySet

from apps.ledger.models import Change, Conflict, Segment, SegmentPart
from apps.ledger.segments.files import CHANGES, SEGMENT_ROWS
from apps.ledger.segments.reading import OpenSegment
from apps.ledger.segments.writing import (
    remove_segments,
    rewrite_links,
    write_keys,
    write_segment,
)
from apps.ledger.selectors.inbox import OPEN
from apps.ledger.services.expiring import expire_closed, expire_former_values
from apps.ledger.services.receipts import expire_receipts

SMALL_ROWS = SEGMENT_ROWS // 4
MOST_STEPS = 200
DELETE_CHUNK = 5_000
MERGED = 64
FEWEST_MERGED = 8


class _Disturbed(Exception):
    """Somebody else moved the same rows: nothing is changed, the next time will do."""


@dataclass(frozen=True, slots=True)
class Maintained:
    """What was done. rows: moved to segments; folded, merged: segments rewritten; expired: rows,
    segments, and conflicts and rejections that were over, removed for their age."""

    rows: int = 0
    folded: int = 0
    merged: int = 0
    expired_rows: int = 0
    expired_segments: int = 0
    expired_closed: int = 0


def maintain(
    *, compact_before: datetime, expire_before: datetime, kept_runs: Collection[UUID]
) -> Maintained:
    """Compact changes planned before a time, and forget those planned before another.

    kept_runs: their changes stay where they are. Those of runs that open conflicts name never
    expire either.
    """
    kept = set(kept_runs)
    in_use = kept | _in_conflicts()
    expired_rows, expired_segments = _expire(expire_before, in_use)
    expire_receipts(compact_before)
    expire_former_values(expire_before)
    closed = expire_closed(expire_before)
    _repeat(_filter_keys)
    return Maintained(
        rows=_repeat(lambda: _move_rows(compact_before, kept)),
        folded=_repeat(lambda: _fold(compact_before, kept)),
        merged=_repeat(lambda: _merge(compact_before)),
        expired_rows=expired_rows,
        expired_segments=expired_segments,
        expired_closed=closed,
    )


def _in_conflicts() -> set[UUID]:
    """The runs that open conflicts name."""
    found = Conflict.objects.filter(state__in=OPEN).order_by().distinct()
    return {run for pair in found.values_list("run_id", "first_run_id") for run in pair}


def _repeat(step: Callable[[], int]) -> int:
    """Take a step until it finds nothing more to do, a bounded number of times."""
    total = 0
    for _ in range(MOST_STEPS):
        try:
            with transaction.atomic():
                done = step()
        except _Disturbed:
            break
        total += done
        if not done:
            break
    return total


def _filter_keys() -> int:
    """Build the key filters that a load has left out, of one segment; returns 1, or 0 for none."""
    segment = Segment.objects.filter(segmentkeys__isnull=True).order_by("pk").first()
    if segment is None:
        return 0
    write_keys(segment, OpenSegment(segment).file.columns(["left_key", "right_key"]))
    return 1


def _move_rows(before: datetime, kept: Collection[UUID]) -> int:
    """Move the oldest settled rows of one rule to a segment; returns how many."""
    old = Change.objects.filter(planned_at__lt=before, id__gt=0).exclude(run_id__in=kept)
    rule_id = old.order_by("planned_at").values_list("rule_id", flat=True).first()
    if rule_id is None:
        return 0
    ids = list(
        old.filter(rule_id=rule_id)
        .order_by("planned_at")[:SEGMENT_ROWS]
        .values_list("pk", flat=True)
    )
    rows: list[Change] = []
    for start in range(0, len(ids), DELETE_CHUNK):
        rows += Change.objects.filter(pk__in=ids[start : start + DELETE_CHUNK])
    rows.sort(key=lambda row: (str(row.partition_id), row.sequence))
    write_segment(rule_id, _as_table(rows), compacted=True)
    _delete_rows(ids)
    return len(ids)


def _delete_rows(ids: Sequence[int]) -> None:
    """Raises _Disturbed if not all of them are there any more."""
    deleted = 0
    for start in range(0, len(ids), DELETE_CHUNK):
        deleted += Change.objects.filter(pk__in=ids[start : start + DELETE_CHUNK]).delete()[0]
    if deleted != len(ids):
        raise _Disturbed


def _as_table(rows: Iterable[Change]) -> pa.Table:
    return pa.Table.from_pylist([_as_row(row) for row in rows], schema=CHANGES)


def _as_row(change: Change) -> dict[str, Any]:
    """A row of the row shelf as a segment keeps it."""
    before, after = change.image_texts()
    base_left, base_right = change.base()
    same = ("id", "sequence", "side", "operation", "cause", "outcome", "planned_at", "settled_at")
    return {name: getattr(change, name) for name in same} | {
        "run_id": str(change.run_id),
        "partition_id": str(change.partition_id),
        "field_set": change.field_set_id,
        "left_key": change.left_key or None,
        "right_key": change.right_key or None,
        "key_after": change.key_after or None,
        "before": before or None,
        "after": after or None,
        "base_left": base_left or None,
        "base_right": base_right or None,
        "image": change.image or None,
        "code": change.code or None,
        "message": change.message or None,
    }


def _fold(before: datetime, kept: Collection[UUID]) -> int:
    """Put the rows that stand for changes of one segment into it; returns 1, or 0 for none."""
    shadows = Change.objects.filter(planned_at__lt=before, id__lt=0)
    shadow = shadows.exclude(run_id__in=kept).order_by("planned_at").first()
    if shadow is None:
        return 0
    part = SegmentPart.objects.filter(first_id__lte=shadow.pk, last_id__gte=shadow.pk).first()
    if part is None:
        raise _Disturbed
    rows = list(
        Change.objects.filter(
            partition_id=part.partition_id,
            sequence__gte=part.first_sequence,
            sequence__lte=part.last_sequence,
        )
    )
    opened = OpenSegment(part.segment)
    table = opened.resolved(opened.file.everything(), part)
    settled = pa.scalar(part.settled_at, CHANGES.field("settled_at").type)
    times = pc.if_else(
        pc.equal(table["outcome"], Change.Outcome.APPLIED.value),
        pc.coalesce(table["settled_at"], settled),
        table["settled_at"],
    )
    table = table.set_column(table.column_names.index("settled_at"), "settled_at", times)
    told = pa.array([row.sequence for row in rows], pa.int64())
    rest = table.filter(pc.invert(pc.is_in(table["sequence"], value_set=told)))
    whole = pa.concat_tables([rest, _as_table(rows)]).sort_by("sequence")
    remove_segments([part.segment_id])
    write_segment(part.rule_id, whole, compacted=True, linked=part.segment.linked)
    _delete_rows([row.pk for row in rows])
    return 1


def _merge(before: datetime) -> int:
    """Make one segment of some small ones of a rule; returns how many were replaced."""
    small = Segment.objects.filter(compacted=True, linked=False)
    small = small.filter(rows__lt=SMALL_ROWS, planned_to__lt=before)
    for rule_id in small.order_by().values_list("rule_id", flat=True).distinct():
        chosen: list[Segment] = []
        rows = 0
        for segment in small.filter(rule_id=rule_id).order_by("planned_to")[:MERGED]:
            if rows + segment.rows > SEGMENT_ROWS:
                break
            chosen.append(segment)
            rows += segment.rows
        if len(chosen) < FEWEST_MERGED:
            continue
        tables = [OpenSegment(segment).file.everything() for segment in chosen]
        whole = pa.concat_tables(tables).sort_by(
            [("partition_id", "ascending"), ("sequence", "ascending")]
        )
        remove_segments([segment.pk for segment in chosen])
        write_segment(rule_id, whole, compacted=True)
        return len(chosen)
    return 0


def _expire(before: datetime, in_use: Collection[UUID]) -> tuple[int, int]:
    """Forget what is past its time; returns rows and segments removed."""
    old = Change.objects.filter(planned_at__lt=before).exclude(run_id__in=in_use)
    rows = _repeat(lambda: _delete_some(old))
    used = SegmentPart.objects.filter(run_id__in=in_use).values("segment_id")
    segments = Segment.objects.filter(planned_to__lt=before).exclude(pk__in=used)
    removed = _repeat(lambda: _remove_some(segments.filter(linked=False)))
    return rows, removed + _repeat(lambda: _keep_links(segments.filter(linked=True)))


def _delete_some(rows: QuerySet[Change]) -> int:
    ids = list(rows.order_by("planned_at").values_list("pk", flat=True)[:DELETE_CHUNK])
    Change.objects.filter(pk__in=ids).delete()
    return len(ids)


def _keep_links(segments: QuerySet[Segment]) -> int:
    """Of a segment whose changes are to be forgotten, keep what its links need; returns 1 or 0."""
    segment = segments.filter(parts__isnull=False).order_by("pk").first()
    if segment is None:
        return 0
    opened = OpenSegment(segment)
    table = opened.file.raw()
    links = table.filter(opened.linked(table, list(segment.parts.all())))
    if links.num_rows:
        rewrite_links(segment, links)
    else:
        remove_segments([segment.pk])
    return 1


def _remove_some(segments: QuerySet[Segment]) -> int:
    ids = list(segments.values_list("pk", flat=True)[:100])
    remove_segments(ids)
    return len(ids)
