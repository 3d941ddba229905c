"""Hosting datasets, and changing their schemas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db import transaction

from apps.accounts.models import User
from apps.audit.actions import Act
from apps.audit.services import record, saving
from apps.connectors.base import Operation
from apps.connectors.errors import ConfigurationError
from apps.core.selectors import require
from apps.engine.spec import EditDelete
from apps.hub.errors import BreakingChange, MutationRefused, SchemaRefused
from apps.hub.models import HostedDataset, HostedRecord, RowScope, SchemaVersion
from apps.hub.models import Sequence as Counter
from apps.hub.schemas import Schema, Shape, breaks, shape_of
from apps.hub.selectors import (
    CONNECTOR,
    datasets_of,
    has_personal_fields,
    hosted_datasets,
    newest_schema,
    shape_of_hosted,
)
from apps.hub.services.storing import (
    STORED_COLUMNS,
    Author,
    Books,
    Stored,
    Write,
    commit_writes,
    load_records,
    stored_of,
)
from apps.sources.models import Dataset, Source
from apps.sources.services import save_source, store_dataset

if TYPE_CHECKING:
    from collections.abc import Iterator

SOURCE_NAME = "Hub"
BATCH = 1_000


@dataclass(frozen=True, slots=True)
class NewDataset:
    """A dataset to be hosted; see `HostedDataset`."""

    name: str
    schema: Schema
    key: Sequence[str] = ("id",)
    scope_field: str = ""
    edit_delete: EditDelete = EditDelete.DELETE
    tombstone_days: int = 90
    history_days: int = 90


def hub_source(*, actor: User | None) -> Source:
    """The source that Lockstep itself is; made where there is none yet."""
    found = Source.objects.filter(connector=CONNECTOR).order_by("created_at").first()
    return found or save_source(Source(name=SOURCE_NAME, connector=CONNECTOR), {}, actor=actor)


@transaction.atomic
def host_dataset(wanted: NewDataset, *, actor: User | None) -> Dataset:
    """Begin to host a dataset; as the rest of the platform knows it.

    Raises SchemaRefused, ConfigurationError where there is one of that name.
    """
    require(actor, hosted_datasets, "add")
    hosted = make_hosted(wanted, actor=actor)
    shape = shape_of_hosted(hosted)
    source = hub_source(actor=actor)
    dataset = store_dataset(source, shape.described(hosted.name), actor=actor)
    record(Act.HOSTED_CREATED, hosted, actor=actor)
    return dataset


@transaction.atomic
def make_hosted(wanted: NewDataset, *, actor: User | None) -> HostedDataset:
    """The rows of a hosted dataset, of which no other room knows yet."""
    if HostedDataset.objects.filter(name=wanted.name).exists():
        raise ConfigurationError("a dataset of this name exists", where=wanted.name)
    shape = shape_of(wanted.schema, wanted.key)
    _require_scope_field(shape, wanted.scope_field)
    hosted = HostedDataset.objects.create(
        name=wanted.name,
        key=list(wanted.key),
        scope_field=wanted.scope_field,
        edit_delete=wanted.edit_delete.value,
        tombstone_days=wanted.tombstone_days,
        history_days=wanted.history_days,
    )
    Counter.objects.create(hosted=hosted)
    SchemaVersion.objects.create(hosted=hosted, number=1, schema=wanted.schema, created_by=actor)
    return hosted


def _require_scope_field(shape: Shape, name: str) -> None:
    if name and name not in shape.fields:
        raise SchemaRefused("the scope field must be a field", where=name)


def save_hosted(hosted: HostedDataset, *, actor: User | None) -> HostedDataset:
    """Store what people choose of a hosted dataset; its scope field stays as it was."""
    require(actor, hosted_datasets, "change", hosted)
    with saving(hosted, Act.HOSTED_CREATED, Act.HOSTED_CHANGED, actor=actor):
        hosted.save(update_fields=["edit_delete", "tombstone_days", "history_days", "updated_at"])
    return hosted


def change_schema(
    hosted: HostedDataset, schema: Schema, *, may_break: bool = False, actor: User | None
) -> SchemaVersion:
    """Give a dataset another schema; what only adds needs no more words.

    may_break: clients that know only the schemas before are refused from now on. Raises
    BreakingChange without it, naming what breaks, and SchemaRefused where records would not fit.
    """
    require(actor, hosted_datasets, "change", hosted)
    shape = shape_of(schema, hosted.key)
    _require_scope_field(shape, hosted.scope_field)
    with transaction.atomic():
        stored = HostedDataset.objects.select_for_update().get(pk=hosted.pk)
        current = newest_schema(stored)
        if current.schema == schema:
            return current
        reasons = breaks(current.schema, schema)
        if reasons and not may_break:
            raise BreakingChange("; ".join(reasons), where=hosted.name)
        if reasons:
            _require_fitting(hosted, shape)
        version = SchemaVersion.objects.create(
            hosted=hosted,
            number=current.number + 1,
            schema=schema,
            breaks=reasons,
            created_by=actor,
        )
        hosted.schema_number = version.number
        hosted.oldest_schema = version.number if reasons else stored.oldest_schema
        hosted.save(update_fields=["schema_number", "oldest_schema", "updated_at"])
        for dataset in datasets_of(hosted).select_related("source"):
            store_dataset(dataset.source, shape.described(hosted.name), actor=None)
        details = {"number": version.number, "breaks": reasons}
        record(Act.HOSTED_SCHEMA_CHANGED, hosted, actor=actor, details=details)
    if reasons:
        _drop_former_fields(hosted, shape)
    return version


def _require_fitting(hosted: HostedDataset, shape: Shape) -> None:
    """Raise SchemaRefused where a record would not be one any more."""
    unfit = 0
    reason = ""
    for stored in _living(hosted):
        known = {name: value for name, value in stored.record.items() if name in shape.fields}
        try:
            shape.check(known, list(known))
        except MutationRefused as error:
            unfit += 1
            reason = reason or f"'{error.field}': {error.message}"
    if unfit:
        raise SchemaRefused(f"{unfit} records do not fit: {reason}", where=hosted.name)


def _drop_former_fields(hosted: HostedDataset, shape: Shape) -> None:
    """Take out of each record what the schema does not know any more."""
    batch: list[Stored] = []
    for stored in _living(hosted):
        if stored.record.keys() - shape.fields.keys():
            batch.append(stored)
        if len(batch) >= BATCH:
            _drop_from(hosted, shape, batch)
            batch = []
    _drop_from(hosted, shape, batch)


@transaction.atomic
def _drop_from(hosted: HostedDataset, shape: Shape, batch: Sequence[Stored]) -> None:
    writes = []
    for stored in load_records(hosted, [one.key for one in batch], lock=True).values():
        gone = sorted(stored.record.keys() - shape.fields.keys())
        if gone and not stored.is_deleted:
            writes.append(
                Write(
                    key=stored.key,
                    operation=Operation.UPDATE,
                    stored=stored,
                    record={n: v for n, v in stored.record.items() if n in shape.fields},
                    fields=gone,
                    before={name: stored.record[name] for name in gone},
                    clocks={n: c for n, c in stored.clocks.items() if n not in gone},
                    author=Author(),
                )
            )
    commit_writes(Books(hosted, has_personal_fields(hosted)), writes)


def _living(hosted: HostedDataset) -> Iterator[Stored]:
    """All records, a part at a time."""
    rows = HostedRecord.objects.filter(hosted=hosted, is_deleted=False).order_by("key")
    after = None
    while True:
        part = rows if after is None else rows.filter(key__gt=after)
        found = list(part.values_list(*STORED_COLUMNS)[:BATCH])
        yield from (stored_of(hosted.pk, row) for row in found)
        if len(found) < BATCH:
            return
        after = found[-1][0]


@transaction.atomic
def set_row_scope(
    hosted: HostedDataset,
    account: User,
    values: Sequence[str],
    *,
    every: bool = False,
    actor: User | None,
) -> RowScope:
    """Say which records an account sees: those with one of these values in the scope field."""
    require(actor, hosted_datasets, "change", hosted)
    if not hosted.scope_field:
        raise ConfigurationError("the dataset has no scope field", where=hosted.name)
    row, _ = RowScope.objects.update_or_create(
        hosted=hosted,
        account=account,
        defaults={"values": sorted({str(value) for value in values}), "every": every},
    )
    details = {"account": account.get_username(), "every": every, "scopes": len(row.values)}
    record(Act.HOSTED_SCOPE_SET, hosted, actor=actor, details=details)
    return row
