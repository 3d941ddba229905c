"""Reading segments: changes by part, as the row shelf would have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc

from apps.ledger.models import Change, FieldSet, Opened, Operation, Segment, SegmentPart
from apps.ledger.segments.files import GROUP_ROWS, ChangeFile
from apps.ledger.segments.storage import storage
from apps.ledger.segments.writing import COUNTED

APPLIED = Change.Outcome.APPLIED.value
PLANNED = Change.Outcome.PLANNED.value
_LIGHT = ("id", "partition_id", "sequence", "side", "operation", "cause", "outcome", "field_set")

KEYS = ("side", "left_key", "right_key", "key_after")
Keys = tuple[str, ...]
"""What `KEYS` names of a change, each empty where there is none."""

_JUDGED = ("operation", "outcome", "sequence", "partition_id")


@dataclass(frozen=True, slots=True)
class ChangeFilter:
    """Which changes; empty values do not narrow.

    keys: canonical key texts, of either side; field_sets, ids: any of these.
    """

    operations: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    sides: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    left_keys: tuple[str, ...] = ()
    right_keys: tuple[str, ...] = ()
    field_sets: tuple[int, ...] = ()
    ids: tuple[int, ...] = ()

    def mask(self, table: pa.Table) -> pa.ChunkedArray:
        """Which rows pass; the table has the columns that are asked for."""
        mask = pc.is_valid(table.column("id"))
        exact = {
            "operation": self.operations,
            "outcome": self.outcomes,
            "side": self.sides,
            "cause": self.causes,
            "field_set": self.field_sets,
            "id": self.ids,
        }
        for name, values in exact.items():
            if values:
                mask = pc.and_(mask, _is_in(table.column(name), values))
        sides = [
            _is_in(table.column(f"{side}_key"), keys)
            for side, keys in (("left", self.left_keys), ("right", self.right_keys))
            if keys
        ]
        if sides:
            mask = pc.and_(mask, sides[0] if len(sides) == 1 else pc.or_(*sides))
        return mask

    def may_hold(self, counts: dict[str, int]) -> bool:
        """Whether a part with these counts can hold such a change."""
        for name in counts:
            side, operation, cause, outcome = name.split(" ")
            chosen = ((self.sides, side), (self.operations, operation), (self.causes, cause))
            if all(not values or value in values for values, value in chosen) and (
                not self.outcomes or not outcome or outcome in self.outcomes
            ):
                return True
        return False


def _is_in(column: pa.ChunkedArray, values: Sequence[Any]) -> pa.ChunkedArray:
    found = pc.is_in(column, value_set=pa.array(list(values), column.type))
    return pc.fill_null(found, fill_value=False)


class OpenSegment:
    """A segment whose content has been read and opened once."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self.file = ChangeFile(storage().get(segment))

    def find(
        self, part: SegmentPart, wanted: ChangeFilter, columns: Sequence[str] = ()
    ) -> tuple[pa.Array, pa.Table]:
        """Places in the file of the part's changes that pass, and their light columns.

        Rows of the row shelf that stand for some of them are not regarded. columns: more of them.
        """
        keys = [f"{s}_key" for s in ("left", "right") if getattr(wanted, f"{s}_keys")]
        names = dict.fromkeys([*_LIGHT, *keys, *columns])
        table = self.resolved(self.file.columns(list(names)), part)
        mask = wanted.mask(table)
        if self.segment.compacted:
            mine = pc.equal(table.column("partition_id"), str(part.partition_id))
            mask = pc.and_(mask, mine)
        places = pc.indices_nonzero(mask.combine_chunks())
        return places, table.take(places)

    def shown(
        self, part: SegmentPart, wanted: ChangeFilter, columns: Sequence[str] = ()
    ) -> tuple[pa.Array, pa.Table]:
        """The same without those that the row shelf tells."""
        places, table = self.find(part, wanted, columns)
        hidden = set() if self.segment.compacted else overlaid(part)
        if not hidden:
            return places, table
        told = pc.is_in(table.column("sequence"), value_set=pa.array(hidden, pa.int64()))
        rows = pc.invert(told).combine_chunks()
        return places.filter(rows), table.filter(rows)

    def resolved(self, table: pa.Table, part: SegmentPart) -> pa.Table:
        """The same rows with the ids and outcomes that the part gives them."""
        if not self.segment.compacted:
            ids = pc.add(table.column("id"), pa.scalar(part.first_id, pa.int64()))
            table = table.set_column(table.column_names.index("id"), "id", ids)
        settled = pc.less_equal(table.column("sequence"), part.settled_through)
        outcome = pc.coalesce(table.column("outcome"), pc.if_else(settled, APPLIED, PLANNED))
        return table.set_column(table.column_names.index("outcome"), "outcome", outcome)

    def light(self, keys: Sequence[str]) -> pa.Table:
        """Key columns, and what `linked` judges by, of all rows."""
        return self.file.columns([*keys, *_JUDGED])

    def linked(self, table: pa.Table, parts: Sequence[SegmentPart]) -> pa.Array:
        """Which rows (of `light`) are links: inserts that were applied.

        parts: all of the segment; none where its changes are forgotten and its links kept.
        """
        mask = pc.equal(table.column("operation"), Operation.INSERT.value)
        outcome = table.column("outcome")
        if outcome.null_count < table.num_rows:
            mask = pc.and_(mask, pc.fill_null(pc.equal(outcome, APPLIED), fill_value=True))
        if any(part.settled_through < part.last_sequence for part in parts):
            settled = pc.is_valid(outcome)
            for part in parts:
                mine = pc.equal(table.column("partition_id"), str(part.partition_id))
                through = pc.less_equal(table.column("sequence"), part.settled_through)
                settled = pc.or_(settled, pc.and_(mine, through))
            mask = pc.and_(mask, settled)
        return mask

    def changes(self, part: SegmentPart, places: Sequence[int]) -> list[Change]:
        """The changes at these places."""
        table = self.resolved(self.file.take(places), part)
        sets = FieldSet.objects.in_bulk(set(table.column("field_set").to_pylist()))
        return [
            _change(row, self.segment.rule_id, part, sets[row["field_set"]])
            for row in table.to_pylist()
        ]


def _change(row: dict[str, Any], rule_id: UUID, part: SegmentPart, fields: FieldSet) -> Change:
    """An instance with all its columns in their order: by name, each would cost ten times that."""
    settled_at = row["settled_at"] or (part.settled_at if row["outcome"] == APPLIED else None)
    change = Change(
        row["id"],
        UUID(row["run_id"]),
        UUID(row["partition_id"]),
        rule_id,
        row["sequence"],
        row["side"],
        row["operation"],
        row["cause"],
        row["left_key"] or "",
        row["right_key"] or "",
        row["key_after"] or "",
        None,  # hashes of both keys
        None,
        fields.pk,
        None,  # sealed images and base
        None,
        row["image"] or "",
        row["outcome"],
        row["code"] or "",
        None,  # sealed message
        row["planned_at"],
        settled_at,
    )
    change._state.fields_cache["field_set"] = fields
    texts = (row[n] or "" for n in ("before", "after", "base_left", "base_right", "message"))
    change.opened = Opened(*texts)
    change._state.adding = False
    return change


def overlaid(part: SegmentPart) -> set[int]:
    """Sequences of the part whose row on the row shelf tells more: refused, stored otherwise."""
    rows = Change.objects.filter(
        partition_id=part.partition_id,
        sequence__gte=part.first_sequence,
        sequence__lte=part.last_sequence,
    )
    return set(rows.values_list("sequence", flat=True))


def part_changes(
    part: SegmentPart,
    wanted: ChangeFilter,
    *,
    after_id: int | None = None,
    limit: int,
    newest_first: bool = False,
) -> list[Change]:
    """Changes of a part that pass, by id, without those that the row shelf tells."""
    if not wanted.may_hold(part.counts):
        return []
    opened = OpenSegment(part.segment)
    chosen, table = opened.shown(part, wanted)  # in the order of their ids
    if after_id is not None:
        chosen = chosen.filter(pc.greater(table.column("id"), after_id).combine_chunks())
    page = chosen[-limit:][::-1] if newest_first else chosen[:limit]
    return opened.changes(part, page.to_pylist())


def part_backwards(part: SegmentPart, wanted: ChangeFilter) -> Iterator[Change]:
    """All changes of a part that pass, the newest first, opened once."""
    if not wanted.may_hold(part.counts):
        return
    opened = OpenSegment(part.segment)
    places = opened.shown(part, wanted)[0].to_pylist()
    for end in range(len(places), 0, -GROUP_ROWS):
        yield from opened.changes(part, places[max(end - GROUP_ROWS, 0) : end][::-1])


def part_keys(part: SegmentPart, wanted: ChangeFilter) -> Iterator[Keys]:
    """Side and keys of all changes of a part that pass, without opening their images."""
    if wanted.may_hold(part.counts):
        table = OpenSegment(part.segment).shown(part, wanted, KEYS)[1].select(KEYS)
        for keys in zip(*(column.to_pylist() for column in table.columns), strict=True):
            yield tuple(key or "" for key in keys)


def part_counts(part: SegmentPart) -> Iterator[tuple[tuple[str, ...], int]]:
    """Number of the part's changes by side, operation, cause, outcome; overlaid ones included."""
    settled, unsettled = part.settled_through >= part.last_sequence, not part.settled_through
    if settled or unsettled or all(name[-1] != " " for name in part.counts):
        for name, number in part.counts.items():
            side, operation, cause, outcome = name.split(" ")
            yield (side, operation, cause, outcome or (APPLIED if settled else PLANNED)), number
        return
    _, table = OpenSegment(part.segment).find(part, ChangeFilter())
    groups = table.group_by(list(COUNTED), use_threads=False)
    for row in groups.aggregate([([], "count_all")]).to_pylist():
        yield tuple(row[name] for name in COUNTED), row["count_all"]
