"""Fields with a mark, and those that their values flow from or to through a mapping.

What is true of a field because of its values (they are personal; people search by them) is true of
the fields of the other side that hold the same values.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple
from uuid import UUID

from apps.engine.spec import FieldMappingSpec
from apps.mappings.models import FieldMapping, MappingVersion
from apps.mappings.models import Mapping as MappingRow
from apps.sources.models import Field

Names = Mapping[UUID, frozenset[str]]
"""Names of fields by dataset."""


class Sides(NamedTuple):
    """Names of fields of each side of a mapping."""

    left: frozenset[str] = frozenset()
    right: frozenset[str] = frozenset()


def flowing(left: UUID, right: UUID, rows: Iterable[Any], marked: Names) -> Sides:
    """The marked fields of a mapping between two datasets, and those that share their values.

    rows: its field mappings (`left`, `right`, `to_right`, `to_left`).
    """
    lefts = set(marked.get(left, ()))
    rights = set(marked.get(right, ()))
    for row in rows:
        sources = {row.left} if row.left else set(_words(row.to_right))
        if sources & lefts:
            rights.add(row.right)
        elif row.right in rights:
            lefts |= sources
    return Sides(frozenset(lefts - {""}), frozenset(rights))


def _words(expression: str) -> list[str]:
    """What may be fields in an expression: words that are not called."""
    return re.findall(r"\b\w+\b(?!\s*\()", expression or "")


def names_by_dataset(fields: Iterable[Field]) -> Names:
    """The names of these fields by dataset; give it a queryset."""
    found: dict[UUID, set[str]] = {}
    for field in fields:
        found.setdefault(field.dataset_id, set()).add(field.name)
    return {dataset: frozenset(names) for dataset, names in found.items()}


def personal_fields(datasets: Iterable[UUID]) -> Names:
    """The names of the personal fields of each dataset, those that are missing now among them."""
    rows = Field.objects.filter(dataset__in=list(datasets)).exclude(personal_data="")
    return names_by_dataset(rows.only("dataset_id", "name"))


def searchable_fields(datasets: Iterable[UUID]) -> Names:
    """The names of the fields of each dataset by whose values people find records."""
    rows = Field.objects.filter(dataset__in=list(datasets), searchable=True)
    return names_by_dataset(rows.only("dataset_id", "name"))


def datasets_of(mappings: Iterable[MappingRow]) -> list[UUID]:
    """The datasets of both sides of these mappings."""
    return [pk for mapping in mappings for pk in (mapping.left_id, mapping.right_id)]


def marked_sides(mappings: Iterable[MappingRow], marked: Names) -> dict[UUID, Sides]:
    """What is marked in each stored mapping, by its id; two queries for all of them.

    What flowed in an earlier version counts, too: records of that time are still kept.
    """
    chosen = {mapping.pk: mapping for mapping in mappings}
    if not marked:
        return dict.fromkeys(chosen, Sides())
    rows: dict[UUID, list[Any]] = {pk: [] for pk in chosen}
    for row in FieldMapping.objects.filter(mapping__in=list(chosen)):
        rows[row.mapping_id].append(row)
    versions = MappingVersion.objects.filter(mapping__in=list(chosen))
    for pk, fields in versions.values_list("mapping_id", "spec_data__fields"):
        rows[pk] += [FieldMappingSpec.model_validate(data) for data in fields]
    return {
        pk: flowing(mapping.left_id, mapping.right_id, rows[pk], marked)
        for pk, mapping in chosen.items()
    }


def searched_sides(mappings: Iterable[MappingRow]) -> dict[UUID, Sides]:
    """The fields of stored mappings by whose values people find records, by mapping."""
    chosen = list(mappings)
    return marked_sides(chosen, searchable_fields(datasets_of(chosen)))
