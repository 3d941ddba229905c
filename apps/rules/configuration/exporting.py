"""What there is, as a configuration document. Secrets become `${SOURCE_SETTING}` placeholders."""

from __future__ import annotations

import re
from typing import Any

import yaml

from apps.connectors.registry import secret_names
from apps.engine.spec import TwoWaySpec
from apps.mappings.models import LookupTable, Mapping
from apps.rules.configuration.schema import (
    CheckSection,
    DatasetSection,
    Document,
    FieldPolicySection,
    FieldSection,
    GuardsSection,
    LookupSection,
    MappingSection,
    RuleSection,
    ScheduleSection,
    SourceSection,
    TwoWaySection,
)
from apps.rules.models import Rule
from apps.rules.selectors import rule_spec
from apps.sources.models import Dataset, Source


def export() -> Document:
    """Everything that a configuration file can hold."""
    datasets = Dataset.objects.select_related("source").prefetch_related("fields")
    sections = {str(dataset): dataset_section(dataset) for dataset in datasets}
    return Document(
        sources={source.name: source_section(source) for source in Source.objects.all()},
        lookups={table.name: lookup_section(table) for table in LookupTable.objects.all()},
        datasets={name: section for name, section in sections.items() if content(section)},
        mappings={mapping.name: mapping_section(mapping) for mapping in Mapping.objects.all()},
        rules={rule.name: rule_section(rule) for rule in Rule.objects.all()},
    )


def export_text() -> str:
    """The document as YAML, without what is as it is by default."""
    text: str = yaml.safe_dump(
        content(export()), sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )
    return text


def content(section: Any) -> dict[str, Any]:
    """A section as plain values, without defaults."""
    found: dict[str, Any] = section.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    fields = found.get("fields")
    if isinstance(section, Document):
        for mapping in found.get("mappings", {}).values():
            mapping["fields"] = _short_fields(mapping.get("fields", {}))
        for rule in found.get("rules", {}).values():
            _shorten_policies(rule.get("two_way", {}))
    elif isinstance(section, MappingSection) and fields:
        found["fields"] = _short_fields(fields)
    return found


def _short_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {
        right: field["from"] if list(field) == ["from"] else field
        for right, field in fields.items()
    }


def _shorten_policies(two_way: dict[str, Any]) -> None:
    for name, policy in two_way.get("fields", {}).items():
        if list(policy) == ["policy"]:
            two_way["fields"][name] = policy["policy"]


def placeholder(source: str, setting: str) -> str:
    """`${CRM_PASSWORD}` for the password of the source CRM."""
    words = re.sub(r"[^A-Za-z0-9]+", "_", f"{source}_{setting}").strip("_").upper()
    return f"${{{words if words[0].isalpha() else 'SOURCE_' + words}}}"


SOURCE_FACTS = (
    *("connector", "description", "owner", "criticality"),
    *("most_partitions", "most_rows_per_second", "most_bytes_per_second"),
)


def source_section(source: Source) -> SourceSection:
    settings = {name: _escaped(value) for name, value in source.settings.items()}
    stored = source.secrets_set_at
    for name in secret_names(source.connector):
        if name in stored:
            settings[name] = placeholder(source.name, name)
    return SourceSection(
        settings=settings, **{name: getattr(source, name) for name in SOURCE_FACTS}
    )


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value


def lookup_section(table: LookupTable) -> LookupSection:
    return LookupSection(
        description=table.description,
        entries=dict(table.entries.order_by("key").values_list("key", "value")),
    )


DATASET_FACTS = (
    "description",
    "cursor_field",
    "update_frequency",
    "criticality",
    "owner",
    "required_freshness_minutes",
    "tolerated_loss_minutes",
    "subject_field",
)


def dataset_section(dataset: Dataset) -> DatasetSection:
    return DatasetSection(
        **{name: getattr(dataset, name) for name in DATASET_FACTS},
        key=tuple(dataset.key),
        depends_on=tuple(sorted(str(d) for d in dataset.depends_on.select_related("source"))),
        fields={
            field.name: field.personal_data for field in dataset.fields.all() if field.personal_data
        },
        searchable=tuple(field.name for field in dataset.fields.all() if field.searchable),
    )


def mapping_section(mapping: Mapping) -> MappingSection:
    return MappingSection(
        left=str(mapping.left),
        right=str(mapping.right),
        key=tuple(mapping.key),
        match={item["field"]: tuple(item["normalise"]) for item in mapping.match},
        description=mapping.description,
        fields={
            row.right: FieldSection(
                from_="" if row.to_right or row.constant is not None else row.left,
                expression=row.to_right,
                constant=row.constant,
                default=row.default,
                back=row.to_left,
                back_to=row.left if row.to_right or row.constant is not None else "",
            )
            for row in mapping.fields.all()
        },
    )


SPEC_FACTS = (
    "direction",
    "delta",
    "cursor_field",
    "cursor_lag_seconds",
    "filter",
    "on_leave",
    "on_delete",
    "mark_field",
    "mark_value",
    "max_rejections",
    "max_rejections_percent",
    "approval",
    "approval_hours",
    "four_eyes",
)


def rule_section(rule: Rule) -> RuleSection:
    spec = rule_spec(rule)
    return RuleSection(
        **{name: getattr(spec, name) for name in SPEC_FACTS},
        two_way=two_way_section(spec.two_way) if spec.two_way else None,
        sweep_minutes=rule.sweep_minutes,
        mapping=rule.mapping.name,
        description=rule.description,
        enabled=rule.enabled,
        checks={
            check.name: CheckSection(**check.model_dump(exclude={"name"})) for check in spec.checks
        },
        guards=GuardsSection(**spec.guards.model_dump()),
        schedule=schedule_section(rule),
        depends_on=tuple(sorted(rule.depends_on.values_list("name", flat=True))),
    )


def two_way_section(spec: TwoWaySpec) -> TwoWaySection:
    return TwoWaySection(
        **spec.model_dump(exclude={"fields"}),
        fields={
            item.field: FieldPolicySection(**item.model_dump(exclude={"field"}))
            for item in spec.fields
        },
    )


def schedule_section(rule: Rule) -> ScheduleSection:
    kind = rule.schedule_kind
    return ScheduleSection(
        every_minutes=rule.every_minutes if kind == Rule.ScheduleKind.EVERY else None,
        daily_at=rule.daily_at if kind == Rule.ScheduleKind.DAILY else None,
        cron=rule.cron if kind == Rule.ScheduleKind.CRON else "",
        time_zone=rule.time_zone,
        verify_hours=rule.verify_hours,
    )
