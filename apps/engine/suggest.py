"""Proposals for people to confirm: which fields correspond, and what a new target looks like.

Pairs are found in three passes, each one-to-one and greedy by score: equal names, names equal
but for case and separators, near names (difflib's ratio). Types that do not go together weigh
against a pair; near names with such types are not proposed at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.types import Kind, NeutralType

NEAR = 0.72
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+|[^\W\dA-Za-z_]+")
_NUMBERS = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, Kind.BOOLEAN})
_TIMES = frozenset({Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ})


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A pair of fields that probably correspond; score 0..1."""

    left: str
    right: str
    score: float
    reason: str


def suggest_pairs(left: DatasetSchema, right: DatasetSchema) -> list[Suggestion]:
    """At most one suggestion per field of either side, in the order of the right fields."""
    scored = [
        suggestion
        for one in left.fields
        for other in right.fields
        if not other.generated and (suggestion := _score(one, other)) is not None
    ]
    chosen: dict[str, Suggestion] = {}
    taken: set[str] = set()
    for suggestion in sorted(scored, key=lambda s: -s.score):
        if suggestion.right not in chosen and suggestion.left not in taken:
            chosen[suggestion.right] = suggestion
            taken.add(suggestion.left)
    return [chosen[name] for name in right.field_names if name in chosen]


def _score(left: FieldSchema, right: FieldSchema) -> Suggestion | None:
    compatible = compatible_types(left.type, right.type)
    penalty = 0.0 if compatible else 0.2
    suffix = "" if compatible else f", but {left.type} is not {right.type}"
    if left.name == right.name:
        return Suggestion(left.name, right.name, 1.0 - penalty, f"same name{suffix}")
    one, other = snake_case(left.name), snake_case(right.name)
    if one.replace("_", "") == other.replace("_", ""):
        return Suggestion(left.name, right.name, 0.95 - penalty, f"same words{suffix}")
    ratio = SequenceMatcher(None, one, other).ratio()
    if compatible and ratio >= NEAR:
        return Suggestion(left.name, right.name, round(ratio * 0.9, 3), "similar name")
    return None


def compatible_types(left: NeutralType, right: NeutralType) -> bool:
    """Whether values of `left` usually convert to `right` without an expression."""
    if left.kind is right.kind or right.kind is Kind.TEXT or left.kind is Kind.TEXT:
        return True
    pair = {left.kind, right.kind}
    return pair <= _NUMBERS or pair <= _TIMES


def snake_case(name: str) -> str:
    """`MediaTypeId` -> `media_type_id`; what has no letters of either case stays."""
    words = _WORD.findall(name)
    return "_".join(word.lower() for word in words) or name.lower()


def camel_case(name: str) -> str:
    """`media_type_id` -> `mediaTypeId`."""
    first, *rest = snake_case(name).split("_")
    return first + "".join(word.capitalize() for word in rest)


_NAMINGS: dict[str, Callable[[str], str]] = {
    "same": str,
    "snake_case": snake_case,
    "camelCase": camel_case,
}


def propose_right(left: DatasetSchema, name: str, naming: str = "same") -> DatasetSchema:
    """The shape of a new target for `left`. Raises ValueError for an unknown naming."""
    if naming not in _NAMINGS:
        raise ValueError(f"naming '{naming}' is none of {', '.join(_NAMINGS)}")
    rename = _NAMINGS[naming]
    fields = tuple(
        replace(
            field,
            name=rename(field.name),
            native_type="",
            has_default=False,
            server_assigned=False,
            generated=False,
        )
        for field in left.fields
    )
    return DatasetSchema(name=name, fields=fields, key=tuple(rename(part) for part in left.key))
