"""Writes about mappings: save, publish a version, suggest, preview, create a missing target.

`actor` is who asks; None is the system itself: the command line, the demo, workers. All raise
PermissionDenied where the actor may not do this to this object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping as TableMapping
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
from django.core.exceptions import PermissionDenied
from django.db import transaction

from apps.audit.actions import Act
from apps.audit.services import record, saving
from apps.connectors.base import ReadBatch, ReadRequest
from apps.connectors.errors import ConfigurationError
from apps.core.selectors import permits, require, require_reach
from apps.engine.spec import FieldMappingSpec, MappingSpec, MatchFieldSpec, RuleSpec
from apps.engine.suggest import Suggestion, propose_right, suggest_pairs
from apps.engine.transform import compile_transform
from apps.mappings.masking import Mask, mask_of, personal_fields
from apps.mappings.matching import MatchReport, find_partners, report_matches
from apps.mappings.models import FieldMapping, LookupEntry, LookupTable, Mapping, MappingVersion
from apps.mappings.preview import BackRow, Preview, preview_back_rows, preview_rows
from apps.mappings.selectors import (
    LINK_PREFIX,
    linked_rules,
    lookup_names,
    lookup_tables,
    lookup_values,
    mapping_expressions,
    mapping_spec,
    mappings,
)
from apps.mappings.validation import require_mapping, require_match
from apps.sources.models import Dataset, Source
from apps.sources.selectors import connector_for, datasets
from apps.sources.services import create_dataset

if TYPE_CHECKING:
    from apps.accounts.models import User

AUTHOR_PERMISSION = "mappings.author_expressions"


def require_author(actor: User | None, before: Sequence[str], after: Sequence[str]) -> None:
    """Refuse new or changed expressions of somebody who may not write them."""
    changed = {text for text in after if text} - set(before)
    if changed and actor is not None and not actor.has_perm(AUTHOR_PERMISSION):
        raise PermissionDenied("writing expressions needs the permission 'author expressions'")


def require_editor(actor: User | None) -> None:
    """Refuse somebody who may save no mapping: an editor that is not stored has no object yet."""
    if actor is not None and not any(permits(actor, Mapping, do) for do in ("add", "change")):
        raise PermissionDenied("you may neither add nor change mappings")


def validate_mapping(spec: MappingSpec, rule: RuleSpec | None = None) -> None:
    """Compile without running. Raises ConfigurationError or ExpressionRefused."""
    rule = rule or RuleSpec()
    require_mapping(spec)
    texts = [*mapping_expressions(spec), rule.filter, *(c.expression for c in rule.checks)]
    links = {LINK_PREFIX + name for name in linked_rules(*texts)}
    compile_transform(spec, rule, lookups=lookup_names() | links)


@transaction.atomic
def save_mapping(
    mapping: Mapping,
    fields: Sequence[FieldMappingSpec],
    key: Sequence[str],
    match: Sequence[MatchFieldSpec] = (),
    *,
    actor: User | None,
) -> MappingVersion:
    """Store a mapping with exactly these field mappings, key and match fields, and publish it.

    Raises ConfigurationError naming the field, or PermissionDenied.
    """
    require(actor, mappings, "save", mapping)
    if mapping.left_id == mapping.right_id:
        raise ConfigurationError(
            f"both sides are {mapping.left}",
            where=f"mapping '{mapping.name}'",
            remedy="Choose another dataset on one of the two sides.",
        )
    _require_sides(mapping, actor)
    known = {row.right: row for row in mapping.fields.all()} if mapping.created_at else {}
    require_author(
        actor,
        [text for row in known.values() for text in (row.to_right, row.to_left)],
        [text for spec in fields for text in (spec.to_right, spec.to_left)],
    )
    mapping.key = list(key)
    mapping.match = [item.model_dump(mode="json") for item in match]
    before = mapping.current_version if mapping.created_at else None
    with saving(mapping, Act.MAPPING_CREATED, Act.MAPPING_CHANGED, actor=actor) as details:
        mapping.save()
        _store_fields(mapping, known, fields)
        version = publish(mapping, actor=actor)
        if version != before:
            details["version"] = version.number
    return version


def _require_sides(mapping: Mapping, actor: User | None) -> None:
    """Where the datasets are others than before: one is read, the other one is written to."""
    stored = Mapping.objects.filter(pk=mapping.pk).values_list("left_id", "right_id").first()
    if stored != (mapping.left_id, mapping.right_id):
        require_reach(actor, "view", mapping.left)
        require_reach(actor, "change", mapping.right)


def _store_fields(
    mapping: Mapping, known: dict[str, FieldMapping], fields: Sequence[FieldMappingSpec]
) -> None:
    """Exactly these; `known`: those that are there, by right field."""
    for position, spec in enumerate(fields):
        row = known.pop(spec.right, None) or FieldMapping(mapping=mapping, right=spec.right)
        changed = {**spec.model_dump(exclude={"right"}), "position": position}
        if row.created_at is None or any(getattr(row, k) != v for k, v in changed.items()):
            for name, value in changed.items():
                setattr(row, name, value)
            row.save()
    for row in known.values():
        row.delete()


def publish(mapping: Mapping, *, actor: User | None) -> MappingVersion:
    """The version that says what the mapping says now; a new one if it says something new.

    This asks for no permission: it says nothing that is not stored. actor: whose version it is.
    """
    stored = Mapping.objects.select_related("left", "right")
    mapping = stored.prefetch_related("fields", "left__fields", "right__fields").get(pk=mapping.pk)
    spec = mapping_spec(mapping)
    validate_mapping(spec)
    _require_writable_fields(mapping)
    data = spec.model_dump(mode="json")
    digest = content_digest(data)
    latest = mapping.current_version
    if latest is not None and latest.digest == digest:
        return latest
    return MappingVersion.objects.create(
        mapping=mapping,
        number=latest.number + 1 if latest else 1,
        spec_data=data,
        digest=digest,
        created_by=actor,
    )


def _require_writable_fields(mapping: Mapping) -> None:
    """Raises ConfigurationError where a right field is computed by its platform."""
    computed = {field.name for field in mapping.right.fields.all() if field.generated}
    for row in mapping.fields.all():
        if row.right in computed:
            raise ConfigurationError(
                f"'{row.right}' is computed by {mapping.right} itself and takes no value",
                where=f"field '{row.right}'",
                remedy="Leave this field out of the mapping.",
            )


def content_digest(data: Any) -> str:
    """SHA-256 of the canonical JSON of a version's content."""
    return hashlib.sha256(orjson.dumps(data, option=orjson.OPT_SORT_KEYS)).hexdigest()


def suggest(left: Dataset, right: Dataset, *, actor: User | None) -> list[Suggestion]:
    """Pairs of fields that probably correspond, for a person to confirm."""
    for dataset in (left, right):
        require(actor, datasets, "view", dataset)
    return suggest_pairs(left.schema(), right.schema())


def create_target(
    left: Dataset, source: Source, name: str, naming: str = "same", *, actor: User | None
) -> Dataset:
    """Create the missing right dataset after the left one's shape."""
    require(actor, datasets, "view", left)
    require(actor, datasets, "add")
    if source.datasets.filter(name=name, missing_since=None).exists():
        raise ConfigurationError(f"dataset '{name}' exists already", where=source.name)
    return create_dataset(source, propose_right(left.schema(), name, naming), actor=actor)


def preview(
    mapping: MappingSpec,
    rule: RuleSpec,
    left: Dataset,
    *,
    actor: User | None,
    right: Dataset | None = None,
    limit: int = 5,
    links: TableMapping[str, pa.Table] | None = None,
) -> Preview:
    """Run unsaved expressions over real sample records, in a disposable child process.

    Personal values are masked: a right field is personal by its own class, where `right` is given,
    and by those of the left fields that flow into it. links: key tables of the rules whose links
    the expressions look up, by rule name.
    Raises ConfigurationError or ExpressionRefused for what cannot be compiled.
    """
    require_editor(actor)
    require(actor, datasets, "view", left)
    require_author(actor, [], [*mapping_expressions(mapping), rule.filter])
    validate_mapping(mapping, rule)
    schema = left.schema()
    request = ReadRequest(dataset=schema, fields=schema.field_names, limit=limit, batch_rows=limit)
    batches = list(connector_for(left.source).read(request))
    found = preview_rows(mapping, rule, schema, batches, _tables_for(links))
    mask = _mask(mapping, left, right or left)
    return replace(found, rows=tuple(row.masked(mask) for row in found.rows))


def _mask(mapping: MappingSpec, left: Dataset, right: Dataset) -> Mask:
    """The mask of a mapping that is not stored."""
    return mask_of(left, right, mapping.fields, personal_fields({left.pk, right.pk}))


def preview_back(
    mapping: MappingSpec,
    left: Dataset,
    right: Dataset,
    *,
    actor: User | None,
    limit: int = 5,
    links: TableMapping[str, pa.Table] | None = None,
) -> list[BackRow]:
    """Run the unsaved way back over real right records, and say what their left ones are now.

    Otherwise as `preview`.
    """
    require_editor(actor)
    for dataset in (left, right):
        require(actor, datasets, "view", dataset)
    require_author(actor, [], mapping_expressions(mapping))
    schema = right.schema()
    request = ReadRequest(dataset=schema, fields=schema.field_names, limit=limit, batch_rows=limit)
    batches = list(connector_for(right.source).read(request))
    tables = _tables_for(links)
    side = (connector_for(left.source), left.schema())
    match_left = partial(find_partners, mapping, side, batches, tables)
    rows = preview_back_rows(
        mapping, schema, batches, partial(_read_by_key, left), match_left, tables
    )
    mask = _mask(mapping, left, right)
    return [row.masked(mask) for row in rows]


def _read_by_key(dataset: Dataset, keys: pa.Table) -> list[ReadBatch]:
    schema, connector = dataset.schema(), connector_for(dataset.source)
    if not connector.capabilities.key_lookup:
        return []
    request = ReadRequest(dataset=schema, fields=schema.field_names, keys=keys)
    return list(connector.read(request))


def check_matches(
    mapping: MappingSpec,
    left: Dataset,
    right: Dataset,
    *,
    actor: User | None,
    links: TableMapping[str, pa.Table] | None = None,
) -> MatchReport:
    """Count which records would find each other, and list those that several could be meant by.

    Reads the match fields of both sides, writes nothing. Otherwise as `preview`.
    """
    require_editor(actor)
    for dataset in (left, right):
        require(actor, datasets, "view", dataset)
    require_author(actor, [], mapping_expressions(mapping))
    require_match(mapping)
    report = report_matches(
        mapping,
        (connector_for(left.source), left.schema()),
        (connector_for(right.source), right.schema()),
        _tables_for(links),
    )
    return report.masked(_mask(mapping, left, right))


def _tables_for(links: TableMapping[str, pa.Table] | None) -> dict[str, pa.Table]:
    tables = lookup_values(lookup_names())
    return tables | {LINK_PREFIX + name: table for name, table in (links or {}).items()}


@transaction.atomic
def save_lookup(
    name: str, entries: dict[str, str], description: str = "", *, actor: User | None
) -> LookupTable:
    """Store a lookup table with exactly these entries."""
    require(actor, lookup_tables, "save", LookupTable.objects.filter(name=name).first())
    table, is_new = LookupTable.objects.get_or_create(name=name)
    if table.description != description:
        table.description = description
        table.save()
    known = {entry.key: entry for entry in table.entries.all()}
    written = 0
    for key, value in entries.items():
        entry = known.pop(key, None) or LookupEntry(table=table, key=key)
        if entry.value != value:
            entry.value = value
            entry.save()
            written += 1
    for entry in known.values():
        entry.delete()
    counts = {"entries written": written, "entries removed": len(known)}
    record(Act.LOOKUP_CREATED if is_new else Act.LOOKUP_CHANGED, table, actor=actor, details=counts)
    return table
