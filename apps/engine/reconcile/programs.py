"""The programs of a two-way rule: forward, backward, and the expressions of its field policies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import sqlglot
from sqlglot import TokenType

from apps.connectors.errors import ConfigurationError, KeyMissing
from apps.engine.expressions import parse_expression
from apps.engine.program import TransformProgram
from apps.engine.spec import (
    DatasetSpec,
    FieldMappingSpec,
    FieldPolicy,
    FieldSpec,
    MappingSpec,
    RuleSpec,
    TwoWaySpec,
)
from apps.engine.transform import compile_transform
from apps.engine.types_sql import quote

POLICY_ROW = "number of the record"
POLICY_NAMES = ("left_value", "right_value", "base_value")


@dataclass(frozen=True, slots=True)
class TwoWayPrograms:
    """What a two-way rule runs. All are for the sandbox, unless `trusted`.

    forward:  left records to left views, with the left fields that a plan needs riding along;
    backward: right records to left ones;
    evaluate: the expressions of field policies, None where the rule has none.
    """

    forward: TransformProgram
    backward: TransformProgram
    evaluate: TransformProgram | None


def compile_two_way(
    mapping: MappingSpec,
    rule: RuleSpec,
    *,
    lookups: Collection[str] = (),
    extra_left: Iterable[str] = (),
) -> TwoWayPrograms:
    """Check a two-way rule with its mapping and translate both.

    extra_left: left fields beyond the mapped ones that deletes keep.
    Raises ConfigurationError and its subclasses.
    """
    reverse = backward_mapping(mapping)
    policies = policy_mapping(mapping, rule)
    return TwoWayPrograms(
        forward=compile_transform(
            mapping,
            rule,
            lookups=lookups,
            carry=carried_fields(mapping, rule, extra_left),
            assigned=True,
        ),
        backward=compile_transform(reverse, RuleSpec(), lookups=lookups, assigned=True),
        evaluate=compile_transform(policies, RuleSpec(), lookups=lookups) if policies else None,
    )


def two_way_of(rule: RuleSpec) -> TwoWaySpec:
    """The two-way settings of a rule. Raises ConfigurationError where it has none."""
    if rule.two_way is None:
        raise ConfigurationError("the rule is not two-way", where="rule")
    return rule.two_way


def backward_mapping(mapping: MappingSpec) -> MappingSpec:
    """The mapping read from right to left; derived fields are dropped.

    Raises ConfigurationError when two field mappings write the same left field or when an
    expression to the left names no field to write; KeyMissing when a side has no key.
    """
    if not mapping.left.key:
        raise KeyMissing("the left dataset needs a key to be written to", where="mapping")
    fields: list[FieldMappingSpec] = []
    written: dict[str, str] = {}
    for spec in mapping.fields:
        if spec.to_left and not spec.left:
            raise ConfigurationError(
                "the expression to the left names no left field to write",
                where=f"field '{spec.right}'",
            )
        if is_derived(spec):
            continue
        if spec.left in written:
            raise ConfigurationError(
                f"the left field '{spec.left}' would be written by '{written[spec.left]}', too",
                where=f"field '{spec.right}'",
                remedy="Make one of the two flow to the right only: give it an expression.",
            )
        written[spec.left] = spec.right
        fields.append(
            FieldMappingSpec(right=spec.left, to_right=spec.to_left)
            if spec.to_left
            else FieldMappingSpec(right=spec.left, left=spec.right)
        )
    right = mapping.right.model_copy(update={"key": mapping.key})
    return MappingSpec(left=right, right=mapping.left, fields=tuple(fields), key=mapping.left.key)


def is_derived(spec: FieldMappingSpec) -> bool:
    """Whether a right field flows from left to right only."""
    if spec.constant is not None and not (spec.left or spec.to_right):
        return True
    return not spec.to_left and (bool(spec.to_right) or not spec.left)


class _AnyLookup(Collection[str]):
    """Every name is one: the compiler has checked which there are."""

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def expression_fields(text: str, dataset: DatasetSpec) -> frozenset[str]:
    """The fields of a dataset that an expression reads, whichever lookups it uses."""
    known = {spec.name: spec.neutral_type for spec in dataset.fields}
    return parse_expression(text, known, lookups=_AnyLookup()).fields


def translates(text: str, dataset: DatasetSpec) -> bool:
    """Whether an expression over a dataset's fields translates a key by another rule's links."""
    known = {spec.name: spec.neutral_type for spec in dataset.fields}
    parsed = parse_expression(text, known, lookups=_AnyLookup())
    return any(name.startswith("link:") for name in parsed.lookups)


def carried_fields(
    mapping: MappingSpec, rule: RuleSpec, extra_left: Iterable[str] = ()
) -> tuple[str, ...]:
    """The left fields that a plan needs beside those that the forward program reads."""
    two_way = two_way_of(rule)
    names = [spec.right for spec in backward_mapping(mapping).fields]
    names += [name for name in (two_way.left_modified, two_way.left_mark_field) if name]
    return tuple(dict.fromkeys([*names, *extra_left]))


def right_fields(
    mapping: MappingSpec, rule: RuleSpec, extra_right: Iterable[str] = ()
) -> tuple[str, ...]:
    """The right fields that a plan needs."""
    names = [*(spec.right for spec in mapping.fields), *mapping.key]
    names += [name for name in (two_way_of(rule).right_modified, rule.mark_field) if name]
    return tuple(dict.fromkeys([*names, *extra_right]))


def policy_mapping(mapping: MappingSpec, rule: RuleSpec) -> MappingSpec | None:
    """The expressions of the field policies as a mapping of their own.

    Its left fields are `left_value f`, `right_value f` and `base_value f` for each right field f
    with such a policy, and a number as key; its right fields are those fields and the number.
    """
    policies = [
        item
        for item in two_way_of(rule).fields
        if item.policy is FieldPolicy.EXPRESSION
        and any(spec.right == item.field for spec in mapping.fields)
    ]
    if not policies:
        return None
    row = FieldSpec(name=POLICY_ROW, type="integer", nullable=False)
    inputs, outputs = [row], [row]
    fields = [FieldMappingSpec(right=POLICY_ROW, left=POLICY_ROW)]
    for item in policies:
        kind = mapping.right.field(item.field).type
        outputs.append(FieldSpec(name=item.field, type=kind))
        inputs += [FieldSpec(name=f"{name} {item.field}", type=kind) for name in POLICY_NAMES]
        fields.append(
            FieldMappingSpec(right=item.field, to_right=_renamed(item.expression, item.field))
        )
    return MappingSpec(
        left=DatasetSpec(name="values", fields=tuple(inputs), key=(POLICY_ROW,)),
        right=DatasetSpec(name="merged", fields=tuple(outputs), key=(POLICY_ROW,)),
        fields=tuple(fields),
        key=(POLICY_ROW,),
    )


def _renamed(expression: str, field: str) -> str:
    """The expression of one field's policy, reading that field's own three values."""
    text = expression
    for token in reversed(sqlglot.tokenize(expression, read="duckdb")):
        is_name = token.token_type in (TokenType.VAR, TokenType.IDENTIFIER)
        if is_name and token.text.lower() in POLICY_NAMES:
            name = quote(f"{token.text.lower()} {field}")
            text = text[: token.start] + name + text[token.end + 1 :]
    return text
