"""Writes about sources: save, test, discover, pause.

`actor` is who asks; None is the system itself: the command line, the demo, workers. All raise
PermissionDenied where the actor may not do this to this object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.db import transaction
from pydantic import SecretStr

from apps.accounts.services import grant_to_author
from apps.audit.actions import Act
from apps.audit.services import record, saving
from apps.connectors.base import CheckStep, DatasetSchema, StepStatus
from apps.connectors.errors import ConfigurationError
from apps.connectors.registry import build, connector_class, parse_settings, secret_names
from apps.core.clock import now
from apps.core.protected import ProtectedValueError, seal_json
from apps.core.redaction import hide
from apps.core.selectors import require, require_reach
from apps.sources.models import Dataset, Drift, Field, Source
from apps.sources.searching import looks_searchable
from apps.sources.selectors import connector_for, datasets, sources
from apps.sources.selectors import drifts as scoped_drifts

if TYPE_CHECKING:
    from apps.accounts.models import User


def split_settings(
    connector: str, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Plain settings and given secrets, apart. An empty secret counts as not given."""
    names = set(secret_names(connector))
    plain = {k: v for k, v in values.items() if k not in names and v not in (None, "")}
    given = {k: _text(v) for k, v in values.items() if k in names and _text(v)}
    hide(*given.values())
    return plain, given


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value)


ADDRESS = ("host", "port", "url", "endpoint", "tls", "ca_certificate", "preset", "token_url")
"""Where secrets are sent, and how it is made sure who is there."""


def kept_secrets(source: Source | None, connector: str, plain: Mapping[str, Any]) -> dict[str, str]:
    """The stored secrets that still apply: they only ever go to the address they were set for.

    Otherwise whoever may change a source could have its password sent to a server of his own.
    """
    if source is None or source.connector != connector:
        return {}
    fields = connector_class(connector).settings_model.model_fields
    for name in ADDRESS:
        default = fields[name].default if name in fields else None
        before, after = (values.get(name, default) for values in (source.settings, plain))
        if str(before or "") != str(after or ""):
            return {}
    names = secret_names(connector)
    return {name: value for name, value in source.secrets().items() if name in names}


def save_source(source: Source, values: Mapping[str, Any], *, actor: User | None) -> Source:
    """Store a source with its settings; secrets that are not given stay, unless its address moved.

    values: settings by name, secrets in clear among them. Raises ConfigurationError that names
    each wrong field.
    """
    require(actor, sources, "save", source)
    plain, given = split_settings(source.connector, values)
    stored = {**kept_secrets(source, source.connector, plain), **given}
    parsed = parse_settings(source.connector, {**plain, **stored})
    source.settings = parsed.model_dump(
        mode="json", exclude=set(secret_names(source.connector)), exclude_defaults=True
    )
    moment = now().isoformat()
    dates = {k: v for k, v in source.secrets_set_at.items() if k in stored}
    source.secrets_set_at = {**dates, **dict.fromkeys(given, moment)}
    before = _secrets_before(source)
    source.sealed_secrets = seal_json(stored, source.secrets_identity) if stored else None
    is_new = source._state.adding
    with saving(source, Act.SOURCE_CREATED, Act.SOURCE_CHANGED, actor=actor):
        source.save()
        if is_new:
            grant_to_author(source, actor=actor)
        _record_secrets(source, before, stored, actor)
    return source


def _secrets_before(source: Source) -> dict[str, str]:
    """The stored secrets; none where they cannot be read any more."""
    try:
        return source.secrets()
    except ProtectedValueError:
        return {}


def _record_secrets(
    source: Source, before: Mapping[str, str], after: Mapping[str, str], actor: User | None
) -> None:
    """Which secrets were set or removed; their names only."""
    names = before.keys() | after.keys()
    replaced = sorted(name for name in names if before.get(name) != after.get(name))
    if replaced:
        record(Act.SECRETS_REPLACED, source, actor=actor, details={"secrets": replaced})


def check_settings(
    connector: str,
    values: Mapping[str, Any],
    source: Source | None = None,
    *,
    actor: User | None,
) -> Iterator[CheckStep]:
    """Test unsaved settings step by step; secrets that are not given come from `source`.

    Needs the right to save them.
    """
    require(actor, sources, "save", source)
    if source is not None:
        require(actor, sources, "check", source)
    return _check_steps(connector, values, source)


def _check_steps(
    connector: str, values: Mapping[str, Any], source: Source | None
) -> Iterator[CheckStep]:
    plain, given = split_settings(connector, values)
    stored = kept_secrets(source, connector, plain)
    try:
        built = build(connector, {**plain, **stored, **given})
    except ConfigurationError as error:
        yield CheckStep("settings", StepStatus.FAILED, error.message, error.remedy)
        return
    yield from built.check()


def says_the_same(source: Source, values: Mapping[str, Any]) -> bool:
    """Whether these settings are those of the stored source: what a test finds is its health."""
    plain, given = split_settings(source.connector, values)
    if given:
        return False
    try:
        parsed = parse_settings(source.connector, {**plain, **source.secrets()})
        stored = parse_settings(source.connector, {**source.settings, **source.secrets()})
    except ConfigurationError:
        return False
    return parsed == stored


def check_source(source: Source, *, actor: User | None) -> list[CheckStep]:
    """Test a stored source and remember the outcome."""
    require(actor, sources, "check", source)
    steps = list(connector_for(source).check())
    failed = any(step.status is StepStatus.FAILED for step in steps)
    source.health = Source.Health.FAILING if failed else Source.Health.OK
    source.checked_at = now()
    source.check_steps = [
        {"name": s.name, "status": s.status.value, "message": s.message, "remedy": s.remedy}
        for s in steps
    ]
    source.save_without_historical_record(
        update_fields=["health", "checked_at", "check_steps", "updated_at"]
    )
    return steps


@transaction.atomic
def set_source_paused(
    source: Source, paused: bool, reason: str = "", *, actor: User | None
) -> None:
    """Let runs read and write the source, or not."""
    require(actor, sources, "pause", source)
    source.paused = paused
    source._change_reason = reason or ("paused" if paused else "resumed")
    source.save(update_fields=["paused", "updated_at"])
    act = Act.SOURCE_PAUSED if paused else Act.SOURCE_RESUMED
    record(act, source, actor=actor, reason=reason)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What a discovery found: all datasets, and what differs from what was known before."""

    datasets: list[Dataset]
    drifts: list[Drift]


def discover(source: Source, *, actor: User | None) -> Discovery:
    """Read what the source holds, store it, and report drift against what was known."""
    require(actor, sources, "discover", source)
    return store_discovery(source, connector_for(source).discover(), actor=actor)


def store_discovery(
    source: Source, schemas: Sequence[DatasetSchema], *, actor: User | None
) -> Discovery:
    """Store everything that the source holds, and report drift against what was known."""
    require(actor, sources, "discover", source)
    found = {schema.name: schema for schema in schemas}
    with transaction.atomic():
        first_time = source.discovered_at is None
        known = {d.name: d for d in source.datasets.prefetch_related("fields")}
        drifts: list[Drift] = []
        for schema in found.values():
            drifts += _store_dataset(source, known.get(schema.name), schema)
        for name in known.keys() - found.keys():
            drifts += _mark_missing(source, known[name])
        _store_dependencies(source, found)
        if first_time:
            drifts = []
        Drift.objects.bulk_create(drifts)
        source.discovered_at = now()
        if source.health == Source.Health.UNKNOWN:
            source.health = Source.Health.OK
        source.save_without_historical_record(
            update_fields=["discovered_at", "health", "updated_at"]
        )
    return Discovery(list(source.datasets.all()), drifts)


def note_row_count(dataset: Dataset, rows: int | None) -> None:
    """Remember how many records a run has seen in a dataset; None: it has not seen them all."""
    if rows is not None:
        Dataset.objects.filter(pk=dataset.pk).exclude(row_count=rows).update(row_count=rows)


def refresh_dataset(dataset: Dataset, *, actor: User | None) -> list[Drift]:
    """Discover one dataset again. Raises DatasetMissing."""
    require(actor, datasets, "change", dataset)
    schema = connector_for(dataset.source).describe(dataset.name)
    with transaction.atomic():
        drifts = _store_dataset(dataset.source, dataset, schema)
        Drift.objects.bulk_create(drifts)
    return drifts


def _drift(source: Source, dataset: str, kind: Drift.Kind, **details: str) -> Drift:
    return Drift(
        source=source,
        dataset_name=dataset,
        kind=kind,
        breaking=kind in Drift.BREAKING,
        **{name: value[:255] for name, value in details.items()},
    )


def _store_dataset(source: Source, known: Dataset | None, schema: DatasetSchema) -> list[Drift]:
    dataset = known or Dataset(source=source, name=schema.name, key=list(schema.key))
    drifts: list[Drift] = []
    if known is None or known.missing_since is not None:
        drifts.append(_drift(source, schema.name, Drift.Kind.DATASET_ADDED))
    if known is not None and schema.key and list(schema.key) != known.key:
        before, after = ", ".join(known.key), ", ".join(schema.key)
        drifts.append(
            _drift(source, schema.name, Drift.Kind.KEY_CHANGED, before=before, after=after)
        )
        dataset.key = list(schema.key)
    dataset.unique_keys = [list(key) for key in schema.unique_keys]
    dataset.references = [
        {"fields": list(r.fields), "dataset": r.dataset, "target_fields": list(r.target_fields)}
        for r in schema.references
    ]
    dataset.format = schema.format
    dataset.writable = schema.writable
    dataset.row_count = schema.row_count
    dataset.size_bytes = schema.size_bytes
    dataset.discovered_at = now()
    dataset.missing_since = None
    dataset.save()
    drifts += _store_fields(dataset, schema, is_new=known is None)
    return drifts


def _store_fields(dataset: Dataset, schema: DatasetSchema, *, is_new: bool) -> list[Drift]:
    known = {} if is_new else {field.name: field for field in dataset.fields.all()}
    drifts: list[Drift] = []
    source, name = dataset.source, dataset.name
    for position, described in enumerate(schema.fields):
        field = known.pop(described.name, None)
        if field is None:
            field = Field(dataset=dataset, name=described.name)
            field.searchable = looks_searchable(described)
            if not is_new:
                drifts.append(
                    _drift(source, name, Drift.Kind.FIELD_ADDED, field_name=described.name)
                )
        elif field.type != str(described.type):
            drifts.append(
                _drift(
                    source,
                    name,
                    Drift.Kind.TYPE_CHANGED,
                    field_name=field.name,
                    before=field.type,
                    after=str(described.type),
                )
            )
        elif field.nullable != described.nullable:
            words = {True: "may be empty", False: "required"}
            drifts.append(
                _drift(
                    source,
                    name,
                    Drift.Kind.NULLABLE_CHANGED,
                    field_name=field.name,
                    before=words[field.nullable],
                    after=words[described.nullable],
                )
            )
        field.type = str(described.type)
        field.native_type = described.native_type[:200]
        field.nullable = described.nullable
        field.has_default = described.has_default
        field.server_assigned = described.server_assigned
        field.generated = described.generated
        field.position = position
        field.missing_since = None
        field.save()
    for field in known.values():
        if field.missing_since is None:
            drifts.append(_drift(source, name, Drift.Kind.FIELD_MISSING, field_name=field.name))
            field.missing_since = now()
            field.save(update_fields=["missing_since", "updated_at"])
    return drifts


def _mark_missing(source: Source, dataset: Dataset) -> list[Drift]:
    if dataset.missing_since is not None:
        return []
    dataset.missing_since = now()
    dataset.save(update_fields=["missing_since", "updated_at"])
    return [_drift(source, dataset.name, Drift.Kind.DATASET_MISSING)]


def _store_dependencies(source: Source, found: Mapping[str, DatasetSchema]) -> None:
    by_name = {d.name: d for d in source.datasets.all()}
    for schema in found.values():
        targets = [
            by_name[r.dataset]
            for r in schema.references
            if r.dataset in by_name and r.dataset != schema.name
        ]
        if targets:
            by_name[schema.name].depends_on.add(*targets)


@transaction.atomic
def acknowledge_drift(drift: Drift, *, actor: User | None) -> None:
    """Somebody has seen this difference."""
    require(actor, scoped_drifts, "change", drift)
    drift.acknowledged_at = now()
    drift.acknowledged_by = actor
    drift.save(update_fields=["acknowledged_at", "acknowledged_by", "updated_at"])
    record(Act.DRIFT_SEEN, drift, actor=actor)


def create_dataset(source: Source, schema: DatasetSchema, *, actor: User | None) -> Dataset:
    """Create a dataset at the source and remember it. Raises ConfigurationError."""
    require(actor, sources, "view", source)
    require_reach(actor, "change", source)
    require(actor, datasets, "add")
    connector = connector_for(source)
    if not connector_class(source.connector).capabilities.create_dataset:
        raise ConfigurationError(
            f"{source.connector} sources cannot create datasets", where=source.name
        )
    connector.create_dataset(schema)
    return store_dataset(source, connector.describe(schema.name), actor=actor)


@transaction.atomic
def store_dataset(source: Source, schema: DatasetSchema, *, actor: User | None) -> Dataset:
    """Remember one dataset of a source as it was described; the others stay as they are."""
    require(actor, sources, "view", source)
    require_reach(actor, "change", source)
    require(actor, datasets, "add")
    known = source.datasets.filter(name=schema.name).first()
    _store_dataset(source, known, schema)
    dataset = source.datasets.get(name=schema.name)
    if known is None:
        record(Act.DATASET_CREATED, dataset, actor=actor)
    return dataset


DATASET_FACTS = (
    "description",
    "update_frequency",
    "criticality",
    "owner",
    "required_freshness_minutes",
    "tolerated_loss_minutes",
)
"""What people keep of a dataset and no run goes by."""


def save_dataset_facts(
    dataset: Dataset, facts: Mapping[str, Any], *, actor: User | None
) -> Dataset:
    """Keep inventory facts (`DATASET_FACTS`) of a dataset; those not given stay."""
    require(actor, datasets, "change", dataset)
    for name in DATASET_FACTS:
        if name in facts:
            setattr(dataset, name, facts[name])
    with saving(dataset, Act.DATASET_CREATED, Act.DATASET_CHANGED, actor=actor):
        dataset.save()
    return dataset
