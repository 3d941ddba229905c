"""Writing segments: manifest, key filters and content in one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from django.db import transaction

from apps.ledger.models import Segment, SegmentKeys, SegmentPart
from apps.ledger.segments import bloom
from apps.ledger.segments.files import (
    CHANGES,
    SEGMENT_BYTES,
    SEGMENT_ROWS,
    Typed,
    encode,
    is_constant,
)
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


def write_segment(
    rule_id: UUID,
    table: pa.Table,
    *,
    compacted: bool = False,
    linked: bool = False,
    filtered: bool = True,
) -> None:
    """Keep changes in plan order as one segment, or more where it is large.

    table: with the schema `CHANGES` or that of a `Typed`, where columns may be `constant`;
    compacted: they have ids of their own already, else they get new ones; linked: the inserts
    among them that are applied are links; filtered: build the key filters at once, which is most
    of the work.
    """
    if not compacted:
        ids = pa.arange(0, table.num_rows)
        table = table.set_column(0, "id", ids)
    content = encode(table)
    if len(content) > SEGMENT_BYTES and table.num_rows > 1:
        half = table.num_rows // 2
        for part in (table.slice(0, half), table.slice(half)):
            write_segment(rule_id, part, compacted=compacted, linked=linked, filtered=filtered)
        return
    with transaction.atomic():
        segment = Segment(
            rule_id=rule_id, rows=table.num_rows, size=0, compacted=compacted, linked=linked
        )
        _describe(segment, table)
        segment.save()
        segment.size = storage().put(segment, content)
        segment.save(update_fields=["size"])
        if filtered:
            write_keys(segment, table)
        SegmentPart.objects.bulk_create(_parts(segment, table))


def write_links(rule_id: UUID, table: pa.Table) -> None:
    """Keep links that no change made as one segment, or more: it has no part, and tells no change.

    table: with the schema of a `Typed` that is `based`.
    """
    content = encode(table)
    if len(content) > SEGMENT_BYTES and table.num_rows > 1:
        half = table.num_rows // 2
        for part in (table.slice(0, half), table.slice(half)):
            write_links(rule_id, part)
        return
    with transaction.atomic():
        segment = Segment(rule_id=rule_id, rows=table.num_rows, size=0, linked=True)
        _describe(segment, table)
        segment.field_sets = []
        segment.save()
        segment.size = storage().put(segment, content)
        segment.save(update_fields=["size"])


def rewrite_segment(segment: Segment, table: pa.Table) -> None:
    """Replace the content by one with the same changes whose outcomes differ; a new key seals it.

    table: as read from the file, with all its rows.
    """
    if Typed.of(table.schema) is None:
        table = table.cast(CHANGES)
    with transaction.atomic():
        store = storage()
        store.remove([segment.pk])
        segment.size = store.put(segment, encode(table))
        segment.save(update_fields=["size"])
        counts = _counts(table)
        for part in segment.parts.all():
            part.counts = counts[str(part.partition_id)]
            part.save(update_fields=["counts"])


def rewrite_links(segment: Segment, table: pa.Table) -> None:
    """Keep of a linked segment its links alone: the changes and what they wrote are forgotten.

    table: the rows that are links, as they stand in the file. A base stays; without one the
    images go, and their hashes stay.
    """
    typed = Typed.of(table.schema)
    if typed is None or not typed.based:
        table = table.cast(CHANGES) if typed is None else typed.plain(table)
        empty = pa.nulls(table.num_rows, pa.string())
        table = table.set_column(table.column_names.index("after"), "after", empty)
    applied = pa.repeat(pa.scalar("applied", pa.string()), table.num_rows)
    table = table.set_column(table.column_names.index("outcome"), "outcome", applied)
    with transaction.atomic():
        store = storage()
        store.remove([segment.pk])
        segment.size = store.put(segment, encode(table))
        segment.rows = table.num_rows
        segment.field_sets = []
        segment.save(update_fields=["size", "rows", "field_sets"])
        SegmentPart.objects.filter(segment=segment).delete()


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
    times = table.column("planned_at").unique().to_pylist()
    segment.planned_from, segment.planned_to = min(times), max(times)
    segment.field_sets = sorted(table.column("field_set").unique().to_pylist())
    segment.crossed = not table.column("left_key").equals(table.column("right_key"))


def bound(key: str) -> bytes:
    """What bounds are compared by: the first bytes of a key text."""
    return key.encode()[:BOUND_BYTES]


def write_keys(segment: Segment, table: pa.Table) -> None:
    """Build and keep a segment's key filters."""
    blocks = bloom.block_count(table.num_rows)
    left, right = table.column("left_key"), table.column("right_key")
    same = not segment.crossed
    SegmentKeys.objects.create(
        segment=segment,
        blocks=blocks,
        left=None if same else bloom.build(left, blocks),
        right=bloom.build(right, blocks),
    )


def _parts(segment: Segment, table: pa.Table) -> list[SegmentPart]:
    wanted = [("sequence", "min"), ("sequence", "max"), ("id", "min"), ("id", "max")]
    groups = _grouped(table, ["run_id", "partition_id"], wanted)
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
        for row in groups
    ]


def _counts(table: pa.Table) -> dict[str, dict[str, int]]:
    """By partition: number of changes by side, operation, cause and outcome ('' where NULL)."""
    found: dict[str, dict[str, int]] = {}
    for row in _grouped(table, ["partition_id", *COUNTED]):
        name = " ".join(row[column] or "" for column in COUNTED)
        found.setdefault(row["partition_id"], {})[name] = row["count_all"]
    return found


def _grouped(
    table: pa.Table, names: Sequence[str], wanted: Sequence[tuple[str, str]] = ()
) -> list[dict[str, Any]]:
    """A row for each group: the values of `names`, what is wanted of other columns, `count_all`.

    Columns that are the same throughout, as most are in large plans, are not grouped by: hashing
    texts takes long.
    """
    varying = [name for name in names if not is_constant(table.column(name))]
    same = {name: table.column(name)[0].as_py() for name in names if name not in varying}
    groups = table.group_by(varying, use_threads=False).aggregate([*wanted, ([], "count_all")])
    return [same | row for row in groups.to_pylist()]
