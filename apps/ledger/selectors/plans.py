"""The plan of a partition, as the apply step reads it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from apps.ledger.models import Change, FieldSet, SegmentPart, Side, open_images
from apps.ledger.segments.files import GROUP_ROWS
from apps.ledger.segments.reading import OpenSegment, overlaid


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
    "field_set",
    "sealed_images",
    "image",
    "side",
    "sealed_base",
    "cause",
)
_FILE_COLUMNS = (
    "sequence",
    "operation",
    "left_key",
    "right_key",
    "key_after",
    "field_set",
    "before",
    "after",
    "image",
    "side",
    "base_left",
    "base_right",
    "cause",
)


class PlanReader:
    """Reads one partition's plan in plan order, from whichever shelf it is on.

    Keep one while a plan is applied: it opens a segment once and decodes it piece by piece.
    """

    def __init__(self, partition_id: UUID) -> None:
        self.partition_id = partition_id
        self._fields: dict[int, tuple[str, ...]] = {}
        self._opened: OpenSegment | None = None
        self._group: tuple[int, int, pa.Table] | None = None  # segment, number, content

    def next(self, after_sequence: int, limit: int) -> list[PlannedChange]:
        """At most `limit` changes behind this sequence that have no outcome yet; empty: no more."""
        parts = SegmentPart.objects.filter(
            partition_id=self.partition_id, last_sequence__gt=after_sequence
        )
        for part in parts.order_by("first_sequence").select_related("segment"):
            start = max(after_sequence, part.settled_through, part.first_sequence - 1)
            found = self._of_part(part, start, limit)
            if found:
                return found
        return self._rows(after_sequence, limit)

    def keys(self, after_sequence: int, limit: int) -> list[tuple[int, str, str]]:
        """Sequence and both keys of the changes behind this sequence, about `limit` of them."""
        found: list[tuple[int, str, str]] = []
        parts = SegmentPart.objects.filter(
            partition_id=self.partition_id, last_sequence__gt=after_sequence
        )
        for part in parts.order_by("first_sequence").select_related("segment"):
            columns = OpenSegment(part.segment).file.columns(["sequence", "left_key", "right_key"])
            rows = zip(*(column.to_pylist() for column in columns.columns), strict=True)
            found += [(n, left or "", right or "") for n, left, right in rows if n > after_sequence]
            if len(found) >= limit:
                return found
        rows_left = Change.objects.filter(
            partition_id=self.partition_id, sequence__gt=after_sequence
        )
        names = ("sequence", "left_key", "right_key")
        return found or list(rows_left.order_by("sequence").values_list(*names)[:limit])

    def right_keys(self) -> Iterator[str]:
        """The right keys of a plan that lies in segments as a whole."""
        parts = SegmentPart.objects.filter(partition_id=self.partition_id)
        for part in parts.order_by("first_sequence").select_related("segment"):
            column = OpenSegment(part.segment).file.columns(["right_key"]).column(0)
            yield from (key or "" for key in column.to_pylist())

    def _of_part(self, part: SegmentPart, after: int, limit: int) -> list[PlannedChange]:
        hidden = overlaid(part) if after < part.last_sequence else set()
        found: list[PlannedChange] = []
        while after < part.last_sequence and len(found) < limit:
            table = self._slice(part, after - part.first_sequence + 1, limit - len(found))
            after += table.num_rows
            table = table.filter(pc.is_null(table.column("outcome")))
            if hidden:
                known = pc.is_in(table.column("sequence"), value_set=pa.array(hidden, pa.int64()))
                table = table.filter(pc.invert(known))
            found += self._planned(table)
        return found

    def _slice(self, part: SegmentPart, place: int, limit: int) -> pa.Table:
        """Rows from a place on: at most `limit`, and no more than the row group holds."""
        number, offset = divmod(place, GROUP_ROWS)
        if self._group is None or self._group[:2] != (part.segment_id, number):
            if self._opened is None or self._opened.segment.pk != part.segment_id:
                self._opened = OpenSegment(part.segment)
            self._group = (part.segment_id, number, self._opened.file.group(number))
        return self._group[2].slice(offset, limit)

    def _planned(self, table: pa.Table) -> list[PlannedChange]:
        columns = [table.column(name).to_pylist() for name in _FILE_COLUMNS]
        self._learn(columns[5])
        found = []
        for row in zip(*columns, strict=True):
            sequence, operation, left, right, key_after, fields, before, after, image, *two = row
            side, base_left, base_right, cause = two
            found.append(
                PlannedChange(
                    sequence,
                    operation,
                    left or "",
                    right or "",
                    key_after or (left if side == Side.LEFT else right) or "",
                    self._fields[fields],
                    before or "",
                    after or "",
                    image or "",
                    side,
                    base_left or "",
                    base_right or "",
                    cause,
                )
            )
        return found

    def _rows(self, after_sequence: int, limit: int) -> list[PlannedChange]:
        rows = Change.objects.filter(
            partition_id=self.partition_id,
            sequence__gt=after_sequence,
            outcome=Change.Outcome.PLANNED,
        )
        found = list(rows.order_by("sequence").values_list(*COLUMNS)[:limit])
        self._learn([row[5] for row in found])
        return [_planned(str(self.partition_id), row, self._fields) for row in found]

    def _learn(self, ids: Iterable[int]) -> None:
        """Know the names of these field sets."""
        unknown = set(ids) - set(self._fields)
        for pk, names in FieldSet.objects.in_bulk(unknown).items() if unknown else ():
            self._fields[pk] = tuple(names.names)


def planned_changes(partition_id: UUID, after_sequence: int, limit: int) -> list[PlannedChange]:
    """The next changes of a partition's plan that have no outcome yet, in plan order."""
    return PlanReader(partition_id).next(after_sequence, limit)


def _planned(
    partition: str, row: Sequence[Any], names: Mapping[int, tuple[str, ...]]
) -> PlannedChange:
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
        names[fields],
        before,
        after,
        image,
        side,
        base_left,
        base_right,
        cause,
    )
