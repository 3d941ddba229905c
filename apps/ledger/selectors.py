"""Reads of record memory; the scoped queryset of each model of this room."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa
from django.db.models import Count, F, QuerySet

from apps.core.selectors import scoped
from apps.ledger.models import Change, Link, Rejection, open_images

LINK_BATCH = 50_000


def changes(actor: Any, action: str = "view") -> QuerySet[Change]:
    return scoped(Change.objects.all(), actor, action)


def links(actor: Any, action: str = "view") -> QuerySet[Link]:
    return scoped(Link.objects.all(), actor, action)


def rejections(actor: Any, action: str = "view") -> QuerySet[Rejection]:
    return scoped(Rejection.objects.all(), actor, action)


def key_hash(key: str) -> bytes:
    """16 bytes that stand for a canonical key text in indexes."""
    return hashlib.md5(key.encode(), usedforsecurity=False).digest()


def change_page(
    run_id: UUID,
    *,
    operation: str = "",
    outcome: str = "",
    search_key: str = "",
    after_id: int | None = None,
    limit: int = 50,
) -> list[Change]:
    """One page of a run's changes, oldest first; `after_id` is the last id of the page before.

    search_key: a canonical key text, or the plain value of a key of one field.
    """
    found = Change.objects.filter(run_id=run_id)
    if operation:
        found = found.filter(operation=operation)
    if outcome:
        found = found.filter(outcome=outcome)
    if search_key:
        texts = _key_candidates(search_key)
        found = found.filter(right_hash__in=[key_hash(text) for text in texts])
    if after_id is not None:
        found = found.filter(id__gt=after_id)
    return list(found.order_by("id")[:limit])


def _key_candidates(text: str) -> list[str]:
    from apps.engine.types_sql import key_text

    text = text.strip()
    return [text, key_text([text])]


def change_counts(run_id: UUID) -> dict[tuple[str, str], int]:
    """Number of a run's changes by operation and outcome."""
    rows = Change.objects.filter(run_id=run_id).values_list("operation", "outcome")
    return {(op, outcome): n for op, outcome, n in rows.annotate(n=Count("id")).order_by()}


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A change as the apply step needs it; images are JSON texts, empty where there is none."""

    sequence: int
    operation: str
    left_key: str
    right_key: str
    key_after: str
    fields: tuple[str, ...]
    before: str
    after: str
    image: str


def planned_changes(partition_id: UUID, after_sequence: int, limit: int) -> list[PlannedChange]:
    """The next changes of a partition's plan that have no outcome yet, in plan order."""
    import orjson

    rows = (
        Change.objects.filter(
            partition_id=partition_id,
            sequence__gt=after_sequence,
            outcome=Change.Outcome.PLANNED,
        )
        .order_by("sequence")
        .values_list(
            "sequence",
            "operation",
            "left_key",
            "right_key",
            "key_after",
            "fields",
            "sealed_images",
            "image",
        )[:limit]
    )
    planned = []
    partition = str(partition_id)
    for sequence, operation, left_key, right_key, key_after, fields, sealed, image in rows:
        before, after = open_images(sealed, Change.identity(partition, sequence))
        planned.append(
            PlannedChange(
                sequence,
                operation,
                left_key,
                right_key,
                key_after or right_key,
                tuple(orjson.loads(fields)),
                before,
                after,
                image,
            )
        )
    return planned


def link_batches(rule_id: UUID) -> Iterator[pa.Table]:
    """All live links of a rule as tables of left_key, right_key."""
    rows = Link.objects.filter(rule_id=rule_id).values_list("id", "left_key", "right_key")
    last = 0
    while True:
        page = list(rows.filter(id__gt=last).order_by("id")[:LINK_BATCH])
        if not page:
            return
        last = page[-1][0]
        yield link_table([(left, right) for _, left, right in page])


def links_of_left(rule_id: UUID, left_keys: Sequence[str]) -> pa.Table:
    """The links of these left keys."""
    found: list[tuple[str, str]] = []
    for start in range(0, len(left_keys), 500):
        hashes = [key_hash(key) for key in left_keys[start : start + 500]]
        query = Link.objects.filter(rule_id=rule_id, left_hash__in=hashes)
        found += query.values_list("left_key", "right_key")
    return link_table(found)


def link_table(pairs: Sequence[tuple[str, str]]) -> pa.Table:
    return pa.table(
        {
            "left_key": pa.array([left for left, _ in pairs], pa.string()),
            "right_key": pa.array([right for _, right in pairs], pa.string()),
        }
    )


def link_count(rule_id: UUID) -> int:
    return Link.objects.filter(rule_id=rule_id).count()


def has_links(rule_id: UUID) -> bool:
    return Link.objects.filter(rule_id=rule_id).exists()


def has_crossed_links(rule_id: UUID) -> bool:
    """Whether some link's two keys differ."""
    return Link.objects.filter(rule_id=rule_id).exclude(left_hash=F("right_hash")).exists()


def links_of_right(rule_id: UUID, right_keys: Sequence[str]) -> pa.Table:
    """The links of these right keys."""
    found: list[tuple[str, str]] = []
    for start in range(0, len(right_keys), 500):
        hashes = [key_hash(key) for key in right_keys[start : start + 500]]
        query = Link.objects.filter(rule_id=rule_id, right_hash__in=hashes)
        found += query.values_list("left_key", "right_key")
    return link_table(found)


def link_lookup(rule_id: UUID) -> pa.Table:
    """The rule's links as a lookup: plain left key (one field) -> plain right key, as text."""
    from apps.engine.types_sql import key_values

    keys: list[str] = []
    values: list[str] = []
    for table in link_batches(rule_id):
        for left, right in zip(*(c.to_pylist() for c in table.columns), strict=True):
            left_values, right_values = key_values(left), key_values(right)
            if len(left_values) == len(right_values) == 1 and left_values[0] is not None:
                keys.append(left_values[0])
                values.append(right_values[0] or "")
    return pa.table({"key": pa.array(keys, pa.string()), "value": pa.array(values, pa.string())})


def open_rejection_keys(rule_id: UUID, limit: int = 10_000) -> list[str]:
    """Left keys of a rule's open rejections."""
    waiting = (Rejection.State.OPEN, Rejection.State.REPLAYING)
    rows = Rejection.objects.filter(rule_id=rule_id, state__in=waiting).exclude(left_key="")
    return list(rows.values_list("left_key", flat=True).distinct()[:limit])


def stale_left_keys(run_ids: Sequence[UUID], limit: int = 50_000) -> list[str]:
    """Left keys of these runs' changes that had moved when they were to be applied."""
    rows = Change.objects.filter(run_id__in=run_ids, outcome=Change.Outcome.STALE)
    return list(rows.exclude(left_key="").values_list("left_key", flat=True)[:limit])
