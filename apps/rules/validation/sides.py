"""What a two-way rule needs of its datasets, its connectors and its mapping."""

from __future__ import annotations

from apps.connectors.base import Capabilities
from apps.connectors.errors import ConfigurationError, FieldMissing, KeyMissing
from apps.connectors.registry import connector_class
from apps.engine.reconcile import backward_mapping
from apps.engine.spec import (
    DeletePolicy,
    EditDelete,
    FieldSpec,
    LeavePolicy,
    MappingSpec,
    RuleSpec,
    TwoWaySpec,
)
from apps.engine.transform import canonical_value
from apps.mappings.validation import derived_fields, left_target, mapping_notes
from apps.rules.models import Rule
from apps.sources.models import Dataset

_DELETING = frozenset({DeletePolicy.PROPAGATE, DeletePolicy.APPROVE})


def require_sides(rule: Rule, mapping: MappingSpec, spec: RuleSpec) -> None:
    """Judge the two sides of a rule. Raises ConfigurationError, FieldMissing or KeyMissing.

    mapping, spec: what rule and mapping say.
    """
    two_way = spec.two_way
    if two_way is None:
        _require_key_alone(mapping)
        return
    if not mapping.left.key:
        raise KeyMissing(
            f"the key of {rule.mapping.left} is not known",
            where="direction",
            remedy="Choose the fields that identify its records on the dataset's page.",
        )
    left = _require_writable(rule.mapping.left)
    right = _require_writable(rule.mapping.right)
    _require_deletes(two_way.on_right_delete, left, rule.mapping.left, "when a right record")
    _require_deletes(spec.on_delete, right, rule.mapping.right, "when a left record")
    _require_way_back(rule.mapping.left, mapping)
    _require_left_mark(mapping, two_way)
    if two_way.right_cursor_field:
        _right_field(mapping, two_way.right_cursor_field)


def _require_key_alone(mapping: MappingSpec) -> None:
    """One-way plans find right records by links and by the key, which every record brings."""
    mapped = {field.right for field in mapping.fields}
    assigned = [name for name in mapping.key if name not in mapped]
    if assigned:
        raise KeyMissing(
            f"the key field '{assigned[0]}' is not mapped, and a rule from left to right needs it",
            where="key",
            remedy="Map it, choose another key, or let the rule run both ways.",
        )
    if mapping.match:
        raise ConfigurationError(
            "the mapping has match fields, and a rule from left to right finds records by the key",
            where="direction",
            remedy="Take the match fields away, or let the rule run both ways.",
        )


def _require_writable(dataset: Dataset) -> Capabilities:
    capabilities = connector_class(dataset.source.connector).capabilities
    if not (dataset.writable and capabilities.write):
        raise ConfigurationError(
            f"{dataset} cannot be written to, and a two-way rule writes to both sides",
            where="direction",
            remedy="Let the rule run left to right, or choose a dataset that can be written.",
        )
    return capabilities


def _require_deletes(
    policy: DeletePolicy, capabilities: Capabilities, dataset: Dataset, where: str
) -> None:
    if policy in _DELETING and not capabilities.delete:
        raise ConfigurationError(
            f"{dataset.source.connector} sources delete no records, {dataset} among them",
            where=f"{where} is deleted",
            remedy="Choose to mark or to leave the record.",
        )


def _require_way_back(left: Dataset, mapping: MappingSpec) -> None:
    """Each left field that gets a value back can take it, from one right field only."""
    backward_mapping(mapping)
    generated = {field.name for field in left.fields.all() if field.generated}
    for field in mapping.fields:
        if left_target(field) in generated:
            raise ConfigurationError(
                f"the left field '{field.left}' is computed by its source and takes no value back",
                where=f"field '{field.right}'",
                remedy="Map it with an expression without a way back: the field is then derived.",
            )


def _require_left_mark(mapping: MappingSpec, two_way: TwoWaySpec) -> None:
    if two_way.on_right_delete is not DeletePolicy.MARK:
        return
    name, where = two_way.left_mark_field, "left mark field"
    known = {field.name: field for field in mapping.left.fields}
    if name not in known:
        raise FieldMissing(f"'{mapping.left.name}' has no field '{name}'", where=where)
    if name in mapping.left.key:
        raise ConfigurationError("a key field cannot be the mark", where=where)
    canonical_value(two_way.left_mark_value, known[name].neutral_type, where=where)


def _right_field(mapping: MappingSpec, name: str) -> FieldSpec:
    try:
        return mapping.right.field(name)
    except KeyError:
        raise FieldMissing(
            f"'{mapping.right.name}' has no field '{name}'", where="right cursor field"
        ) from None


def two_way_notes(mapping: MappingSpec, spec: RuleSpec) -> list[str]:
    """What is no mistake of a rule but worth knowing, as sentences."""
    notes = [*mapping_notes(mapping), *_mark_notes(mapping, spec)]
    if spec.two_way is None:
        return notes
    derived = derived_fields(mapping)
    if derived:
        notes.append(
            f"Derived, from left to right only: {', '.join(derived)}. An edit of these on the "
            "right is overruled, and kept in the ledger."
        )
    idle = [item.field for item in spec.two_way.fields if item.field in derived]
    if idle:
        notes.append(f"Without effect, because the field is derived: the policy of {_list(idle)}.")
    lacking = _left_fields_without_value(mapping)
    if lacking:
        notes.append(
            f"Records that are new on the right cannot be inserted on the left: {_list(lacking)} "
            "must have a value there, and gets none back."
        )
    if spec.two_way.edit_delete is EditDelete.DELETE:
        notes.append("An edit of a record that the other side deleted is given up, and kept.")
    return notes


def _mark_notes(mapping: MappingSpec, spec: RuleSpec) -> list[str]:
    marks = spec.on_delete is DeletePolicy.MARK or spec.on_leave is LeavePolicy.MARK
    if not marks or spec.mark_field in {field.right for field in mapping.fields}:
        return []
    return [
        f"A record that comes back stays marked, because '{spec.mark_field}' is not mapped. Map it "
        "to a constant, the value of records that are not marked, and it goes back to that."
    ]


def _left_fields_without_value(mapping: MappingSpec) -> list[str]:
    given = {left_target(field) for field in mapping.fields}
    return [
        field.name
        for field in mapping.left.fields
        if field.name not in given
        and not (field.has_default or field.server_assigned)
        and (not field.nullable or field.name in mapping.left.key)
    ]


def _list(names: list[str]) -> str:
    return ", ".join(names)
