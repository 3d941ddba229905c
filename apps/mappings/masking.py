"""Which values of a mapping's two sides are personal, and what is shown in their place.

A field is personal by its own class, and by that of the fields which its value comes from or goes
to: a left field that flows into a personal right one is no less personal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from apps.mappings.marking import Names, datasets_of, flowing, marked_sides, personal_fields
from apps.mappings.models import Mapping
from apps.sources.models import Dataset

MASKED = "•••••"
"""Shown in place of a value; NULL stays NULL, because it says that there is no value."""

Image = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Mask:
    """Names of the fields of each side whose values are not shown. everything: of all fields."""

    left: frozenset[str] = field(default_factory=frozenset)
    right: frozenset[str] = field(default_factory=frozenset)
    everything: bool = False

    def names(self, side: str) -> frozenset[str]:
        """The masked fields of `left` or `right`."""
        return self.left if side == "left" else self.right

    @property
    def is_clear(self) -> bool:
        """Whether all is shown."""
        return not (self.left or self.right or self.everything)

    def hides(self, name: str, side: str) -> bool:
        """Whether the values of this field of a side are not shown."""
        return self.everything or name in self.names(side)

    def image(self, image: Image | None, side: str) -> Image | None:
        """The record with its personal values masked. side: whose field names it has."""
        if image is None or self.is_clear:
            return image
        return {name: self.value(value, name, side) for name, value in image.items()}

    def value(self, value: str | None, name: str, side: str) -> str | None:
        """A value, or what is shown in its place."""
        return MASKED if value is not None and self.hides(name, side) else value

    def text(self, text: str, field: str, *images: tuple[Image | None, str]) -> str:
        """A message without the personal values of these records, each with its side.

        field: the one that the message is about. Where that is personal, or not known, whatever
        the message quotes may be such a value as it was made of the record's, and is masked too.
        """
        if self.is_clear or not text:
            return text
        values = {
            value
            for image, side in images
            for name, value in (image or {}).items()
            if value and self.hides(name, side)
        }
        for value in sorted(values, key=len, reverse=True):
            text = text.replace(value, MASKED)
        if not field or self.hides(field, "left") or self.hides(field, "right"):
            return _QUOTED.sub(MASKED, text)
        return text


_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"|\([^()]*\)|\S+@\S+|\b\d[\w.,:-]{3,}")

CLEAR = Mask()
HIDDEN = Mask(everything=True)


def mask_of(left: Dataset, right: Dataset, rows: Iterable[Any], personal: Names) -> Mask:
    """The mask of a mapping between two datasets.

    rows: its field mappings (`left`, `right`, `to_right`, `to_left`); personal: by dataset, the
    names of the fields that have a personal-data class.
    """
    return Mask(*flowing(left.pk, right.pk, rows, personal))


def masks_of(mappings: Iterable[Mapping]) -> dict[UUID, Mask]:
    """The mask of each stored mapping, by its id; three queries for all of them."""
    chosen = list(mappings)
    found = marked_sides(chosen, personal_fields(datasets_of(chosen)))
    return {pk: Mask(*sides) if any(sides) else CLEAR for pk, sides in found.items()}
