"""The plan of a partition, as the apply step reads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from apps.ledger.models import Change, Side, open_images


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A change as the apply step needs it; images are JSON texts, empty where there is none.

    side:       where it is written; `fields`, `before` and `after` are in that side's space;
    left_key, right_key: as they are before the change; empty where a key is not known, or
                assigned by the insert;
    key_after:  the key on its own side once it is applied (the same where it does not move);
    image:      hash of the whole record on its side afterwards, where it is known;
    base_left, base_right: patch to the link's base, JSON in right space: the fields that this
                change brings into step (`null`: there is no record); empty for a one-way rule.
    """

    sequence: int
    operation: str
    left_key: str
    right_key: str
    key_after: str
    fields: tuple[str, ...]
    before: str
    after: str
    image: str
    side: str = Side.RIGHT.value
    base_left: str = ""
    base_right: str = ""
    cause: str = ""

    @property
    def own_key(self) -> str:
        """The key by which its own side knows the record now."""
        return self.left_key if self.side == Side.LEFT else self.right_key


COLUMNS = (
    "sequence",
    "operation",
    "left_key",
    "right_key",
    "key_after",
    "fields",
    "sealed_images",
    "image",
    "side",
    "sealed_base",
    "cause",
)


def planned_changes(partition_id: UUID, after_sequence: int, limit: int) -> list[PlannedChange]:
    """The next changes of a partition's plan that have no outcome yet, in plan order."""
    rows = Change.objects.filter(
        partition_id=partition_id, sequence__gt=after_sequence, outcome=Change.Outcome.PLANNED
    )
    found = rows.order_by("sequence").values_list(*COLUMNS)[:limit]
    return [_planned(str(partition_id), row) for row in found]


def _planned(partition: str, row: Sequence[Any]) -> PlannedChange:
    sequence, operation, left, right, key_after, fields, images, image, side, base, cause = row
    identity = Change.identity(partition, sequence)
    before, after = open_images(images, identity) if images else ("", "")
    base_left, base_right = open_images(base, f"{identity}|base") if base else ("", "")
    return PlannedChange(
        sequence,
        operation,
        left,
        right,
        key_after or (left if side == Side.LEFT else right),
        tuple(orjson.loads(fields)),
        before,
        after,
        image,
        side,
        base_left,
        base_right,
        cause,
    )
