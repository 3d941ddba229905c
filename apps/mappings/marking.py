"""Fields with a mark, and those that their values flow from or to through a mapping.

What is true of a field because of its values (they are personal; people search by them) is true of
the fields of the other side that hold the same values.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from uuid import UUID

from apps.connectors.errors import ExpressionRefused
from apps.engine.expressions import names_read
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


Place = tuple[str, str]
"""A side and the name of a field of it."""


def flowing(left: UUID, right: UUID, rows: Iterable[Any], marked: Names) -> Sides:
    """The marked fields of a mapping between two datasets, and those that share their values.

    rows: its field mappings (`left`, `right`, `to_right`, `to_left`). First, over any number of
    steps, all whose values flow into a marked field; then all that these flow into.
    """
    chosen = list(rows)
    names = {"left": set(marked.get(left, ())), "right": set(marked.get(right, ()))}
    start = {(side, name) for side, known in names.items() for name in known}
    if not start:
        return Sides()
    for row in chosen:
        names["left"].add(row.left)
        names["right"].add(row.right)
    flows = {flow for row in chosen for flow in _flows(row, names)}
    origins = _reached(start, {(target, source) for source, target in flows})
    found = _reached(origins, flows)
    return Sides(*(frozenset(name for at, name in found if at == side) for side in names))


def _flows(row: Any, names: Mapping[str, Collection[str]]) -> Iterator[tuple[Place, Place]]:
    """From where to where a field mapping carries values. names: of known fields, by side.

    Without an expression the value is copied, in two-way rules in both directions.
    """
    target = ("right", row.right)
    for name in _names_in(row.to_right, names["left"]) if row.to_right else {row.left} - {""}:
        yield ("left", name), target
    if not row.left:
        return
    back = {row.right} if not row.to_right else set()
    for name in _names_in(row.to_left, names["right"]) if row.to_left else back:
        yield ("right", name), ("left", row.left)


def mapped_fields(mappings: Iterable[MappingRow]) -> Names:
    """The fields that these stored mappings read or write, by dataset."""
    chosen = {mapping.pk: mapping for mapping in mappings}
    found: dict[UUID, set[str]] = {}
    for row in FieldMapping.objects.filter(mapping__in=list(chosen)):
        mapping = chosen[row.mapping_id]
        found.setdefault(mapping.left_id, set()).update({row.left}, _words(row.to_right))
        found.setdefault(mapping.right_id, set()).update({row.right}, _words(row.to_left))
    return {dataset: frozenset(names) for dataset, names in found.items()}


def _reached(start: set[Place], flows: Iterable[tuple[Place, Place]]) -> set[Place]:
    """Where one comes to from these places, over any number of steps."""
    onward: dict[Place, list[Place]] = {}
    for source, target in flows:
        onward.setdefault(source, []).append(target)
    found, waiting = set(start), list(start)
    while waiting:
        for target in onward.get(waiting.pop(), ()):
            if target not in found:
                found.add(target)
                waiting.append(target)
    return found


def _names_in(expression: str, known: Iterable[str]) -> set[str]:
    """The fields that an expression reads; known ones also where it writes them in other case."""
    words = _words(expression)
    folded = {word.casefold() for word in words}
    return {*words, *(name for name in known if name.casefold() in folded)} - {""}


@lru_cache(maxsize=4096)
def _words(expression: str) -> frozenset[str]:
    """The names that an expression reads; of one that is refused, all that may be names."""
    try:
        return names_read(expression)
    except ExpressionRefused:
        quoted = re.findall(r'"([^"]+)"', expression)
        return frozenset([*quoted, *re.findall(r"\w+", expression)])


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
