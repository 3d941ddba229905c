"""Which conflict policies suit a field, in what words, and whether a rule's policies hold."""

from __future__ import annotations

from apps.connectors.errors import ConfigurationError, FieldMissing
from apps.connectors.types import Kind, NeutralType
from apps.engine.conversion import convert
from apps.engine.expressions import parse_expression
from apps.engine.reconcile.programs import is_derived
from apps.engine.spec import (
    DatasetSpec,
    FieldPolicy,
    FieldPolicySpec,
    MappingSpec,
    RuleSpec,
    TwoWaySpec,
    Winner,
)
from apps.engine.transform import expression_type

FIELD_POLICY_WORDS = {
    FieldPolicy.ASK: "Neither value is written; a person decides in the conflict inbox. The "
    "record's other fields go on.",
    FieldPolicy.LEFT: "The left value is written to the right.",
    FieldPolicy.RIGHT: "The right value is written to the left.",
    FieldPolicy.NEWEST: "The side that was edited last wins, by the two modification times.",
    FieldPolicy.HIGHEST: "The greater of the two values wins.",
    FieldPolicy.LOWEST: "The smaller of the two values wins.",
    FieldPolicy.COUNTER: "Both changes count: 10 became 12 here and 7 there, so it becomes 9.",
    FieldPolicy.SET: "Members that either side added are kept; what one side removed goes, unless "
    "the other side added it again.",
    FieldPolicy.TEXT: "Edits of different lines are merged; edits of the same line ask.",
    FieldPolicy.EXPRESSION: "An expression over left_value, right_value and base_value decides.",
}
NUMBERS = frozenset({Kind.INTEGER, Kind.DECIMAL, Kind.FLOAT})
MOMENTS = frozenset({Kind.TIMESTAMP, Kind.TIMESTAMPTZ})
ORDERED = NUMBERS | MOMENTS | {Kind.BOOLEAN, Kind.TEXT, Kind.DATE, Kind.TIME}
_SUITED = {
    FieldPolicy.COUNTER: NUMBERS,
    FieldPolicy.SET: frozenset({Kind.TEXT, Kind.ARRAY, Kind.JSON}),
    FieldPolicy.HIGHEST: ORDERED,
    FieldPolicy.LOWEST: ORDERED,
    FieldPolicy.TEXT: frozenset({Kind.TEXT}),
}
_NEEDS = {
    FieldPolicy.COUNTER: "a number",
    FieldPolicy.SET: "a text, an array or JSON",
    FieldPolicy.HIGHEST: "a value with an order",
    FieldPolicy.LOWEST: "a value with an order",
    FieldPolicy.TEXT: "a text",
}


def suits(policy: FieldPolicy, neutral: NeutralType) -> bool:
    return policy not in _SUITED or neutral.kind in _SUITED[policy]


def fitting_policies(neutral: NeutralType) -> list[FieldPolicy]:
    """The policies that a field of this type may have, in the order in which they are offered."""
    return [policy for policy in FIELD_POLICY_WORDS if suits(policy, neutral)]


def require_policies(mapping: MappingSpec, rule: RuleSpec) -> None:
    """Judge the conflict policies of a two-way rule against the types of its fields.

    Raises ConfigurationError, FieldMissing or ExpressionRefused; `where` names the field.
    """
    two_way = rule.two_way
    if two_way is None:
        return
    types = {field.name: field.neutral_type for field in mapping.right.fields}
    mapped = {field.right for field in mapping.fields}
    for item in two_way.fields:
        where = f"policy of field '{item.field}'"
        if item.field not in types:
            raise FieldMissing(f"'{mapping.right.name}' has no field '{item.field}'", where=where)
        if item.field not in mapped:
            raise ConfigurationError(
                "the field is not mapped, so that it has no conflicts", where=where
            )
        _require_suited(item.policy, types[item.field], where)
        if item.policy is FieldPolicy.EXPRESSION:
            require_policy_expression(item, types[item.field])
    _require_default_suits(mapping, two_way)
    _require_times(mapping, two_way)


def _require_suited(policy: FieldPolicy, neutral: NeutralType, where: str) -> None:
    if not suits(policy, neutral):
        fitting = ", ".join(fit.value for fit in fitting_policies(neutral))
        raise ConfigurationError(
            f"'{policy.value}' needs {_NEEDS[policy]}, and the field is of type {neutral}",
            where=where,
            remedy=f"Policies that fit: {fitting}.",
        )


def _require_default_suits(mapping: MappingSpec, two_way: TwoWaySpec) -> None:
    """The policy of fields without one of their own must suit each of them."""
    own = {item.field for item in two_way.fields}
    for field in mapping.fields:
        if field.right not in own and not is_derived(field):
            neutral = mapping.right.field(field.right).neutral_type
            _require_suited(two_way.policy, neutral, f"policy of field '{field.right}'")


def require_policy_expression(item: FieldPolicySpec, neutral: NeutralType) -> None:
    """Check the expression of a policy. Raises ExpressionRefused or ConfigurationError."""
    where = f"policy of field '{item.field}'"
    values = dict.fromkeys(("left_value", "right_value", "base_value"), neutral)
    expression = parse_expression(item.expression, values, where=where)
    convert("value", expression_type(expression, values, where=where), neutral, where)


def _require_times(mapping: MappingSpec, two_way: TwoWaySpec) -> None:
    """Modification times that are named must be there and be points in time of one kind."""
    used = uses_newest(two_way)
    sides = (
        (mapping.left, two_way.left_modified, "left modification time"),
        (mapping.right, two_way.right_modified, "right modification time"),
    )
    for dataset, name, where in sides:
        if not name and not used:
            continue
        kind = _type_of(dataset, name, where).kind
        if kind not in MOMENTS:
            raise ConfigurationError(
                f"'{name}' is of type {kind.value}: 'newest' needs a timestamp", where=where
            )


def uses_newest(two_way: TwoWaySpec) -> bool:
    """Whether anything is decided by modification times."""
    policies = {two_way.policy, *(item.policy for item in two_way.fields)}
    return FieldPolicy.NEWEST in policies or two_way.first_contact is Winner.NEWEST


def _type_of(dataset: DatasetSpec, name: str, where: str) -> NeutralType:
    try:
        return dataset.field(name).neutral_type
    except KeyError:
        raise FieldMissing(f"'{dataset.name}' has no field '{name}'", where=where) from None
