"""Which values of a mapping's two sides are personal, and what is shown in their place.

A field is personal by its own class, and by that of the fields which its value comes from or goes
to: a left field that flows into a personal right one is no less personal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from apps.engine.spec import FieldMappingSpec
from apps.mappings.models import FieldMapping, MappingVersion
from apps.mappings.models import Mapping as MappingRow
from apps.sources.models import Dataset, Field

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


def mask_of(
    left: Dataset, right: Dataset, rows: Iterable[Any], personal: Mapping[UUID, frozenset[str]]
) -> Mask:
    """The mask of a mapping between two datasets.

    rows: its field mappings (`left`, `right`, `to_right`, `to_left`); personal: by dataset, the
    names of the fields that have a personal-data class.
    """
    lefts = set(personal.get(left.pk, ()))
    rights = set(personal.get(right.pk, ()))
    for row in rows:
        sources = {row.left} if row.left else set(_words(row.to_right))
        if sources & lefts:
            rights.add(row.right)
        elif row.right in rights:
            lefts |= sources
    return Mask(frozenset(lefts - {""}), frozenset(rights))


def _words(expression: str) -> list[str]:
    """What may be fields in an expression: words that are not called."""
    return re.findall(r"\b\w+\b(?!\s*\()", expression or "")


def personal_fields(datasets: Iterable[UUID]) -> dict[UUID, frozenset[str]]:
    """The names of the personal fields of each dataset, those that are missing now among them."""
    found: dict[UUID, set[str]] = {}
    rows = Field.objects.filter(dataset__in=list(datasets)).exclude(personal_data="")
    for dataset, name in rows.values_list("dataset_id", "name"):
        found.setdefault(dataset, set()).add(name)
    return {dataset: frozenset(names) for dataset, names in found.items()}


def masks_of(mappings: Iterable[MappingRow]) -> dict[UUID, Mask]:
    """The mask of each stored mapping, by its id; three queries for all of them.

    What flowed in an earlier version stays masked: records of that time are still shown.
    """
    chosen = {mapping.pk: mapping for mapping in mappings}
    sides = [pk for mapping in chosen.values() for pk in (mapping.left_id, mapping.right_id)]
    personal = personal_fields(sides)
    if not personal:
        return dict.fromkeys(chosen, CLEAR)
    rows: dict[UUID, list[Any]] = {pk: [] for pk in chosen}
    for row in FieldMapping.objects.filter(mapping__in=list(chosen)):
        rows[row.mapping_id].append(row)
    versions = MappingVersion.objects.filter(mapping__in=list(chosen))
    for pk, fields in versions.values_list("mapping_id", "spec_data__fields"):
        rows[pk] += [FieldMappingSpec.model_validate(data) for data in fields]
    return {
        pk: mask_of(mapping.left, mapping.right, rows[pk], personal)
        for pk, mapping in chosen.items()
    }
