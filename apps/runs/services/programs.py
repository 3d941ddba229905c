"""The programs of a version, the lookup tables that they use, and what runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from apps.connectors.errors import ConfigurationError
from apps.engine.execution import Runner
from apps.engine.reconcile import TwoWayPrograms, compile_two_way
from apps.engine.reconcile.programs import right_fields
from apps.engine.sandbox import Limits, Sandbox
from apps.engine.spec import Direction, MappingSpec, RuleSpec
from apps.engine.transform import TransformProgram, compile_transform
from apps.ledger.selectors import link_lookup
from apps.mappings.selectors import (
    LINK_PREFIX,
    linked_rules,
    lookup_names,
    lookup_values,
    mapping_expressions,
)
from apps.rules.models import Rule

if TYPE_CHECKING:
    from apps.runs.services.context import RunContext


def compile_programs(
    mapping: MappingSpec, rule: RuleSpec
) -> tuple[TransformProgram, TwoWayPrograms | None]:
    """The program from left to right, and all of a two-way rule. Raises ConfigurationError."""
    lookups = known_lookups(mapping, rule)
    if rule.direction is Direction.TWO_WAY:
        programs = compile_two_way(mapping, rule, lookups=lookups)
        return programs.forward, programs
    return compile_transform(mapping, rule, lookups=lookups), None


def right_fields_used(mapping: MappingSpec, rule: RuleSpec) -> list[str]:
    """The right fields that plans of this version read."""
    if rule.direction is Direction.TWO_WAY:
        return list(right_fields(mapping, rule, _right_cursor(rule)))
    used = [field.right for field in mapping.fields]
    return [*used, rule.mark_field] if rule.mark_field else used


def _right_cursor(rule: RuleSpec) -> list[str]:
    name = rule.two_way.right_cursor_field if rule.two_way else ""
    return [name] if name else []


def known_lookups(mapping: MappingSpec, rule: RuleSpec) -> set[str]:
    """Names that the version's expressions may look up."""
    return lookup_names() | {LINK_PREFIX + name for name in _links_used(mapping, rule)}


def _links_used(mapping: MappingSpec, rule: RuleSpec) -> set[str]:
    """Names of the rules whose links expressions and checks look up."""
    checks = rule.checks
    texts = [*mapping_expressions(mapping), rule.filter, *(c.expression for c in checks)]
    named = {c.lookup.removeprefix(LINK_PREFIX) for c in checks if c.lookup.startswith(LINK_PREFIX)}
    return linked_rules(*texts) | named


def lookups_for(
    context: RunContext, program: TransformProgram | None = None, *, backward: bool = False
) -> dict[str, pa.Table]:
    """The lookup tables and links that a program (without one: the forward one) uses.

    backward: links are read from right to left.
    """
    names = set((program or context.program).lookups)
    links = {name for name in names if name.startswith(LINK_PREFIX)}
    tables = lookup_values(names - links)
    for name in links:
        rule = Rule.objects.filter(name=name.removeprefix(LINK_PREFIX)).first()
        if rule is None:
            raise ConfigurationError(f"the rule that '{name}' names is not there")
        flipped = _is_opposite(context.run.rule, rule) is not backward
        tables[name] = link_lookup(rule.pk)
        if flipped:
            tables[name] = tables[name].select(["value", "key"]).rename_columns(["key", "value"])
    return tables


def _is_opposite(rule: Rule, linked: Rule) -> bool:
    """Whether the linked rule's left platform is this rule's right one."""
    ours, theirs = rule.mapping, linked.mapping
    same = ours.left.source_id == theirs.left.source_id
    crossed = ours.left.source_id == theirs.right.source_id
    return crossed and not same


def transformer(program: TransformProgram, lookups: dict[str, pa.Table]) -> Runner | Sandbox:
    """What runs a program: this process if nobody wrote an expression in it, else a child."""
    if program.trusted:
        return Runner(program, lookups)
    return Sandbox(program, lookups, Limits())
