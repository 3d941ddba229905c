"""Reads about rules; the scoped queryset of each model of this room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from graphlib import CycleError, TopologicalSorter
from typing import Any
from uuid import UUID

from django.db.models import Q, QuerySet
from pydantic import ValidationError

from apps.accounts.models import Level, level_of
from apps.accounts.selectors import granted
from apps.connectors.errors import ConfigurationError
from apps.core.selectors import narrows, reached, reaches_all, scoped
from apps.engine.spec import CheckKind, CheckSpec, FieldPolicySpec, Guards, RuleSpec, TwoWaySpec
from apps.mappings.models import FieldMapping, Mapping, MappingVersion
from apps.mappings.selectors import mapping_spec
from apps.rules.forest import Edge
from apps.rules.models import Check, FieldPolicy, Rule, RuleVersion, SyncDraft
from apps.rules.validation import two_way_notes
from apps.sources.models import Dataset


def rules(actor: Any, action: str = "view") -> QuerySet[Rule]:
    return scoped(
        Rule.objects.select_related("mapping__left__source", "mapping__right__source"),
        actor,
        action,
    )


@narrows(Rule)
def _granted_rules(rows: QuerySet[Rule], actor: Any, action: str) -> QuerySet[Rule]:
    return rows.filter(granted(Rule, actor, action))


@narrows(RuleVersion, Check, FieldPolicy)
def _granted_parts(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    """With their rule."""
    return rows.filter(rule__in=reached(Rule.objects.all(), actor, action).values("pk"))


@narrows(Mapping)
def _granted_mappings(rows: QuerySet[Mapping], actor: Any, action: str) -> QuerySet[Mapping]:
    """With a rule that uses it, or with both of its datasets, the right one as it is written to.

    To change it needs all of its rules: it says for each of them what is written.
    """
    own_rules = reached(Rule.objects.all(), actor, action)
    known = Dataset.objects.all()
    lefts = reached(known, actor, "view").values("pk")
    rights = reached(known, actor, action).values("pk")
    rows = rows.filter(Q(pk__in=own_rules.values("mapping")) | Q(left__in=lefts, right__in=rights))
    if level_of(action) < Level.CHANGE:
        return rows
    others = Rule.objects.exclude(pk__in=own_rules.values("pk"))
    return rows.exclude(pk__in=others.values("mapping"))


@narrows(MappingVersion, FieldMapping)
def _granted_mapping_parts(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    """With their mapping."""
    return rows.filter(mapping__in=reached(Mapping.objects.all(), actor, action).values("pk"))


def reached_rule_ids(actor: Any, action: str = "view") -> list[UUID]:
    """Ids of the rules that `actor` reaches; for rows that name rules by id.

    A list, not a subquery: planners estimate it, so that ledgers stay index reads.
    """
    return list(reached(Rule.objects.order_by(), actor, action).values_list("pk", flat=True))


def reaches_rule(actor: Any, rule_id: UUID, action: str = "view") -> bool:
    """Whether `actor` reaches what names this rule by id."""
    return reaches_all(actor) or rule_id in reached_rule_ids(actor, action)


def rule_versions(actor: Any, action: str = "view") -> QuerySet[RuleVersion]:
    return scoped(RuleVersion.objects.select_related("rule", "mapping_version"), actor, action)


def drafts(actor: Any) -> QuerySet[SyncDraft]:
    """Only a person's own drafts."""
    return SyncDraft.objects.filter(owner_id=actor.pk)


def check_spec(check: Check) -> CheckSpec:
    return CheckSpec(
        name=check.name,
        kind=CheckKind(check.kind),
        field=check.field,
        severity=check.severity,
        type=check.type,
        pattern=check.pattern,
        minimum=check.minimum or None,
        maximum=check.maximum or None,
        values=tuple(check.values),
        lookup=check.lookup,
        expression=check.expression,
    )


def field_policy_spec(row: FieldPolicy) -> FieldPolicySpec:
    return FieldPolicySpec(
        field=row.field, policy=row.policy, expression=row.expression, separator=row.separator
    )


TWO_WAY_COLUMNS = tuple(name for name in TwoWaySpec.model_fields if name != "fields")
"""Columns of a rule that say what its TwoWaySpec says, under the same names."""


def two_way_spec(rule: Rule) -> TwoWaySpec | None:
    """What a two-way rule says beside the rest; None for other directions."""
    if rule.direction != Rule.Direction.TWO_WAY:
        return None
    return TwoWaySpec(
        **{name: getattr(rule, name) for name in TWO_WAY_COLUMNS},
        fields=tuple(field_policy_spec(row) for row in rule.field_policies.all()),
    )


def rule_spec(rule: Rule) -> RuleSpec:
    """What the rule says now. Raises pydantic's ValidationError for contradictions."""
    return RuleSpec(
        direction=rule.direction,
        delta=rule.delta,
        cursor_field=rule.cursor_field,
        cursor_lag_seconds=rule.cursor_lag_seconds,
        sweep_minutes=rule.sweep_minutes,
        filter=rule.filter,
        on_leave=rule.on_leave,
        on_delete=rule.on_delete,
        mark_field=rule.mark_field,
        mark_value=rule.mark_value,
        checks=tuple(check_spec(check) for check in rule.checks.all()),
        max_rejections=rule.max_rejections,
        max_rejections_percent=rule.max_rejections_percent,
        guards=Guards(
            max_deletes=rule.max_deletes,
            max_deletes_percent=rule.max_deletes_percent,
            max_changes=rule.max_changes,
            max_changes_percent=rule.max_changes_percent,
            refuse_empty_source=rule.refuse_empty_source,
        ),
        two_way=two_way_spec(rule),
        approval=rule.approval,
        approval_hours=rule.approval_hours,
        four_eyes=rule.four_eyes,
    )


def rule_notes(rule: Rule) -> list[str]:
    """What is no mistake of the rule and its mapping, as they are now, but worth knowing."""
    try:
        return two_way_notes(mapping_spec(rule.mapping), rule_spec(rule))
    except ValidationError:
        return []


def rule_edges(rule: Rule) -> list[Edge]:
    """All rules as edges between datasets, this one as it is in memory and last."""
    others = Rule.objects.exclude(pk=rule.pk).order_by("name")
    known = others.values_list("name", "mapping__left_id", "mapping__right_id", "direction")
    own = (rule.name, rule.mapping.left_id, rule.mapping.right_id, rule.direction)
    return [
        Edge(name, left, right, direction == Rule.Direction.TWO_WAY)
        for name, left, right, direction in [*known, own]
    ]


def dependencies(chosen: Iterable[Rule], *, declared_only: bool = False) -> dict[UUID, set[UUID]]:
    """For each rule the ones among these that come first, all by id.

    Dependencies are the declared ones and those of the right datasets' foreign keys.
    """
    by_id = {rule.pk: rule for rule in chosen}
    by_right = {rule.mapping.right_id: rule.pk for rule in by_id.values()}
    graph: dict[UUID, set[UUID]] = {pk: set() for pk in by_id}
    declared = Rule.depends_on.through.objects.filter(from_rule__in=by_id)
    for rule_id, other in declared.values_list("from_rule_id", "to_rule_id"):
        if other in by_id:
            graph[rule_id].add(other)
    if declared_only:
        return graph
    implied = Dataset.depends_on.through.objects.filter(from_dataset__in=by_right)
    below: dict[UUID, set[UUID]] = defaultdict(set)
    for dataset_id, other in implied.values_list("from_dataset_id", "to_dataset_id"):
        if other in by_right:
            below[dataset_id].add(by_right[other])
    for rule in by_id.values():
        graph[rule.pk] |= below[rule.mapping.right_id] - {rule.pk}
    return graph


def in_dependency_order(chosen: Iterable[Rule]) -> list[Rule]:
    """Rules so that each comes after those it depends on.

    Raises ConfigurationError naming the circle.
    """
    by_id = {rule.pk: rule for rule in chosen}
    with suppress(CycleError):
        order = TopologicalSorter(dependencies(by_id.values())).static_order()
        return [by_id[pk] for pk in order]
    # Tables may refer to each other in a circle; only what people declared may not.
    declared = dependencies(by_id.values(), declared_only=True)
    try:
        return [by_id[pk] for pk in TopologicalSorter(declared).static_order()]
    except CycleError as error:
        names = " → ".join(by_id[pk].name for pk in error.args[1])
        raise ConfigurationError(
            f"rules depend on each other in a circle: {names}",
            remedy="Remove one of the dependencies.",
        ) from None
