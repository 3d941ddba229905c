"""Plans: every change that a partition means to write, kept before the first write.

A run's changes go to the row shelf up to LEDGER_ROWS_LIMIT of them, those of the partitions that
would exceed it to segments.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings

from apps.core.bulk import bulk_insert
from apps.core.clock import now
from apps.ledger.models import Change, Operation, SegmentPart, Side, seal_images
from apps.ledger.segments.files import CHANGES
from apps.ledger.segments.reading import ChangeFilter, OpenSegment
from apps.ledger.segments.writing import cut, remove_segments, rewrite_segment, write_segment
from apps.ledger.selectors.history import matching_rows
from apps.ledger.selectors.keys import key_hash_or_none
from apps.ledger.services.field_sets import field_set_ids
from apps.ledger.services.work import WorkIdentity

DELETE_CHUNK = 20_000
_BETWEEN = "\x1f"  # in no field's name

CHANGE_COLUMNS = (
    "run_id",
    "partition_id",
    "rule_id",
    "sequence",
    "side",
    "operation",
    "cause",
    "left_key",
    "right_key",
    "key_after",
    "left_hash",
    "right_hash",
    "field_set",
    "sealed_images",
    "sealed_base",
    "image",
    "outcome",
    "code",
    "planned_at",
)

PLAN_COLUMNS = (
    "operation",
    "cause",
    "left_key",
    "right_key",
    "key_after",
    "fields",
    "before",
    "after",
    "image",
)
TWO_WAY_COLUMNS = ("side", "base_left", "base_right")


def store_plan(
    work: WorkIdentity,
    batches: Iterable[pa.Table],
    *,
    total: int,
    transaction: Callable[[], AbstractContextManager[None]],
    first_links: bool = False,
) -> int:
    """Keep a partition's plan; returns its last sequence (they count from 1).

    batches: tables as `Planner.changes` or `Reconciler.changes` yield them: PLAN_COLUMNS, and
    for two-way rules TWO_WAY_COLUMNS; total: how many changes they will be; transaction: what
    each write is wrapped in (a lease's, so that only its owner writes); first_links: the rule has
    no links, so that what this plan inserts are its links where they lie.
    """
    in_segments = _is_large(work.run_id, total)
    sequence = 0
    for batch in cut(batches) if in_segments else batches:
        with transaction():
            if in_segments:
                table = _as_file(work, batch, sequence + 1)
                write_segment(work.rule_id, table, linked=first_links and _makes_links(table))
            else:
                store_changes(work, batch, sequence + 1)
        sequence += batch.num_rows
    return sequence


def _is_large(run_id: UUID, total: int) -> bool:
    """Whether the run would have too many changes for the row shelf."""
    limit = int(settings.LOCKSTEP["LEDGER_ROWS_LIMIT"])
    if total > limit:
        return True
    return Change.objects.filter(run_id=run_id)[: limit + 1].count() + total > limit


def _as_file(work: WorkIdentity, batch: pa.Table, first: int) -> pa.Table:
    """A batch as `segments.files` keeps it; ids are given when it is written."""
    rows = batch.num_rows
    constant = {
        "run_id": str(work.run_id),
        "partition_id": str(work.partition_id),
        "planned_at": now(),
        "id": 0,
    }
    columns: list[Any] = []
    for field in CHANGES:
        if field.name in constant:
            columns.append(pa.repeat(pa.scalar(constant[field.name], field.type), rows))
        elif field.name == "sequence":
            columns.append(pa.arange(first, first + rows))
        elif field.name == "field_set":
            columns.append(_field_set_column(work.rule_id, batch.column("fields")))
        elif field.name in batch.column_names:
            columns.append(batch.column(field.name))
        else:
            columns.append(pa.nulls(rows, field.type))
    table = pa.table(columns, names=CHANGES.names).cast(CHANGES)
    return _with_defaults(table)


def _makes_links(table: pa.Table) -> bool:
    """Whether all changes are inserts of records whose keys are known on both sides."""
    only_inserts = pc.all(pc.equal(table.column("operation"), Operation.INSERT.value)).as_py()
    keys = [table.column(f"{side.value}_key") for side in Side]
    named = all(not key.null_count and pc.all(pc.not_equal(key, "")).as_py() for key in keys)
    return bool(only_inserts and named)


def _with_defaults(table: pa.Table) -> pa.Table:
    """One-way plans say no side; a key that does not move is not said twice."""
    side = pc.fill_null(table.column("side"), Side.RIGHT.value)
    own = pc.if_else(
        pc.equal(side, Side.LEFT.value), table.column("left_key"), table.column("right_key")
    )
    after = table.column("key_after")
    moved = pc.fill_null(pc.not_equal(after, own), fill_value=True)
    after = pc.if_else(moved, after, pa.scalar(None, pa.string()))
    names = table.column_names
    table = table.set_column(names.index("side"), "side", side)
    return table.set_column(names.index("key_after"), "key_after", after)


def _field_set_column(rule_id: UUID, fields: pa.ChunkedArray) -> pa.Array:
    """The ids of the field sets of a column of lists of names."""
    joined = pc.binary_join(fields.combine_chunks(), _BETWEEN).dictionary_encode()
    texts = joined.dictionary.to_pylist()
    names = [tuple(text.split(_BETWEEN)) if text else () for text in texts]
    ids = field_set_ids(rule_id, names)
    return pa.array([ids[name] for name in names], pa.int64()).take(joined.indices)


def store_changes(work: WorkIdentity, batch: pa.Table, first_sequence: int) -> None:
    """Write planned changes (a table as `store_plan` takes it) to the row shelf."""
    sets = _field_set_column(work.rule_id, batch.column("fields"))
    columns = batch.drop_columns(["fields"]).append_column("fields", sets)
    bulk_insert(Change, CHANGE_COLUMNS, _change_rows(work, columns, first_sequence))


def _change_rows(work: WorkIdentity, batch: pa.Table, first: int) -> Iterator[Sequence[Any]]:
    moment = now()
    partition = str(work.partition_id)
    columns = [batch.column(name).to_pylist() for name in PLAN_COLUMNS]
    columns += [_optional(batch, name) for name in TWO_WAY_COLUMNS]
    for sequence, values in enumerate(zip(*columns, strict=True), start=first):
        operation, cause, left, right, key_after, fields, before, after, image, *two_way = values
        side, base_left, base_right = two_way
        own = left if side == Side.LEFT else right
        identity = Change.identity(partition, sequence)
        has_base = base_left is not None or base_right is not None
        yield (
            work.run_id,
            work.partition_id,
            work.rule_id,
            sequence,
            side or Side.RIGHT.value,
            operation,
            cause,
            left or "",
            right or "",
            key_after if key_after and key_after != own else "",
            key_hash_or_none(left),
            key_hash_or_none(right),
            fields,
            seal_images(before, after, identity),
            seal_images(base_left, base_right, f"{identity}|base") if has_base else None,
            image or "",
            Change.Outcome.PLANNED.value,
            "",
            moment,
        )


def _optional(batch: pa.Table, name: str) -> list[Any]:
    """A column that only two-way plans have."""
    if name in batch.column_names:
        values: list[Any] = batch.column(name).to_pylist()
        return values
    return [None] * batch.num_rows


def discard_plan(partition_id: UUID) -> None:
    """Forget a partition's plan that was never applied: it is planned anew."""
    parts = SegmentPart.objects.filter(partition_id=partition_id)
    remove_segments(parts.values_list("segment_id", flat=True))
    rows = Change.objects.filter(partition_id=partition_id)
    while ids := list(rows.values_list("pk", flat=True)[:DELETE_CHUNK]):
        Change.objects.filter(pk__in=ids).delete()


def skip_others(run_id: UUID, partition_id: UUID, kept: ChangeFilter) -> int:
    """Let only the planned changes that pass be applied; returns how many others are skipped."""
    moment = now()
    planned = Change.objects.filter(
        run_id=run_id, partition_id=partition_id, outcome=Change.Outcome.PLANNED
    )
    others = planned.exclude(pk__in=matching_rows(kept).values("pk"))
    skipped = others.update(outcome=Change.Outcome.SKIPPED, settled_at=moment)
    parts = SegmentPart.objects.filter(partition_id=partition_id).select_related("segment")
    for part in parts.order_by("first_sequence"):
        skipped += _skip_in_segment(part, kept, moment)
    return skipped


def _skip_in_segment(part: SegmentPart, kept: ChangeFilter, moment: datetime) -> int:
    opened = OpenSegment(part.segment)
    places, _ = opened.find(part, kept)
    table = opened.file.raw()
    stays = pc.is_in(pa.array(range(table.num_rows)), value_set=places.cast(pa.int64()))
    stays = pc.or_(stays, pc.is_valid(table.column("outcome")))
    skipped = table.num_rows - (pc.sum(stays).as_py() or 0)
    if skipped:
        for name, value in (("outcome", Change.Outcome.SKIPPED.value), ("settled_at", moment)):
            old = table.column(name)
            new = pc.if_else(stays, old, pa.scalar(value, old.type))
            table = table.set_column(table.column_names.index(name), name, new)
        rewrite_segment(part.segment, table)
    return int(skipped)
