"""Whether a rule can be compared by digests, and what each side then takes digests of.

It can where every mapped field is a copy: its right text is its left one, under another name or
in a type that holds the value exactly. Expressions, constants, defaults and filters are
evaluated by Lockstep, not by the databases, so rules that have them are compared by reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from apps.connectors.base import (
    CursorWindow,
    DatasetSchema,
    DigestField,
    DigestRequest,
    DigestsRefused,
    FieldSchema,
)
from apps.connectors.types import MAX_DECIMAL_PRECISION, Kind, NeutralType, decimal
from apps.engine.checksum import ComparedKeys
from apps.engine.spec import FieldMappingSpec, MappingSpec, RuleSpec

Forms = Callable[[FieldSchema], tuple[str, ...]]
"""`Connector.digest_forms` of a side."""

_NUMBERS = frozenset({Kind.INTEGER, Kind.DECIMAL})


@dataclass(frozen=True, slots=True)
class Side:
    """A side as it is now. lag: see `DigestRequest`."""

    dataset: DatasetSchema
    forms: Forms
    lag: CursorWindow | None = None


@dataclass(frozen=True, slots=True)
class ChecksumPlan:
    """What to ask either side, and how their keys correspond."""

    left: DigestRequest
    right: DigestRequest
    keys: ComparedKeys


def checksum_plan(mapping: MappingSpec, rule: RuleSpec, left: Side, right: Side) -> ChecksumPlan:
    """How to compare both sides by digests. Raises DigestsRefused, saying why it cannot be."""
    if rule.filter.strip():
        raise DigestsRefused("the rule has a filter")
    copies = {spec.right: _copied(spec) for spec in mapping.fields}
    right_key = mapping.key
    left_key = tuple(copies.get(name, "") for name in right_key)
    if not right_key or sorted(left_key) != sorted(mapping.left.key):
        raise DigestsRefused("the keys of both sides are not copies of each other")
    names = [*right_key, *(name for name in copies if name not in right_key)]
    forms = [
        _shared_form(left, right, left.dataset.field(copies[name]), right.dataset.field(name))
        for name in names
    ]
    types = tuple(
        shared_type(left.dataset.field(ours), right.dataset.field(theirs))
        for ours, theirs in zip(left_key, right_key, strict=True)
    )
    left_fields = [DigestField(copies[n], form) for n, form in zip(names, forms, strict=True)]
    right_fields = [DigestField(name, form) for name, form in zip(names, forms, strict=True)]
    return ChecksumPlan(
        left=DigestRequest(left.dataset, left_key, tuple(left_fields), left.lag),
        right=DigestRequest(right.dataset, right_key, tuple(right_fields), right.lag),
        keys=ComparedKeys(
            types=types,
            left_text=tuple(left_key.index(name) for name in mapping.left.key),
            right_text=tuple(range(len(right_key))),
        ),
    )


def _copied(spec: FieldMappingSpec) -> str:
    """The left field that a right one is a copy of. Raises DigestsRefused."""
    if spec.to_right or spec.to_left:
        raise DigestsRefused(f"field '{spec.right}' is an expression")
    if spec.constant is not None:
        raise DigestsRefused(f"field '{spec.right}' is a constant")
    if spec.default is not None:
        raise DigestsRefused(f"field '{spec.right}' has a default")
    return spec.left


def _shared_form(left: Side, right: Side, ours: FieldSchema, theirs: FieldSchema) -> str:
    """The first form that both sides can write a field's text in. Raises DigestsRefused."""
    offered = right.forms(theirs)
    for form in left.forms(ours):
        if form in offered:
            return form
    raise DigestsRefused(
        f"the two sides write field '{theirs.name}' "
        f"({ours.type} on the left, {theirs.type} on the right) in different ways"
    )


def shared_type(ours: FieldSchema, theirs: FieldSchema) -> NeutralType:
    """A type that holds the key values of both sides. Raises DigestsRefused."""
    left, right = ours.type, theirs.type
    kinds = {left.kind, right.kind}
    if left.is_wide_decimal or right.is_wide_decimal or not (len(kinds) == 1 or kinds <= _NUMBERS):
        raise DigestsRefused(
            f"the key field '{theirs.name}' is {left} on the left and {right} here"
        )
    if Kind.DECIMAL in kinds:
        return decimal(MAX_DECIMAL_PRECISION, max(left.scale or 0, right.scale or 0))
    return NeutralType(right.kind)
