"""Which fields can be a cursor."""

from __future__ import annotations

from apps.connectors.errors import ConfigurationError
from apps.connectors.types import Kind
from apps.engine.spec import DatasetSpec, Delta, MappingSpec, RuleSpec

GROWING = frozenset(
    {Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT, Kind.DATE, Kind.TIMESTAMP, Kind.TIMESTAMPTZ}
)
"""Kinds that all platforms order alike; of texts, 10 comes before 9, or depends on a collation."""


def require_cursors(mapping: MappingSpec, rule: RuleSpec) -> None:
    """Raises ConfigurationError for a cursor whose values cannot say what came later."""
    if rule.delta is not Delta.CURSOR:
        return
    _require_growing(mapping.left, rule.cursor_field, "cursor field")
    if rule.two_way is not None:
        _require_growing(mapping.right, rule.two_way.right_cursor_field, "right cursor field")


def _require_growing(dataset: DatasetSpec, name: str, where: str) -> None:
    found = {field.name: field.neutral_type for field in dataset.fields}.get(name)
    if found is not None and found.kind not in GROWING:
        raise ConfigurationError(
            f"'{name}' is of type {found}, and a cursor is a timestamp, a date or a number",
            where=where,
            remedy="Choose another field, or let the rule compare everything.",
        )
