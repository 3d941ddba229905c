"""What a partition works with: the pinned version, both sides, lookups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from apps.connectors.base import Connector, DatasetSchema, FieldSchema, ReadBatch
from apps.connectors.errors import ConfigurationError, FieldMissing, SchemaMismatch
from apps.connectors.registry import connector_class
from apps.connectors.types import NeutralType
from apps.core.selectors import platform_state
from apps.engine.execution import Runner
from apps.engine.sandbox import Limits, Sandbox
from apps.engine.spec import (
    DatasetSpec,
    MappingSpec,
    RuleSpec,
)
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
from apps.runs.models import Run
from apps.runs.services.reading import SideReader
from apps.sources.models import Dataset, Source
from apps.sources.selectors import connector_for


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run's pinned mapping and rule, and the two sides as they are now.

    left, right: the fields that the version uses; left_types, right_types: all that can be
    written, which the before-image of a delete holds.
    """

    run: Run
    mapping: MappingSpec
    rule: RuleSpec
    left: DatasetSchema
    right: DatasetSchema
    left_connector: Connector[Any]
    right_connector: Connector[Any]
    program: TransformProgram
    left_types: dict[str, NeutralType]
    right_types: dict[str, NeutralType]

    @property
    def left_fields(self) -> tuple[str, ...]:
        """The left fields that key, cursor, filter and mapping read."""
        return self.program.left_fields

    @property
    def left_reader(self) -> SideReader:
        return SideReader(self.left_connector, self.left, self.mapping.left.key)

    @property
    def right_reader(self) -> SideReader:
        return SideReader(self.right_connector, self.right, self.mapping.key)

    def left_by_key(self, keys: Sequence[str]) -> Iterator[ReadBatch]:
        """The left records of these keys, with `left_fields`."""
        return self.left_reader.by_key(self.left_fields, keys)


def source_of(run: Run, side: str) -> Source:
    mapping = run.rule.mapping
    dataset: Dataset = mapping.left if side == "left" else mapping.right
    return dataset.source


def load_context(run: Run) -> RunContext:
    """Connect the pinned version with the live schemas.

    Raises FieldMissing or SchemaMismatch where a side no longer fits the mapping.
    """
    mapping = run.version.mapping_version.spec()
    rule = run.version.spec()
    left = connector_for(source_of(run, "left"))
    right = connector_for(source_of(run, "right"))
    program = compile_transform(mapping, rule, lookups=known_lookups(mapping, rule))
    left_used = program.left_fields
    left_live = left.describe(mapping.left.name)
    right_live = right.describe(mapping.right.name)
    used_right = [field.right for field in mapping.fields]
    if rule.mark_field:
        used_right.append(rule.mark_field)
    left_pinned = pinned_schema(left, left_live, mapping.left, left_used)
    right_pinned = pinned_schema(right, right_live, mapping.right, used_right)
    return RunContext(
        run=run,
        mapping=mapping,
        rule=rule,
        left=left_pinned,
        right=right_pinned,
        left_connector=left,
        right_connector=right,
        program=program,
        left_types=_writable_types(left_live, left_pinned),
        right_types=_writable_types(right_live, right_pinned),
    )


def _writable_types(live: DatasetSchema, pinned: DatasetSchema) -> dict[str, NeutralType]:
    types = {field.name: field.type for field in live.fields if not field.generated}
    return types | {field.name: field.type for field in pinned.fields if field.name in types}


def _pinned_field(pinned: DatasetSpec, live: FieldSchema, inferred: bool) -> FieldSchema:
    """The live field; where types are inferred from values, the version's type is used."""
    expected = pinned.field(live.name).neutral_type
    if live.type == expected:
        return live
    if inferred:
        return replace(live, type=expected)
    raise SchemaMismatch(
        f"field '{live.name}' was {expected} and is {live.type} now", where=pinned.name
    )


def pinned_schema(
    connector: Connector[Any], live: DatasetSchema, pinned: DatasetSpec, used: Sequence[str]
) -> DatasetSchema:
    """The live schema narrowed to the fields that the version uses, in the pinned order."""
    inferred = connector.capabilities.inferred_types
    by_name = {field.name: field for field in live.fields}
    chosen: list[FieldSchema] = []
    for name in used:
        field = by_name.get(name)
        if field is None:
            raise FieldMissing(f"field '{name}' is no longer there", where=pinned.name)
        chosen.append(_pinned_field(pinned, field, inferred))
    return DatasetSchema(
        name=live.name,
        fields=tuple(chosen),
        key=pinned.key,
        unique_keys=live.unique_keys,
        references=live.references,
        row_count=live.row_count,
        size_bytes=live.size_bytes,
        format=live.format,
        writable=live.writable,
    )


def _links_used(mapping: MappingSpec, rule: RuleSpec) -> set[str]:
    """Names of the rules whose links expressions and checks look up."""
    checks = rule.checks
    texts = [*mapping_expressions(mapping), rule.filter, *(c.expression for c in checks)]
    named = {c.lookup.removeprefix(LINK_PREFIX) for c in checks if c.lookup.startswith(LINK_PREFIX)}
    return linked_rules(*texts) | named


def known_lookups(mapping: MappingSpec, rule: RuleSpec) -> set[str]:
    """Names that the version's expressions may look up."""
    return lookup_names() | {LINK_PREFIX + name for name in _links_used(mapping, rule)}


def lookups_for(context: RunContext) -> dict[str, pa.Table]:
    """The lookup tables and links that the version's program uses."""
    names = set(context.program.lookups)
    links = {name for name in names if name.startswith(LINK_PREFIX)}
    tables = lookup_values(names - links)
    for name in links:
        rule = Rule.objects.filter(name=name.removeprefix(LINK_PREFIX)).first()
        if rule is None:
            raise ConfigurationError(f"the rule that '{name}' names is not there")
        tables[name] = link_lookup(rule.pk)
    return tables


def transformer(program: TransformProgram, lookups: dict[str, pa.Table]) -> Runner | Sandbox:
    """What runs a program: this process if nobody wrote an expression in it, else a child."""
    if program.trusted:
        return Runner(program, lookups)
    return Sandbox(program, lookups, Limits())


def require_unpaused(run_or_rule: Run | Rule) -> None:
    """Raises RunRefused when the rule, one of its sources or everything is paused."""
    from apps.runs.services.errors import RunRefused

    rule = run_or_rule.rule if isinstance(run_or_rule, Run) else run_or_rule
    if platform_state().paused:
        raise RunRefused("everything is paused", remedy="Resume on the overview.")
    if rule.paused:
        raise RunRefused(f"rule '{rule.name}' is paused", remedy="Resume the rule.")
    for dataset in (rule.mapping.left, rule.mapping.right):
        if dataset.source.paused:
            raise RunRefused(
                f"source '{dataset.source.name}' is paused", remedy="Resume the source."
            )


def require_writable(context: RunContext) -> None:
    """Raises ConfigurationError when the right side cannot be written."""
    capabilities = connector_class(source_of(context.run, "right").connector).capabilities
    if not capabilities.write or not context.right.writable:
        raise ConfigurationError(
            f"'{context.right.name}' cannot be written",
            where=source_of(context.run, "right").name,
            remedy="Choose a table or a file that this source's user may write.",
        )
