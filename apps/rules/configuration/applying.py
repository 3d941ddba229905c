"""Create or update what a configuration file describes.

1. What the needed sources hold is read, outside any transaction.
2. A rehearsal applies everything in a transaction that is rolled back: it finds what is wrong and
   what would change before anything outside is touched. A dry application ends here.
3. Missing right datasets are created at their sources.
4. Everything is applied in one transaction.

An object that is in the file is what the file says: what is left out has its default, except the
facts of datasets and `enabled`, which stay. Objects that are not in the file are left alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any, TypeVar

from django.core.exceptions import ValidationError
from django.db import models, transaction

from apps.audit.actions import Act
from apps.audit.services import record, saving
from apps.connectors.errors import ConfigurationError, DatasetMissing
from apps.connectors.registry import connector_class
from apps.core.selectors import require
from apps.mappings.models import LookupTable
from apps.mappings.models import Mapping as MappingRow
from apps.mappings.selectors import LINK_PREFIX, linked_rules, lookup_tables
from apps.mappings.selectors import mappings as scoped_mappings
from apps.mappings.services import save_lookup, save_mapping
from apps.rules.configuration.diff import Action, Diff, facts
from apps.rules.configuration.exporting import (
    DATASET_FACTS,
    SOURCE_FACTS,
    SPEC_FACTS,
    dataset_section,
    lookup_section,
    mapping_section,
    rule_section,
    source_section,
)
from apps.rules.configuration.outside import (
    Outside,
    applicable_secrets,
    plain_settings,
    require_source,
)
from apps.rules.configuration.reading import ConfigurationFile
from apps.rules.configuration.resolving import explicit, new_dataset, sync_pairs
from apps.rules.configuration.schema import (
    DatasetSection,
    LookupSection,
    MappingSection,
    RuleSection,
    ScheduleSection,
    Section,
    SourceSection,
    split_reference,
)
from apps.rules.models import Rule
from apps.rules.selectors import TWO_WAY_COLUMNS, in_dependency_order
from apps.rules.selectors import rules as scoped_rules
from apps.rules.services import publish, save_rule, set_enabled
from apps.sources.models import Dataset, Source
from apps.sources.selectors import datasets, sources
from apps.sources.services import save_source, split_settings, store_dataset, store_discovery

if TYPE_CHECKING:
    from apps.accounts.models import User

Origin = tuple[str, ...]
Located = dict[str, tuple[Any, Origin]]
M = TypeVar("M", bound=models.Model)


def apply(
    file: ConfigurationFile,
    *,
    actor: User | None,
    dry: bool = False,
    variables: Mapping[str, str] | None = None,
    is_demo: bool = False,
) -> Diff:
    """Create or update everything that the file describes; `dry` only says what would happen.

    actor: None is the system itself. variables: what `${NAME}` stands for; the environment.
    is_demo marks sources and rules that are created. Raises ConfigurationError whose `where`
    names the place in the file, errors of the sources that are read, and PermissionDenied.
    """
    outside = Outside(file, os.environ if variables is None else variables, actor)
    outside.discover()
    with transaction.atomic():
        diff = _Pass(file, outside, actor, is_demo).apply()
        transaction.set_rollback(True)
    if dry:
        return diff
    outside.create_tables()
    with transaction.atomic():
        diff = _Pass(file, outside, actor, is_demo).apply()
        counts = {action.value: len(diff.of(action)) for action in Action}
        record(Act.CONFIGURATION_APPLIED, actor=actor, details=counts)
    return diff


class _Pass:
    """One pass over everything that a file describes, inside a transaction."""

    def __init__(
        self, file: ConfigurationFile, outside: Outside, actor: User | None, is_demo: bool
    ) -> None:
        self.file = file
        self.outside = outside
        self.actor = actor
        self.is_demo = is_demo
        self.diff = Diff()
        self.changed_mappings: set[str] = set()

    def apply(self) -> Diff:
        document = self.file.document
        for name, source in document.sources.items():
            with self.file.locating("sources", name):
                self._apply_source(name, source)
        for name, schemas in self.outside.found.items():
            store_discovery(require_source(name), schemas, actor=self.actor)
        for name, lookup in document.lookups.items():
            with self.file.locating("lookups", name):
                self._apply_lookup(name, lookup)
        mappings, rules = self._written_out()
        created = self._apply_datasets(document.datasets)
        for name, (mapping, origin) in mappings.items():
            with self.file.locating(*origin):
                self._apply_mapping(name, mapping)
        self._apply_datasets(created, must_exist=True)
        for name in self._rule_order(rules):
            rule, origin = rules[name]
            with self.file.locating(*origin):
                self._apply_rule(name, rule)
        self._publish_rules_of_changed_mappings()
        return self.diff

    def _written_out(self) -> tuple[Located, Located]:
        """All mappings and rules, those of `syncs` too, with their places in the file."""
        document = self.file.document
        mappings: Located = {n: (s, ("mappings", n)) for n, s in document.mappings.items()}
        rules: Located = {n: (s, ("rules", n)) for n, s in document.rules.items()}
        for name, sync in document.syncs.items():
            with self.file.locating("syncs", name):
                left = require_source(sync.from_)
                known = {d.name: d.schema() for d in left.datasets.filter(missing_since=None)}
                for pair in sync_pairs(name, sync, known):
                    # What is written out under `mappings` or `rules` counts.
                    mappings.setdefault(pair.name, (pair.mapping, ("syncs", name)))
                    rules.setdefault(pair.name, (pair.rule, ("syncs", name)))
        return mappings, rules

    def _apply_source(self, name: str, section: SourceSection) -> None:
        source = _find(Source, name)
        require(self.actor, sources, "save", source)
        values = self.outside.settings[name]
        kept = applicable_secrets(name, section.connector, values)
        plain, given = split_settings(section.connector, values)
        settings = plain_settings(section.connector, {**plain, **kept, **given})
        wanted = section.model_copy(update={"settings": settings})
        after = _dump(wanted) | dict.fromkeys(_secret_names({**kept, **given}), "(stored)")
        replaced = {key: value for key, value in given.items() if kept.get(key, value) != value}
        after |= dict.fromkeys(_secret_names(replaced), "(replaced)")
        entry = self.diff.note("source", name, _source_facts(source) if source else None, after)
        if entry.action is not Action.UNCHANGED:
            source = source or Source(name=name, is_demo=self.is_demo)
            for fact in SOURCE_FACTS:
                setattr(source, fact, getattr(section, fact))
            save_source(source, values, actor=self.actor)

    def _apply_lookup(self, name: str, section: LookupSection) -> None:
        table = _find(LookupTable, name)
        require(self.actor, lookup_tables, "save", table)
        before = _dump(lookup_section(table)) if table else None
        entry = self.diff.note("lookup", name, before, _dump(section))
        if entry.action is not Action.UNCHANGED:
            save_lookup(name, section.entries, section.description, actor=self.actor)

    def _apply_datasets(
        self, sections: Mapping[str, DatasetSection], *, must_exist: bool = False
    ) -> dict[str, DatasetSection]:
        """Returns those that do not exist yet, because a mapping is to create them."""
        later = {}
        for reference, section in sections.items():
            with self.file.locating("datasets", reference):
                if must_exist or _exists(reference):
                    self._apply_dataset(reference, _dataset(reference), section)
                else:
                    later[reference] = section
        return later

    def _apply_dataset(self, reference: str, dataset: Dataset, section: DatasetSection) -> None:
        known = dataset_section(dataset)
        named = {name: getattr(section, name) for name in section.model_fields_set}
        classes = {**known.fields, **section.fields}
        named["fields"] = {name: kind for name, kind in classes.items() if kind}
        if "depends_on" in named:
            named["depends_on"] = tuple(sorted(section.depends_on))
        wanted = known.model_copy(update=named)
        entry = self.diff.note("dataset", reference, _dump(known), _dump(wanted))
        if entry.action is Action.UNCHANGED:
            return
        require(self.actor, datasets, "change", dataset)
        searchable = wanted.searchable or ()
        named_fields = [*wanted.key, *section.fields, wanted.cursor_field, wanted.subject_field]
        named_fields += searchable
        _require_fields(named_fields, dataset)
        if reference in wanted.depends_on:
            raise ConfigurationError(f"{reference} depends on itself", where="depends_on")
        for name in DATASET_FACTS:
            setattr(dataset, name, getattr(wanted, name))
        dataset.key = list(wanted.key)
        _clean(dataset)
        with saving(dataset, Act.DATASET_CREATED, Act.DATASET_CHANGED, actor=self.actor):
            dataset.save()
        dataset.depends_on.set([_dataset(other) for other in wanted.depends_on])
        for field in dataset.fields.all():
            kind = section.fields.get(field.name, field.personal_data)
            marks = (kind, field.name in searchable)
            if (field.personal_data, field.searchable) != marks:
                field.personal_data, field.searchable = marks
                field.save()
                record(Act.FIELD_CHANGED, field, actor=self.actor)

    def _apply_mapping(self, name: str, section: MappingSection) -> None:
        left = _dataset(section.left)
        right = self._right_dataset(section, left)
        mapping = _find(MappingRow, name)
        require(self.actor, scoped_mappings, "save", mapping)
        wanted = explicit(section, left.schema(), right.schema())
        before = _dump(mapping_section(mapping)) if mapping else None
        entry = self.diff.note("mapping", name, before, _dump(wanted))
        if entry.action is Action.UNCHANGED:
            return
        if mapping is None:
            mapping = MappingRow(name=name)
        else:
            self.changed_mappings.add(name)
        mapping.left, mapping.right = left, right
        mapping.description = wanted.description
        fields = [field.spec(field_name) for field_name, field in wanted.fields.items()]
        save_mapping(mapping, fields, wanted.key, wanted.match_specs(), actor=self.actor)

    def _right_dataset(self, section: MappingSection, left: Dataset) -> Dataset:
        source_name, name = split_reference(section.right)
        if _exists(section.right) or not section.create:
            return _dataset(section.right)
        source = require_source(source_name)
        if not connector_class(source.connector).capabilities.create_dataset:
            raise ConfigurationError(f"{source.connector} sources cannot create datasets")
        schema = self.outside.tables.get((source_name, name))
        if schema is None:
            schema = new_dataset(section, left.schema(), name)
            self.outside.tables[source_name, name] = schema
        self.diff.note("table", section.right, None, {})
        return store_dataset(source, schema, actor=self.actor)

    def _rule_order(self, rules: Located) -> list[str]:
        """Rules after those they depend on or link to."""
        graph: dict[str, set[str]] = {}
        for name, (rule, _) in rules.items():
            mapping = _find(MappingRow, rule.mapping or name)
            rows = mapping.fields.all() if mapping else ()
            texts = [text for row in rows for text in (row.to_right, row.to_left)]
            texts += [rule.filter, *(check.expression for check in rule.checks.values())]
            links = {check.lookup.removeprefix(LINK_PREFIX) for check in rule.checks.values()}
            needed = {*rule.depends_on, *linked_rules(*texts), *links}
            graph[name] = (needed & rules.keys()) - {name}
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            names = " → ".join(error.args[1])
            raise ConfigurationError(
                f"rules depend on each other in a circle: {names}",
                where=self.file.place("rules"),
                remedy="Remove one of the dependencies.",
            ) from None

    def _apply_rule(self, name: str, section: RuleSection) -> None:
        mapping = _find(MappingRow, section.mapping or name)
        if mapping is None:
            raise ConfigurationError(
                f"there is no mapping '{section.mapping or name}'",
                remedy="Name one under `mapping:`.",
            )
        rule = _find(Rule, name)
        require(self.actor, scoped_rules, "save", rule)
        enabled = section.enabled if section.enabled is not None else bool(rule and rule.enabled)
        wanted = section.model_copy(
            update={
                "mapping": mapping.name,
                "enabled": enabled,
                "depends_on": tuple(sorted(section.depends_on)),
            }
        )
        before = _dump(rule_section(rule)) if rule else None
        entry = self.diff.note("rule", name, before, _dump(wanted))
        if entry.action is not Action.UNCHANGED:
            self._store_rule(rule or Rule(name=name, is_demo=self.is_demo), wanted, mapping)

    def _store_rule(self, rule: Rule, section: RuleSection, mapping: MappingRow) -> None:
        rule.mapping = mapping
        for name, value in _rule_columns(section).items():
            setattr(rule, name, value)
        _clean(rule)
        save_rule(rule, section.check_specs(), section.policy_specs(), actor=self.actor)
        rule.depends_on.set([_rule(other) for other in section.depends_on])
        in_dependency_order(Rule.objects.select_related("mapping__right"))
        if rule.enabled != section.enabled:
            set_enabled(rule, bool(section.enabled), actor=self.actor)

    def _publish_rules_of_changed_mappings(self) -> None:
        """A mapping that changed must suit the rules that the file says nothing new about."""
        for rule in Rule.objects.filter(mapping__name__in=self.changed_mappings):
            with self.file.locating("mappings", rule.mapping.name):
                publish(rule, actor=self.actor)


def _rule_columns(section: RuleSection) -> dict[str, Any]:
    names = ("description", "sweep_minutes", *SPEC_FACTS)
    columns = {name: getattr(section, name) for name in names}
    if section.two_way is not None:
        columns |= {name: getattr(section.two_way, name) for name in TWO_WAY_COLUMNS}
    return columns | section.guards.model_dump() | _schedule_columns(section.schedule)


def _schedule_columns(schedule: ScheduleSection) -> dict[str, Any]:
    kind = Rule.ScheduleKind.MANUAL
    if schedule.every_minutes is not None:
        kind = Rule.ScheduleKind.EVERY
    elif schedule.daily_at is not None:
        kind = Rule.ScheduleKind.DAILY
    elif schedule.cron:
        kind = Rule.ScheduleKind.CRON
    return {"schedule_kind": kind, **schedule.model_dump()}


def _dump(section: Section) -> dict[str, str]:
    return facts(section.model_dump(mode="json", by_alias=True))


def _source_facts(source: Source) -> dict[str, str]:
    section = source_section(source).model_copy(update={"settings": dict(source.settings)})
    return _dump(section) | dict.fromkeys(_secret_names(source.secrets()), "(stored)")


def _secret_names(secrets: Mapping[str, str]) -> list[str]:
    return [f"settings.{name}" for name in secrets]


def _find(model: type[M], name: str) -> M | None:
    return model._default_manager.filter(name=name).first()


def _rule(name: str) -> Rule:
    rule = _find(Rule, name)
    if rule is None:
        raise ConfigurationError(f"there is no rule '{name}'", where="depends_on")
    return rule


def _exists(reference: str) -> bool:
    source, name = split_reference(reference)
    return Dataset.objects.filter(source__name=source, name=name, missing_since=None).exists()


def _dataset(reference: str) -> Dataset:
    source, name = split_reference(reference)
    found = require_source(source).datasets.filter(name=name, missing_since=None).first()
    if found is None:
        raise DatasetMissing(
            f"there is no dataset '{reference}'",
            remedy="Correct the name, or write `create: true` where a mapping is to create it.",
        )
    return found


def _require_fields(names: list[str], dataset: Dataset) -> None:
    known = {field.name for field in dataset.fields.all()}
    for name in names:
        if name and name not in known:
            raise ConfigurationError(
                f"'{name}' is no field of {dataset}", remedy=f"Fields: {', '.join(sorted(known))}."
            )


def _clean(row: models.Model) -> None:
    """Refuse values that do not fit their columns. Raises ConfigurationError."""
    try:
        row.clean_fields(exclude={"mapping", "source", "key", "depends_on"})
    except ValidationError as error:
        text = "; ".join(f"{n}: {' '.join(m)}" for n, m in error.message_dict.items())
        raise ConfigurationError(text) from None
