"""Reads about mappings; the scoped queryset of each model of this room."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
from django.db.models import QuerySet

from apps.core.selectors import scoped, without_grants
from apps.engine.spec import DatasetSpec, FieldMappingSpec, MappingSpec, MatchFieldSpec
from apps.mappings.models import LookupEntry, LookupTable, Mapping, MappingVersion

LINK_PREFIX = "link:"
_LINK_CALL = re.compile(r"\blink\s*\(\s*'((?:[^']|'')+)'", re.IGNORECASE)


without_grants(LookupTable, LookupEntry)


def mappings(actor: Any, action: str = "view") -> QuerySet[Mapping]:
    return scoped(Mapping.objects.select_related("left__source", "right__source"), actor, action)


def mapping_versions(actor: Any, action: str = "view") -> QuerySet[MappingVersion]:
    return scoped(MappingVersion.objects.select_related("mapping"), actor, action)


def lookup_tables(actor: Any, action: str = "view") -> QuerySet[LookupTable]:
    return scoped(LookupTable.objects.all(), actor, action)


def mapping_spec(mapping: Mapping) -> MappingSpec:
    """What the mapping says now, with both datasets as discovery last saw them."""
    return MappingSpec(
        left=DatasetSpec.of(mapping.left.schema(), mapping.left_id),
        right=DatasetSpec.of(mapping.right.schema(), mapping.right_id),
        key=tuple(mapping.key),
        match=tuple(MatchFieldSpec.model_validate(item) for item in mapping.match),
        fields=tuple(
            FieldMappingSpec(
                right=row.right,
                left=row.left,
                to_right=row.to_right,
                to_left=row.to_left,
                constant=row.constant,
                default=row.default,
            )
            for row in mapping.fields.all()
        ),
    )


def lookup_names() -> set[str]:
    return set(LookupTable.objects.values_list("name", flat=True))


def lookup_values(names: Iterable[str]) -> dict[str, pa.Table]:
    """Lookup tables by name, each with the text columns `key` and `value`."""
    tables: dict[str, pa.Table] = {}
    for name in names:
        rows = list(LookupEntry.objects.filter(table__name=name).values_list("key", "value"))
        tables[name] = pa.table(
            {
                "key": pa.array([key for key, _ in rows], pa.string()),
                "value": pa.array([value for _, value in rows], pa.string()),
            }
        )
    return tables


def linked_rules(*expressions: str) -> set[str]:
    """Names of the rules whose links the expressions look up."""
    return {
        name.replace("''", "'")
        for expression in expressions
        for name in _LINK_CALL.findall(expression)
    }


def mapping_expressions(spec: MappingSpec) -> list[str]:
    return [text for field in spec.fields for text in (field.to_right, field.to_left) if text]
