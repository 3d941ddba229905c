"""A record's life as people read it: versions, how it was at a moment, what two versions differ in.

What both sides held is put together from the changes, oldest first: a two-way change says what both
sides hold afterwards (in the fields of the right side, see decision 3), a one-way change what was
written to the right. What Lockstep never saw is not known, and not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import orjson

from apps.core.protected import ProtectedValueError
from apps.ledger.admin.differing import Segment, segments
from apps.ledger.admin.sides import SideNames, side_names
from apps.ledger.models import Change, Image, Operation, Side
from apps.ledger.selectors.record_family import Family
from apps.rules.models import Rule
from apps.runs.admin.changes import FieldDiff, field_diffs
from apps.runs.models import Run


@dataclass(frozen=True, slots=True)
class Version:
    """One change in a record's life. lost: its old values gave way to an edit of the other side."""

    change: Change
    rule: Rule
    run: Run | None
    names: SideNames
    fields: list[FieldDiff]

    @property
    def at(self) -> datetime:
        return self.change.settled_at or self.change.planned_at

    @property
    def system(self) -> str:
        return self.names.of(self.change.side)

    @property
    def lost(self) -> bool:
        return self.change.cause == Change.Cause.OVERRULED

    @property
    def is_applied(self) -> bool:
        return self.change.outcome == Change.Outcome.APPLIED

    @property
    def who(self) -> str:
        if self.run is None:
            return "a run that is no longer kept"
        asked = self.run.requested_by
        trigger = str(self.run.get_trigger_display())
        return f"{trigger}, by {asked}" if asked else trigger


def versions(family: Family, life: Sequence[Change], runs: Mapping[UUID, Run]) -> list[Version]:
    """The changes with what people want to know of them, in the order given."""
    by_rule = {member.rule.pk: member.rule for member in family.memberships}
    named = {pk: side_names(rule) for pk, rule in by_rule.items()}
    return [
        Version(
            change,
            by_rule[change.rule_id],
            runs.get(change.run_id),
            named[change.rule_id],
            field_diffs(change),
        )
        for change in life
    ]


@dataclass(slots=True)
class Known:
    """What is known of both sides; None: there is no record, `is_known_…` false: nobody knows."""

    left: Image | None = None
    right: Image | None = None
    knows_left: bool = False
    knows_right: bool = False

    def copy(self) -> Known:
        return Known(
            dict(self.left) if self.left is not None else None,
            dict(self.right) if self.right is not None else None,
            self.knows_left,
            self.knows_right,
        )


def states(life: Sequence[Change]) -> dict[int, Known]:
    """What was known of both sides after each applied change of one rule, by the change's id.

    life: newest first, as `record_life` gives it.
    """
    known = Known()
    found: dict[int, Known] = {}
    for change in reversed(life):
        if change.outcome != Change.Outcome.APPLIED:
            continue
        try:
            _apply(known, change)
        except ProtectedValueError:
            continue
        found[change.pk] = known.copy()
    return found


def _apply(known: Known, change: Change) -> None:
    base_left, base_right = (_patch(text) for text in change.base())
    before, after = change.images()
    is_delete = change.operation == Operation.DELETE
    if change.side == Side.RIGHT:
        _set(known, "right", before, after, is_delete=is_delete)
        if base_left is not None:
            _set(known, "left", None, base_left, is_delete=False)
        return
    if base_right is not None:
        _set(known, "right", None, base_right, is_delete=False)
    _set(known, "left", None, base_left, is_delete=is_delete)


def _patch(text: str) -> Image | None:
    patch: Image | None = orjson.loads(text) if text else None
    return patch


def _set(
    known: Known, side: str, before: Image | None, after: Image | None, *, is_delete: bool
) -> None:
    if is_delete:
        setattr(known, side, None)
    elif after is not None:
        current = getattr(known, side)
        setattr(known, side, {**(before or {}), **(current or {}), **after})
    else:
        return
    setattr(known, f"knows_{side}", True)


@dataclass(frozen=True, slots=True)
class Cell:
    """A value in a comparison: unknown, absent (no record), or a text in pieces (None: NULL)."""

    text: str | None = None
    absent: bool = False
    unknown: bool = False
    segments: list[Segment] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    cells: list[Cell]

    @property
    def differs(self) -> bool:
        return len({(c.text, c.absent, c.unknown) for c in self.cells}) > 1


def as_of(life: Sequence[Change], moment: datetime) -> tuple[Change | None, Known]:
    """The last applied change of one rule until this moment, and what was known then."""
    found = states(life)
    until = [c for c in life if c.pk in found and (c.settled_at or c.planned_at) <= moment]
    return (until[0], found[until[0].pk]) if until else (None, Known())


def both_sides(known: Known) -> list[Row]:
    """Left and right beside each other, field by field."""
    return _rows([(known.left, known.knows_left), (known.right, known.knows_right)])


def compared(first: Known, second: Known, side: str) -> list[Row]:
    """One side at two moments, field by field."""
    return _rows([(getattr(k, side), getattr(k, f"knows_{side}")) for k in (first, second)])


def _rows(images: Sequence[tuple[Image | None, bool]]) -> list[Row]:
    names = list(dict.fromkeys(name for image, _ in images if image for name in image))
    return [
        Row(name, [_cell(place, name, images) for place in range(len(images))]) for name in names
    ]


def _cell(place: int, name: str, images: Sequence[tuple[Image | None, bool]]) -> Cell:
    image, is_known = images[place]
    if not is_known or (image is not None and name not in image):
        return Cell(unknown=True)
    if image is None:
        return Cell(absent=True)
    others = [other for at, (other, _) in enumerate(images) if at != place and other]
    other = others[0].get(name) if others else None
    return Cell(image[name], segments=segments(image[name], other))
