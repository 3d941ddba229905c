"""What a mapping says about the way back and about matching, judged without running it."""

from __future__ import annotations

from apps.connectors.errors import ConfigurationError, FieldMissing, KeyMissing
from apps.connectors.types import Kind
from apps.engine.reconcile.programs import is_derived
from apps.engine.spec import FieldMappingSpec, MappingSpec


def left_target(field: FieldMappingSpec) -> str:
    """The left field that an edit of this right field is written to; empty for a derived field.

    A derived field flows left to right only: it is a constant, or an expression without its
    expression back.
    """
    return "" if is_derived(field) else field.left


def derived_fields(mapping: MappingSpec) -> list[str]:
    """Right fields whose edits never reach the left."""
    return [field.right for field in mapping.fields if not left_target(field)]


def require_mapping(mapping: MappingSpec) -> None:
    """Judge expressions back, the key and match fields. Raises ConfigurationError, FieldMissing
    or KeyMissing; `where` names the field.
    """
    for field in mapping.fields:
        if field.to_left and not field.left:
            raise ConfigurationError(
                "the expression back has no left field to give its value to",
                where=f"field '{field.right}'",
                remedy="Name the left field that gets the value on the way back.",
            )
        if field.to_left:
            _require_field(mapping, field.left, f"field '{field.right}', back")
    _require_key(mapping)
    require_match(mapping)


def _require_field(mapping: MappingSpec, name: str, where: str) -> None:
    if name not in {field.name for field in mapping.left.fields}:
        raise FieldMissing(f"'{mapping.left.name}' has no field '{name}'", where=where)


def _require_key(mapping: MappingSpec) -> None:
    """A key field that no record brings along must come from the right side itself."""
    mapped = {field.right for field in mapping.fields}
    known = {field.name: field for field in mapping.right.fields}
    for name in mapping.key:
        if name in mapped:
            continue
        if name not in known:
            raise FieldMissing(f"'{mapping.right.name}' has no field '{name}'", where="key")
        if not (known[name].server_assigned or known[name].has_default):
            raise KeyMissing(
                f"the key field '{name}' is not mapped, and '{mapping.right.name}' does not "
                "assign it",
                where=f"key field '{name}'",
                remedy="Map it, or choose a key that the right side assigns on insert.",
            )


def require_match(mapping: MappingSpec) -> None:
    """Match fields must be able to find something. Raises ConfigurationError or FieldMissing."""
    types = {field.name: field.neutral_type for field in mapping.right.fields}
    mapped = {field.right for field in mapping.fields}
    seen: set[str] = set()
    for item in mapping.match:
        where = f"match field '{item.field}'"
        if item.field not in types:
            raise FieldMissing(f"'{mapping.right.name}' has no field '{item.field}'", where=where)
        if item.field not in mapped:
            raise ConfigurationError(
                "it is not mapped, so that left records have no value to be found by", where=where
            )
        if item.field in seen:
            raise ConfigurationError("it is listed twice", where=where)
        seen.add(item.field)
        kind = types[item.field].kind
        if kind in (Kind.JSON, Kind.ARRAY):
            raise ConfigurationError(
                f"a value of type {types[item.field]} finds no record", where=where
            )
        if item.normalise and kind is not Kind.TEXT:
            raise ConfigurationError(
                f"only texts are evened out, and it is of type {types[item.field]}", where=where
            )


def mapping_notes(mapping: MappingSpec) -> list[str]:
    """What is no mistake but worth knowing, as sentences."""
    mapped = {field.right for field in mapping.fields}
    assigned = [name for name in mapping.key if name not in mapped]
    if assigned and not mapping.match:
        return [
            f"{mapping.right.name} assigns {', '.join(assigned)} itself, and no match field is "
            "chosen: every left record that is not linked yet is new to the right."
        ]
    return []
