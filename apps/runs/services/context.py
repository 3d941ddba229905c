"""What a partition works with: the pinned version, both sides, lookups."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from apps.connectors.base import Connector, DatasetSchema, FieldSchema
from apps.connectors.errors import ConfigurationError, FieldMissing, SchemaMismatch
from apps.connectors.registry import connector_class
from apps.connectors.types import NeutralType
from apps.core.selectors import platform_state
from apps.engine.reconcile import TwoWayPrograms
from apps.engine.spec import DatasetSpec, MappingSpec, RuleSpec
from apps.engine.transform import TransformProgram
from apps.ledger.models import Side
from apps.rules.models import Rule
from apps.runs.models import Partition, Run
from apps.runs.services.errors import OtherDatasets, RunRefused
from apps.runs.services.leasing import Lease
from apps.runs.services.pacing import Pace, pace_of
from apps.runs.services.programs import compile_programs, right_fields_used
from apps.runs.services.reading import Batches, SideReader
from apps.runs.services.writing import SideWriter
from apps.sources.models import Dataset, Source
from apps.sources.selectors import connector_for


@dataclass(frozen=True, slots=True)
class RunContext:
    """A run's pinned mapping and rule, and the two sides as they are now.

    left, right: the fields that the version uses; left_live, right_live: all fields; left_types,
    right_types: all that can be written, which the before-image of a delete holds; program: from
    left to right; two_way: the programs of a two-way rule, `program` among them.
    """

    run: Run
    mapping: MappingSpec
    rule: RuleSpec
    left: DatasetSchema
    right: DatasetSchema
    left_live: DatasetSchema
    right_live: DatasetSchema
    left_connector: Connector[Any]
    right_connector: Connector[Any]
    program: TransformProgram
    two_way: TwoWayPrograms | None
    left_types: dict[str, NeutralType]
    right_types: dict[str, NeutralType]
    left_pace: Pace = field(default_factory=Pace)
    right_pace: Pace = field(default_factory=Pace)

    @property
    def left_fields(self) -> tuple[str, ...]:
        """The left fields that key, cursor, filter and mapping read."""
        return self.program.left_fields

    @property
    def left_reader(self) -> SideReader:
        return SideReader(
            self.left_connector, self.left, self.mapping.left.key, pace=self.left_pace
        )

    @property
    def right_reader(self) -> SideReader:
        return SideReader(self.right_connector, self.right, self.mapping.key, pace=self.right_pace)

    @property
    def mapped_types(self) -> dict[str, NeutralType]:
        """Types of the mapped right fields, in the mapping's order: what left views hold."""
        return {field.right: self.right.field(field.right).type for field in self.mapping.fields}

    def writer(self, side: str, partition: Partition) -> SideWriter:
        """How a side is written by a partition's plan."""
        if side == Side.LEFT:
            returning = self._returned(self.left_connector, self.left_fields)
            lock = dataset_lock(self.run, side)
            return SideWriter(self.left_reader, self.left_types, lock, returning, self._left_match)
        mapped = tuple(self.mapped_types)
        returning = self._returned(self.right_connector, mapped)
        whole = self.two_way is not None or self.run.kind == Run.Kind.UNDO
        lock = dataset_lock(self.run, side) if whole else _range_lock(partition)
        match = tuple(item.field for item in self.mapping.match)
        return SideWriter(self.right_reader, self.right_types, lock, returning, match)

    def _returned(self, connector: Connector[Any], fields: Sequence[str]) -> tuple[str, ...]:
        """What writes are to give back: the bases of two-way rules need it."""
        wanted = self.two_way is not None and connector.capabilities.returns_stored
        return tuple(fields) if wanted else ()

    @property
    def _left_match(self) -> tuple[str, ...]:
        """The match fields as left fields, where each is a plain copy."""
        copied = {f.right: f.left for f in self.mapping.fields if f.left and not f.to_right}
        names = [copied.get(item.field, "") for item in self.mapping.match]
        return tuple(names) if all(names) else ()

    def left_by_key(self, keys: Sequence[str]) -> Batches:
        """The left records of these keys, with `left_fields`."""
        return self.left_reader.by_key(self.left_fields, keys)


def dataset_lock(run: Run, side: str) -> str:
    """The name of the right to write a whole dataset, whichever rule does."""
    mapping = run.rule.mapping
    return f"lockstep:dataset:{mapping.left_id if side == Side.LEFT else mapping.right_id}"


def _range_lock(partition: Partition) -> str:
    """The name of the right to write what one partition of a one-way rule covers."""
    part = partition.number if partition.cut else "all"
    return f"lockstep:{partition.run.rule_id}:{part}"


def source_of(run: Run, side: str) -> Source:
    mapping = run.rule.mapping
    dataset: Dataset = mapping.left if side == "left" else mapping.right
    return dataset.source


_KEPT_SECONDS = 10.0
_kept = threading.local()  # .last: (run id, moment, context)


def load_context(run: Run, lease: Lease | None = None) -> RunContext:
    """Connect the pinned version with the live schemas.

    What a step of the same run has found in this thread some seconds ago is as good, until a step
    fails (`forget_context`).

    lease: of the worker, whose batches are counted against the limits of both sources; a person
    who looks at a record does not wait for these.

    Raises FieldMissing or SchemaMismatch where a side no longer fits the mapping, OtherDatasets
    where the mapping has left the datasets that the run's version names.
    """
    run_id, moment, context = getattr(_kept, "last", (None, 0.0, None))
    if run_id != run.pk or time.monotonic() - moment > _KEPT_SECONDS:
        context = _connected(run)
        _kept.last = (run.pk, time.monotonic(), context)
    _require_pinned(run, context.mapping)
    paces = [pace_of(source_of(run, side), lease.check) if lease else Pace() for side in Side]
    return replace(context, run=run, left_pace=paces[0], right_pace=paces[1])


def forget_context() -> None:
    """Look at both sides anew when a context is needed next."""
    _kept.last = (None, 0.0, None)


def _connected(run: Run) -> RunContext:
    mapping = run.version.mapping_version.spec()
    rule = run.version.spec()
    left = connector_for(source_of(run, "left"))
    right = connector_for(source_of(run, "right"))
    program, two_way = compile_programs(mapping, rule)
    left_used = program.left_fields
    left_live = left.describe(mapping.left.name)
    right_live = right.describe(mapping.right.name)
    used_right = right_fields_used(mapping, rule)
    left_pinned = pinned_schema(left, left_live, mapping.left, left_used)
    right_pinned = pinned_schema(right, right_live, mapping.right, used_right)
    return RunContext(
        run=run,
        mapping=mapping,
        rule=rule,
        left=left_pinned,
        right=right_pinned,
        left_live=left_live,
        right_live=right_live,
        left_connector=left,
        right_connector=right,
        program=program,
        two_way=two_way,
        left_types=_writable_types(left_live, left_pinned),
        right_types=_writable_types(right_live, right_pinned),
    )


def _require_pinned(run: Run, mapping: MappingSpec) -> None:
    present = run.rule.mapping
    moved = mapping.left.is_other_than(present.left_id)
    if moved or mapping.right.is_other_than(present.right_id):
        raise OtherDatasets(
            "the mapping leads to other datasets since this run was requested",
            where=f"rule '{run.rule.name}'",
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


def require_unpaused(run_or_rule: Run | Rule) -> None:
    """Raises RunRefused when the rule, one of its sources or everything is paused."""
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
    """Raises ConfigurationError when a side or a field that is written to cannot be."""
    sides = [("right", context.right)]
    if context.two_way is not None:
        sides.append(("left", context.left))
    for side, dataset in sides:
        source = source_of(context.run, side)
        if not connector_class(source.connector).capabilities.write or not dataset.writable:
            raise ConfigurationError(
                f"'{dataset.name}' cannot be written",
                where=source.name,
                remedy="Choose a table or a file that this source's user may write.",
            )
    for mapped in context.mapping.fields:
        if mapped.right not in context.right_types:
            raise ConfigurationError(
                f"the field '{mapped.right}' of '{context.right.name}' is computed by its platform",
                where=source_of(context.run, "right").name,
                remedy="Leave this field out of the mapping.",
            )
