"""Which fields people probably search records by; they can say otherwise for each field."""

from __future__ import annotations

from apps.connectors.base import FieldSchema
from apps.connectors.types import Kind
from apps.engine.suggest import snake_case

_NAMES = frozenset({
    "company", "email", "firstname", "fullname", "lastname", "mail", "mobile", "name", "phone",
    "surname", "telephone",
})  # fmt: skip


def looks_searchable(field: FieldSchema) -> bool:
    """Whether a field holds texts, and its name says that these are names, mail or numbers."""
    return field.type.kind is Kind.TEXT and not _NAMES.isdisjoint(snake_case(field.name).split("_"))
