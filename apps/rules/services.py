"""Writes about rules: save, publish a version, enable, pause.

`actor` is who asks; None is the system itself: the command line, the demo, workers. All raise
PermissionDenied where the actor may not do this to this object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from django.db import transaction
from pydantic import ValidationError

from apps.accounts.services import grant_to_author
from apps.audit.actions import Act
from apps.audit.services import record, saving
from apps.connectors.errors import ConfigurationError
from apps.core.clock import now
from apps.core.selectors import require, require_reach
from apps.engine.reconcile import compile_two_way
from apps.engine.spec import CheckSpec, FieldPolicySpec, MappingSpec, RuleSpec
from apps.engine.transform import compile_transform
from apps.mappings.selectors import (
    LINK_PREFIX,
    linked_rules,
    lookup_names,
    mapping_expressions,
    mappings,
)
from apps.mappings.services import content_digest, require_author
from apps.mappings.services import publish as publish_mapping
from apps.rules.models import Check, FieldPolicy, Rule, RuleVersion, SyncDraft
from apps.rules.schedule import validate_schedule
from apps.rules.selectors import (
    drafts,
    field_policy_spec,
    in_dependency_order,
    rule_edges,
    rule_spec,
    rules,
)
from apps.rules.validation import require_cursors, require_forest, require_policies, require_sides

if TYPE_CHECKING:
    from apps.accounts.models import User

SCHEDULE_COLUMNS = ("schedule_kind", "every_minutes", "daily_at", "cron", "time_zone")


def spec_of(rule: Rule) -> RuleSpec:
    """What the rule says. Raises ConfigurationError for contradictions."""
    try:
        return rule_spec(rule)
    except ValidationError as error:
        messages = "; ".join(item["msg"] for item in error.errors(include_url=False))
        raise ConfigurationError(messages, where=f"rule '{rule.name}'") from None


@transaction.atomic
def save_rule(
    rule: Rule,
    checks: Sequence[CheckSpec],
    policies: Sequence[FieldPolicySpec] = (),
    *,
    actor: User | None,
) -> RuleVersion:
    """Store a rule with exactly these checks and field policies, and publish it.

    Raises ConfigurationError naming what is wrong, or PermissionDenied.
    """
    require(actor, rules, "save", rule)
    _require_sides(rule, actor)
    _require_name(rule)
    is_new = rule._state.adding
    before = rule.current_version if rule.created_at else None
    if rule.enabled and _schedule_differs(rule):
        rule.schedule_since = now()  # a time that has passed was not missed
    with saving(rule, Act.RULE_CREATED, Act.RULE_CHANGED, actor=actor) as details:
        rule.save()
        if is_new:
            grant_to_author(rule, actor=actor)
        _store_checks(rule, checks)
        _store_policies(rule, policies)
        version = publish(rule, actor=actor)
        if version != before:
            details["version"] = version.number
    return version


def _schedule_differs(rule: Rule) -> bool:
    """Whether the rule says other times than what is stored."""
    stored = Rule.objects.filter(pk=rule.pk).first()
    return stored is not None and any(
        getattr(stored, name) != getattr(rule, name) for name in SCHEDULE_COLUMNS
    )


def _require_sides(rule: Rule, actor: User | None) -> None:
    """Where mapping or direction are others than before: what is written to is to be changed."""
    stored = Rule.objects.filter(pk=rule.pk).values_list("mapping_id", "direction").first()
    if stored == (rule.mapping_id, rule.direction):
        return
    require_reach(actor, "view", rule.mapping)
    is_two_way = rule.direction == Rule.Direction.TWO_WAY
    require_reach(actor, "change" if is_two_way else "view", rule.mapping.left)
    require_reach(actor, "change", rule.mapping.right)


def _require_name(rule: Rule) -> None:
    """A rule into whose links others look keeps its name: they know it by that."""
    old = Rule.objects.filter(pk=rule.pk).values_list("name", flat=True).first()
    if old is None or old == rule.name:
        return
    versions = ((other.name, other.current_version) for other in Rule.objects.exclude(pk=rule.pk))
    users = sorted(
        name
        for name, version in versions
        if version and old in _links(version.mapping_version.spec(), version.spec())
    )
    if users:
        raise ConfigurationError(
            f"'{old}' cannot be renamed: link('{old}') is used by {', '.join(users)}",
            where="name",
            remedy="Take link(…) out of these rules first, and put it in again with the new name.",
        )


def _links(mapping: MappingSpec, spec: RuleSpec) -> set[str]:
    """Names of the rules whose links a rule looks into."""
    return linked_rules(*mapping_expressions(mapping), *_expressions(spec)) | _linked_checks(spec)


def _store_checks(rule: Rule, checks: Sequence[CheckSpec]) -> None:
    known = {check.name: check for check in rule.checks.all()}
    for position, spec in enumerate(checks):
        check = known.pop(spec.name, None) or Check(rule=rule, name=spec.name)
        check.position = position
        for name, value in spec.model_dump(mode="json", exclude={"name"}).items():
            setattr(check, name, "" if value is None else value)
        check.save()
    for check in known.values():
        check.delete()


def _store_policies(rule: Rule, policies: Sequence[FieldPolicySpec]) -> None:
    known = {row.field: row for row in rule.field_policies.all()}
    for spec in policies:
        row = known.pop(spec.field, None) or FieldPolicy(rule=rule, field=spec.field)
        if row.created_at is None or field_policy_spec(row) != spec:
            row.policy, row.expression = spec.policy.value, spec.expression
            row.separator = spec.separator
            row.save()
    for row in known.values():
        row.delete()


def validate_rule(rule: Rule) -> None:
    """Check schedule, references, dependencies and circles. Raises ConfigurationError."""
    validate_schedule(rule)
    spec = spec_of(rule)
    names = {field.name for field in rule.mapping.left.fields.all()}
    if spec.cursor_field and spec.cursor_field not in names:
        raise ConfigurationError(
            f"'{spec.cursor_field}' is no field of {rule.mapping.left.name}", where="cursor field"
        )
    in_dependency_order([rule, *Rule.objects.exclude(pk=rule.pk).select_related("mapping")])
    require_forest(rule_edges(rule))


@transaction.atomic
def publish(rule: Rule, *, actor: User | None) -> RuleVersion:
    """The version that says what rule and mapping say now; a new one if that is something new.

    This needs no permission but that for new expressions: it says nothing that is not stored.
    actor: whose version it is. Raises ConfigurationError, ExpressionRefused or PermissionDenied.
    """
    stored = Rule.objects.select_related("mapping__left").prefetch_related("checks")
    rule = stored.get(pk=rule.pk)
    validate_rule(rule)
    spec = spec_of(rule)
    mapping_version = publish_mapping(rule.mapping, actor=actor)
    latest = rule.current_version
    before = latest.spec() if latest else RuleSpec()
    require_author(actor, _expressions(before), _expressions(spec))
    mapping = mapping_version.spec()
    require_cursors(mapping, spec)
    require_policies(mapping, spec)
    require_sides(rule, mapping, spec)
    links = _links(mapping, spec)
    _require_rules(links, rule)
    names = lookup_names() | {LINK_PREFIX + name for name in links}
    if spec.two_way is None:
        compile_transform(mapping, spec, lookups=names)
    else:
        compile_two_way(mapping, spec, lookups=names)
    data = spec.model_dump(mode="json")
    digest = content_digest([data, mapping_version.digest])
    if latest is not None and latest.digest == digest:
        return latest
    return RuleVersion.objects.create(
        rule=rule,
        number=latest.number + 1 if latest else 1,
        mapping_version=mapping_version,
        spec_data=data,
        digest=digest,
        created_by=actor,
    )


def _expressions(spec: RuleSpec) -> list[str]:
    policies = spec.two_way.fields if spec.two_way else ()
    return [
        spec.filter,
        *(check.expression for check in spec.checks),
        *(policy.expression for policy in policies),
    ]


def _linked_checks(spec: RuleSpec) -> set[str]:
    """Names of the rules whose links reference checks look into."""
    lookups = [check.lookup for check in spec.checks if check.lookup.startswith(LINK_PREFIX)]
    return {name.removeprefix(LINK_PREFIX) for name in lookups}


def _require_rules(names: set[str], rule: Rule) -> None:
    missing = names - set(Rule.objects.values_list("name", flat=True))
    if missing:
        raise ConfigurationError(
            f"there is no rule to link to: {', '.join(sorted(missing))}",
            where=f"rule '{rule.name}'",
        )


@transaction.atomic
def set_enabled(rule: Rule, enabled: bool, *, actor: User | None) -> None:
    """Let the schedule start runs, or not."""
    require(actor, rules, "change", rule)
    validate_schedule(rule)
    rule.enabled = enabled
    rule.schedule_since = now() if enabled else None
    rule.save(update_fields=["enabled", "schedule_since", "updated_at"])
    record(Act.RULE_ENABLED if enabled else Act.RULE_DISABLED, rule, actor=actor)


@transaction.atomic
def set_rule_paused(rule: Rule, paused: bool, reason: str = "", *, actor: User | None) -> None:
    """Let runs of the rule start, or not."""
    require(actor, rules, "pause", rule)
    rule.paused = paused
    rule._change_reason = reason or ("paused" if paused else "resumed")
    rule.save(update_fields=["paused", "updated_at"])
    act = Act.RULE_PAUSED if paused else Act.RULE_RESUMED
    record(act, rule, actor=actor, reason=reason)


def start_draft(*, actor: User) -> SyncDraft:
    """A new sync that this person begins to set up; it makes a mapping and a rule."""
    require(actor, mappings, "add")
    require(actor, rules, "add")
    return SyncDraft.objects.create(owner=actor)


def save_draft(
    draft: SyncDraft, *, actor: User | None, step: str | None = None, **changes: Any
) -> None:
    """Keep what a step of the setting up says, so that it can be left and resumed."""
    require(actor, lambda owner, _: drafts(owner), "change", draft)
    draft.data = {**draft.data, **changes}
    if step is not None:
        draft.step = step
    draft.save()
