"""Who takes part, who wins, what is deleted, and what no plan may exceed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from pydantic import ValidationError

from apps.connectors.errors import LockstepError
from apps.connectors.types import NeutralType
from apps.console.wizard import draft as drafts
from apps.console.wizard.forms import PolicyForm, check_lines, policy_lines
from apps.console.wizard.steps.common import Context, Problems, both_datasets
from apps.core.admin import explain
from apps.engine.spec import Direction, FieldPolicySpec, MappingSpec, RuleSpec, TwoWaySpec
from apps.mappings.validation import left_target
from apps.rules.admin.policies import policy_words
from apps.rules.models import SyncDraft
from apps.rules.selectors import TWO_WAY_COLUMNS
from apps.rules.services import save_draft
from apps.rules.validation import require_policies


@dataclass(frozen=True, slots=True)
class _Forms:
    """The rule, its checks, and (two-way) the policies of single fields."""

    rule: PolicyForm
    checks: Any
    policies: Any = None

    def all_valid(self) -> bool:
        parts = [part for part in (self.rule, self.checks, self.policies) if part is not None]
        invalid = [part for part in parts if not part.is_valid()]  # each shows its own problems
        return not invalid


def show_policies(request: HttpRequest, draft: SyncDraft) -> Context:
    shown = _forms(request, draft)
    return {
        "form": shown.rule,
        "lines": shown.checks,
        "policy_lines": shown.policies,
        "policy_words": policy_words(),
        "policy_groups": _policy_groups(shown.rule),
    }


def keep_policies(request: HttpRequest, draft: SyncDraft) -> Problems:
    typed = _forms(request, draft)
    if not typed.all_valid():
        return ["Some values are not right: they are marked."]
    checks = _specs(typed.checks)
    policies = _specs(typed.policies) if typed.policies is not None else []
    problems = _two_way_problems(request, draft, typed.rule, policies)
    if problems:
        return problems
    draft.name = typed.rule.cleaned_data["name"]
    save_draft(
        draft,
        actor=request.user,  # type: ignore[arg-type]
        name=draft.name,
        policies=typed.rule.values(),
        checks=[spec.model_dump(mode="json") for spec in checks],
        field_policies=[spec.model_dump(mode="json") for spec in policies],
    )
    return []


def _specs(lines: Any) -> list[Any]:
    return [line.cleaned_data["spec"] for line in lines if line.cleaned_data.get("spec")]


def _two_way_problems(
    request: HttpRequest, draft: SyncDraft, form: PolicyForm, policies: list[FieldPolicySpec]
) -> Problems:
    """What the rule would be refused for, said here instead of at the dry run."""
    if not drafts.is_two_way(draft):
        return []
    columns = {name: form.cleaned_data[name] for name in TWO_WAY_COLUMNS}
    mapping = drafts.draft_mapping(draft, *both_datasets(request, draft))
    try:
        two_way = TwoWaySpec(**columns, fields=tuple(policies))
        require_policies(mapping, RuleSpec(direction=Direction.TWO_WAY, two_way=two_way))
    except ValidationError as error:
        return [item["msg"].removeprefix("Value error, ") for item in error.errors()]
    except LockstepError as error:
        return [explain(error)]
    return []


def _forms(request: HttpRequest, draft: SyncDraft) -> _Forms:
    left, right = both_datasets(request, draft)
    rule = drafts.draft_rule(draft)
    rule.name = draft.data.get("name") or draft.name
    if not draft.data.get("policies"):
        rule.cursor_field = rule.cursor_field or left.cursor_field
        rule.right_cursor_field = rule.right_cursor_field or right.cursor_field
    data = request.POST if request.method == "POST" else None
    form = PolicyForm(
        data,
        instance=rule,
        left_fields=list(left.schema().field_names),
        right_fields=list(right.schema().field_names),
    )
    checks = check_lines(data, drafts.draft_checks(draft))
    if not drafts.is_two_way(draft):
        return _Forms(form, checks)
    types = _contested(drafts.draft_mapping(draft, left, right))
    return _Forms(form, checks, policy_lines(data, types, drafts.draft_policies(draft)))


def _contested(mapping: MappingSpec) -> dict[str, NeutralType]:
    """Right fields that flow both ways and are no part of the key, with their types."""
    return {
        field.right: mapping.right.field(field.right).neutral_type
        for field in mapping.fields
        if left_target(field) and field.right not in mapping.key
    }


def _policy_groups(form: PolicyForm) -> list[tuple[str, str, list[Any]]]:
    groups = (
        ("What takes part", "Empty: every record.", ("filter", "on_leave")),
        (
            "How differences are found",
            "Full compares everything; cursor reads what changed since the last run.",
            ("delta", "cursor_field", "right_cursor_field", "cursor_lag_seconds", "sweep_minutes"),
        ),
        (
            "Deletes",
            "Only records that Lockstep wrote or matched are ever deleted.",
            ("on_delete", "mark_field", "mark_value"),
        ),
        (
            "Deletes on the right",
            "What happens to the left record.",
            ("on_right_delete", "left_mark_field", "left_mark_value"),
        ),
        (
            "Conflicts",
            "Who wins where both sides changed the same field to different values.",
            (
                "policy",
                "first_contact",
                "edit_delete",
                "left_modified",
                "right_modified",
                "minimum_gap_seconds",
                "tie",
            ),
        ),
        (
            "Approval",
            "When a plan waits for a person before it is written.",
            ("approval", "approval_hours", "four_eyes"),
        ),
        (
            "Guards",
            "Judged on the whole plan before anything is written. Empty: no limit.",
            (
                "max_deletes",
                "max_deletes_percent",
                "max_changes",
                "max_changes_percent",
                "max_rejections",
                "max_rejections_percent",
                "refuse_empty_source",
            ),
        ),
    )
    shown = [
        (title, note, [form[name] for name in names if name in form.fields])
        for title, note, names in groups
    ]
    return [group for group in shown if group[2]]
