"""Proposals for people to confirm: which fields correspond, and what a new target looks like.

Pairs are found in three passes, each one-to-one and greedy by score: equal names, names equal
but for case and separators, near names (difflib's ratio). Types that do not go together weigh
against a pair; near names with such types are not proposed at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import SequenceMatcher

from apps.connectors.base import DatasetSchema, FieldSchema
from apps.connectors.types import Kind, NeutralType

NEAR = 0.72
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
    return "_".join(word.lower() for word in _words(name)) or name.lower()


def _words(name: str) -> list[str]:
    """Words of a name: they begin at a capital, at digits and after what is neither.

    Of several capitals in a row the last begins a word when small letters follow: HTTPServer.
    """
    words: list[str] = []
    previous = " "
    for place, character in enumerate(name):
        following = name[place + 1 : place + 2]
        if not character.isalnum():
            previous = character
            continue
        begins = (
            not previous.isalnum()
            or character.isnumeric() != previous.isnumeric()
            or (character.isupper() and (not previous.isupper() or following.islower()))
        )
        if begins:
            words.append(character)
        else:
            words[-1] += character
        previous = character
    return words


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
    names = _unique([_NAMINGS[naming](field.name) for field in left.fields])
    renamed = dict(zip(left.field_names, names, strict=True))
    fields = tuple(
        replace(
            field,
            name=renamed[field.name],
            native_type="",
            has_default=False,
            server_assigned=False,
            generated=False,
        )
        for field in left.fields
    )
    return DatasetSchema(name=name, fields=fields, key=tuple(renamed[part] for part in left.key))


def _unique(names: list[str]) -> list[str]:
    """The names, with a number added where one would come twice."""
    taken: set[str] = set()
    for place, name in enumerate(names):
        number = 2
        while names[place] in taken:
            names[place] = f"{name}_{number}"
            number += 1
        taken.add(names[place])
    return names
