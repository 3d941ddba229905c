"""What a draft says, read as the things it stands for, and turned into a mapping and a rule."""

from __future__ import annotations

from datetime import time
from typing import Any

from django.db import transaction
from django.http import Http404, HttpRequest
from pydantic import TypeAdapter

from apps.connectors.errors import ConfigurationError
from apps.engine.spec import (
    CheckSpec,
    DatasetSpec,
    FieldMappingSpec,
    FieldPolicySpec,
    MappingSpec,
    MatchFieldSpec,
)
from apps.mappings.models import Mapping
from apps.mappings.services import content_digest, save_mapping
from apps.rules.models import Rule, SyncDraft
from apps.rules.selectors import TWO_WAY_COLUMNS, drafts
from apps.rules.services import save_draft, save_rule
from apps.runs.models import Run, RunStatus
from apps.sources.models import Dataset, Source
from apps.sources.selectors import datasets, sources

CONTENT = (
    *("left", "right", "direction", "key", "match", "fields", "policies", "field_policies"),
    *("checks", "name"),
)
POLICY_FIELDS = (
    "filter",
    "on_leave",
    "delta",
    "cursor_field",
    "cursor_lag_seconds",
    "sweep_minutes",
    "on_delete",
    "mark_field",
    "mark_value",
    "max_deletes",
    "max_deletes_percent",
    "max_changes",
    "max_changes_percent",
    "max_rejections",
    "max_rejections_percent",
    "refuse_empty_source",
)
APPROVAL_FIELDS = ("approval", "approval_hours", "four_eyes")
RULE_FIELDS = (*POLICY_FIELDS, *APPROVAL_FIELDS, *TWO_WAY_COLUMNS)
SCHEDULE_FIELDS = ("schedule_kind", "every_minutes", "daily_at", "cron", "time_zone")


def own_draft(request: HttpRequest, draft_id: Any) -> SyncDraft:
    """This person's draft, or 404."""
    draft = drafts(request.user).filter(pk=draft_id).select_related("rule").first()
    if draft is None:
        raise Http404("no such draft of yours")
    return draft


def draft_source(draft: SyncDraft, side: str, actor: Any) -> Source | None:
    return sources(actor).filter(pk=draft.data.get(f"{side}_source") or None).first()


def draft_dataset(draft: SyncDraft, side: str, actor: Any) -> Dataset | None:
    return datasets(actor).filter(pk=draft.data.get(side) or None).first()


def draft_fields(draft: SyncDraft) -> list[FieldMappingSpec]:
    return TypeAdapter(list[FieldMappingSpec]).validate_python(draft.data.get("fields") or [])


def draft_checks(draft: SyncDraft) -> list[CheckSpec]:
    return TypeAdapter(list[CheckSpec]).validate_python(draft.data.get("checks") or [])


def draft_policies(draft: SyncDraft) -> list[FieldPolicySpec]:
    """The policies of single fields; none where the draft is not two-way."""
    stored = draft.data.get("field_policies") if is_two_way(draft) else None
    return TypeAdapter(list[FieldPolicySpec]).validate_python(stored or [])


def draft_match(draft: SyncDraft) -> list[MatchFieldSpec]:
    return TypeAdapter(list[MatchFieldSpec]).validate_python(draft.data.get("match") or [])


def is_two_way(draft: SyncDraft) -> bool:
    return draft.data.get("direction") == Rule.Direction.TWO_WAY


def draft_mapping(draft: SyncDraft, left: Dataset, right: Dataset) -> MappingSpec:
    """The mapping that the draft describes so far, between its datasets."""
    return MappingSpec(
        left=DatasetSpec.of(left.schema()),
        right=DatasetSpec.of(right.schema()),
        fields=tuple(draft_fields(draft)),
        key=tuple(draft.data.get("key") or ()),
        match=tuple(draft_match(draft)),
    )


def content_mark(draft: SyncDraft) -> str:
    """Tells whether anything that a run depends on has changed."""
    return content_digest({name: draft.data.get(name) for name in CONTENT})


def draft_rule(draft: SyncDraft) -> Rule:
    """The rule as the draft says, unsaved where there is none yet."""
    rule = draft.rule or Rule()
    rule.direction = draft.data.get("direction") or Rule.Direction.LEFT_TO_RIGHT
    if is_two_way(draft) and not draft.data.get("policies"):
        rule.approval = Rule.Approval.FIRST
    apply_values(rule, draft.data.get("policies") or {}, RULE_FIELDS)
    apply_values(rule, draft.data.get("schedule") or {}, SCHEDULE_FIELDS)
    return rule


def apply_values(rule: Rule, values: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if name in values:
            setattr(rule, name, values[name])
    if isinstance(rule.daily_at, str):
        rule.daily_at = time.fromisoformat(rule.daily_at)


@transaction.atomic
def materialise(draft: SyncDraft, actor: Any) -> Rule:
    """Store the mapping and the rule (not enabled) that the draft describes.

    Raises ConfigurationError, ExpressionRefused or PermissionDenied.
    """
    left, right = draft_dataset(draft, "left", actor), draft_dataset(draft, "right", actor)
    if left is None or right is None:
        raise ConfigurationError("the datasets are not chosen", remedy="Go back to step 2.")
    rule = draft_rule(draft)
    mapping = rule.mapping if draft.rule else Mapping()
    mapping.left, mapping.right = left, right
    mapping.name = rule.name = _free_name(draft, rule)
    key = draft.data.get("key") or []
    save_mapping(mapping, draft_fields(draft), key, draft_match(draft), actor=actor)
    rule.mapping = mapping
    save_rule(rule, draft_checks(draft), draft_policies(draft), actor=actor)
    draft.rule = rule
    save_draft(draft, actor=actor, materialised=content_mark(draft))
    return rule


def _free_name(draft: SyncDraft, rule: Rule) -> str:
    name = str(draft.data.get("name") or draft.name)
    taken = Rule.objects.exclude(pk=rule.pk).filter(name=name).exists() or (
        Mapping.objects.exclude(pk=rule.mapping_id).filter(name=name).exists()
    )
    if taken:
        raise ConfigurationError(
            f"there is a rule or mapping called '{name}' already",
            remedy="Choose another name in step 5.",
        )
    return name


def dry_run_of(draft: SyncDraft) -> Run | None:
    """The draft's last dry run."""
    runs = Run.objects.filter(pk=draft.data.get("dry_run") or None)
    return runs.select_related("rule__mapping__right__source", "version").first()


def is_proven(draft: SyncDraft) -> bool:
    """Whether a finished dry run shows what this very version would do."""
    run = dry_run_of(draft)
    if run is None or run.status != RunStatus.PLANNED or draft.rule is None:
        return False
    unchanged = draft.data.get("materialised") == content_mark(draft)
    current = draft.rule.current_version
    return unchanged and current is not None and run.version_id == current.pk
