"""Plans: every change that a partition means to write, kept before the first write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa

from apps.core.bulk import bulk_insert
from apps.core.clock import now
from apps.ledger.models import Change, Side, seal_images
from apps.ledger.selectors.keys import key_hash_or_none
from apps.ledger.services.work import WorkIdentity

DELETE_CHUNK = 20_000

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
    "fields",
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
) -> int:
    """Keep a partition's plan; returns its last sequence (they count from 1).

    batches: tables as `Planner.changes` or `Reconciler.changes` yield them: PLAN_COLUMNS, and
    for two-way rules TWO_WAY_COLUMNS; total: how many changes they will be; transaction: what
    each write is wrapped in (a lease's, so that only its owner writes).
    """
    sequence = 0
    for batch in batches:
        with transaction():
            store_changes(work, batch, sequence + 1)
        sequence += batch.num_rows
    return sequence


def store_changes(work: WorkIdentity, batch: pa.Table, first_sequence: int) -> None:
    """Write planned changes (a table as `store_plan` takes it) to the row shelf."""
    bulk_insert(Change, CHANGE_COLUMNS, _change_rows(work, batch, first_sequence))


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
            orjson.dumps(fields).decode(),
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
    rows = Change.objects.filter(partition_id=partition_id)
    while ids := list(rows.values_list("pk", flat=True)[:DELETE_CHUNK]):
        Change.objects.filter(pk__in=ids).delete()
