"""One conflict as people look at it: field by field, last agreed, left and right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.ledger.admin.differing import Segment, segments
from apps.ledger.models import Conflict, EarlierValues, Image

MOST_EARLIER = 50
Chosen = Mapping[str, str]
"""What somebody chose for each open field: `left`, `right` or `own`."""


@dataclass(frozen=True, slots=True)
class Value:
    """What a side holds. `absent`: it has no such field, or no record; text None: NULL."""

    text: str | None
    absent: bool
    segments: list[Segment]


@dataclass(frozen=True, slots=True)
class Line:
    """One field. `bases`: what both had agreed on, one value or one for each side."""

    number: int
    name: str
    bases: list[Value]
    left: Value
    right: Value
    chosen: str
    own: str
    own_is_null: bool
    error: str


@dataclass(frozen=True, slots=True)
class ThreeWay:
    """open: the fields that a person decides; others: the rest of the record."""

    open: list[Line]
    others: list[Line]
    has_left: bool
    has_right: bool
    has_base: bool

    @property
    def differing_others(self) -> list[Line]:
        return [line for line in self.others if _differs(line)]


def _differs(line: Line) -> bool:
    return (line.left.text, line.left.absent) != (line.right.text, line.right.absent)


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a person had chosen or typed, kept while the page is shown again."""

    chosen: Mapping[str, str]
    own: Mapping[str, str | None]
    errors: Mapping[str, str]


NOTHING = Proposal({}, {}, {})


def three_way(conflict: Conflict, proposal: Proposal = NOTHING) -> ThreeWay:
    """The record, its open fields first."""
    left, right, base = conflict.left, conflict.right, conflict.base
    base_left, base_right = base or (None, None)
    images = [image for image in (left, right, base_left, base_right) if image]
    names = list(dict.fromkeys(name for image in images for name in image))
    wanted = conflict.field_names
    lines = {
        name: _line(number, name, (left, right, base_left, base_right), proposal)
        for number, name in enumerate([*wanted, *(n for n in names if n not in wanted)])
    }
    return ThreeWay(
        open=[lines[name] for name in wanted],
        others=[line for name, line in lines.items() if name not in wanted],
        has_left=left is not None,
        has_right=right is not None,
        has_base=base is not None,
    )


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the sides held at an earlier meeting, in the fields that are otherwise now."""

    values: EarlierValues
    lines: list[Line]


def earlier_values(conflict: Conflict) -> list[Earlier]:
    """Values that the sides themselves have replaced since a run met them, newest first."""
    present = (conflict.left, conflict.right)
    return [
        Earlier(values, _replaced((values.left, values.right), present))
        for values in conflict.earlier.all()[:MOST_EARLIER]
    ]


def _replaced(then: tuple[Image | None, ...], present: tuple[Image | None, ...]) -> list[Line]:
    names = list(dict.fromkeys(name for image in then if image for name in image))
    left, right = then
    return [
        _line(number, name, (left, right, *present), NOTHING)
        for number, name in enumerate(names)
        if any(_text(a, name) != _text(b, name) for a, b in zip(then, present, strict=True))
    ]


def _line(number: int, name: str, images: Sequence[Image | None], proposal: Proposal) -> Line:
    left, right, base_left, base_right = (_text(image, name) for image in images)
    here = [image is not None and name in image for image in images]
    own = proposal.own.get(name, "")
    return Line(
        number=number,
        name=name,
        bases=_bases((base_left, here[2]), (base_right, here[3])),
        left=_value(left, here[0], base_left if here[2] else right),
        right=_value(right, here[1], base_right if here[3] else left),
        chosen=proposal.chosen.get(name, ""),
        own=own or "",
        own_is_null=own is None,
        error=proposal.errors.get(name, ""),
    )


def _text(image: Image | None, name: str) -> str | None:
    return image.get(name) if image else None


def _value(text: str | None, is_there: bool, other: str | None) -> Value:
    return Value(text, not is_there, segments(text, other))


def _bases(left: tuple[str | None, bool], right: tuple[str | None, bool]) -> list[Value]:
    known = [text for text, is_there in dict.fromkeys((left, right)) if is_there]
    return [Value(text, False, segments(text, text)) for text in known]
