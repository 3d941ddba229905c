"""Writing segments: manifest, key filters and content in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from django.db import transaction

from apps.ledger.models import Segment, SegmentKeys, SegmentPart
from apps.ledger.segments import bloom
from apps.ledger.segments.files import CHANGES, SEGMENT_BYTES, SEGMENT_ROWS, encode
from apps.ledger.segments.storage import storage

FIRST_ID = -(1 << 52)
"""Ids of changes that were planned into segments start here and are negative: the row shelf's own
are positive, and no database counts on from a negative one. JavaScript holds all of them."""
IDS_PER_SEGMENT = 1 << 17
BUFFER_BYTES = 48 * 1_048_576
BOUND_BYTES = 64
COUNTED = ("side", "operation", "cause", "outcome")


def cut(batches: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in tables that make one segment each."""
    waiting: list[pa.Table] = []
    for batch in batches:
        rows, size = (sum(getattr(t, n) for t in waiting) for n in ("num_rows", "nbytes"))
        full = rows + batch.num_rows > SEGMENT_ROWS or size + batch.nbytes > BUFFER_BYTES
        if waiting and full:
            yield pa.concat_tables(waiting)
            waiting = []
        waiting.append(batch)
    if waiting:
        yield pa.concat_tables(waiting)


def write_segment(rule_id: UUID, table: pa.Table, *, compacted: bool = False) -> None:
    """Keep changes (schema `CHANGES`, in plan order) as one segment, or more where it is large.

    compacted: they have ids of their own already; else they get new ones.
    """
    if not compacted:
        ids = pa.array(range(table.num_rows), pa.int64())
        table = table.set_column(0, "id", ids)
    content = encode(table.cast(CHANGES))
    if len(content) > SEGMENT_BYTES and table.num_rows > 1:
        half = table.num_rows // 2
        write_segment(rule_id, table.slice(0, half), compacted=compacted)
        write_segment(rule_id, table.slice(half), compacted=compacted)
        return
    with transaction.atomic():
        segment = Segment(rule_id=rule_id, rows=table.num_rows, size=0, compacted=compacted)
        _describe(segment, table)
        segment.save()
        segment.size = storage().put(segment, content)
        segment.save(update_fields=["size"])
        _write_keys(segment, table)
        SegmentPart.objects.bulk_create(_parts(segment, table))


def rewrite_segment(segment: Segment, table: pa.Table) -> None:
    """Replace the content by one with the same changes whose outcomes differ; a new key seals it.

    table: as read from the file, with all its rows.
    """
    with transaction.atomic():
        store = storage()
        store.remove([segment.pk])
        segment.size = store.put(segment, encode(table.cast(CHANGES)))
        segment.save(update_fields=["size"])
        counts = _counts(table)
        for part in segment.parts.all():
            part.counts = counts[str(part.partition_id)]
            part.save(update_fields=["counts"])


def remove_segments(ids: Iterable[int]) -> None:
    """Forget whole segments; the keys of their contents go with them."""
    chosen = list(ids)
    storage().remove(chosen)
    SegmentKeys.objects.filter(pk__in=chosen).delete()
    SegmentPart.objects.filter(segment_id__in=chosen).delete()
    Segment.objects.filter(pk__in=chosen).delete()


def _describe(segment: Segment, table: pa.Table) -> None:
    """Bounds and field sets."""
    for side in ("left", "right"):
        bounds = pc.min_max(table.column(f"{side}_key")).as_py()
        if bounds["min"] is not None:
            setattr(segment, f"{side}_low", bound(bounds["min"]))
            setattr(segment, f"{side}_high", bound(bounds["max"]))
    times = pc.min_max(table.column("planned_at")).as_py()
    segment.planned_from, segment.planned_to = times["min"], times["max"]
    segment.field_sets = sorted(table.column("field_set").unique().to_pylist())


def bound(key: str) -> bytes:
    """What bounds are compared by: the first bytes of a key text."""
    return key.encode()[:BOUND_BYTES]


def _write_keys(segment: Segment, table: pa.Table) -> None:
    blocks = bloom.block_count(table.num_rows)
    left, right = table.column("left_key"), table.column("right_key")
    same = left.equals(right)
    SegmentKeys.objects.create(
        segment=segment,
        blocks=blocks,
        left=None if same else bloom.build(left, blocks),
        right=bloom.build(right, blocks),
    )


def _parts(segment: Segment, table: pa.Table) -> list[SegmentPart]:
    wanted = [("sequence", "min"), ("sequence", "max"), ("id", "min"), ("id", "max")]
    groups = table.group_by(["run_id", "partition_id"], use_threads=False)
    counts = _counts(table)
    base = 0 if segment.compacted else FIRST_ID + segment.pk * IDS_PER_SEGMENT
    return [
        SegmentPart(
            segment=segment,
            rule_id=segment.rule_id,
            run_id=UUID(row["run_id"]),
            partition_id=UUID(row["partition_id"]),
            first_sequence=row["sequence_min"],
            last_sequence=row["sequence_max"],
            first_id=base + row["id_min"],
            last_id=base + row["id_max"],
            rows=row["count_all"],
            counts=counts[row["partition_id"]],
            settled_through=row["sequence_max"] if segment.compacted else 0,
        )
        for row in groups.aggregate([*wanted, ([], "count_all")]).to_pylist()
    ]


def _counts(table: pa.Table) -> dict[str, dict[str, int]]:
    """By partition: number of changes by side, operation, cause and outcome ('' where NULL)."""
    groups = table.group_by(["partition_id", *COUNTED], use_threads=False)
    found: dict[str, dict[str, int]] = {}
    row: dict[str, Any]
    for row in groups.aggregate([([], "count_all")]).to_pylist():
        name = " ".join(row[column] or "" for column in COUNTED)
        found.setdefault(row["partition_id"], {})[name] = row["count_all"]
    return found
