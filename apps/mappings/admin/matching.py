"""Match fields as lines of a form: a right field, and what is evened out before values meet.

Input names are `match-<line>-field` and `match-<line>-<normalisation>`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apps.engine.spec import MatchFieldSpec, Normalisation

PREFIX = "match"
MOST_MATCH_FIELDS = 6
WORDS = {
    Normalisation.TRIM: "blanks",
    Normalisation.CASE: "upper and lower case",
    Normalisation.ACCENTS: "accents",
    Normalisation.UNICODE: "Unicode forms",
    Normalisation.PHONE: "phone number",
    Normalisation.EMAIL: "e-mail address",
}


@dataclass(frozen=True, slots=True)
class MatchLine:
    """One line; `choices` are (name of the input, words, chosen). left: the partner, if known."""

    number: int
    field: str
    left: str
    choices: tuple[tuple[str, str, bool], ...]


def match_lines(
    match: Sequence[MatchFieldSpec], partners: Mapping[str, str] | None = None
) -> list[MatchLine]:
    """The match fields as lines, and two empty ones. partners: left field by right field."""
    known: list[MatchFieldSpec | None] = [*match, None, None]
    return [
        _line(number, spec, partners or {}) for number, spec in enumerate(known[:MOST_MATCH_FIELDS])
    ]


def _line(number: int, spec: MatchFieldSpec | None, partners: Mapping[str, str]) -> MatchLine:
    chosen = spec.normalise if spec else ()
    choices = tuple(
        (f"{PREFIX}-{number}-{how.value}", words, how in chosen) for how, words in WORDS.items()
    )
    name = spec.field if spec else ""
    return MatchLine(number, name, partners.get(name, ""), choices)


def posted_match(data: Mapping[str, Any], fields: Collection[str]) -> tuple[MatchFieldSpec, ...]:
    """The match fields as they were chosen; empty lines and unknown fields are none."""
    found = []
    for number in range(MOST_MATCH_FIELDS):
        name = str(data.get(f"{PREFIX}-{number}-field", ""))
        if name in fields:
            how = tuple(each for each in WORDS if data.get(f"{PREFIX}-{number}-{each.value}"))
            found.append(MatchFieldSpec(field=name, normalise=how))
    return tuple(found)
