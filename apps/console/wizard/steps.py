"""The seven steps: what each page shows, and what it keeps of what was typed.

`show` gives the context of the page. `keep` stores a POST in the draft; it returns the problems
that hinder going on (none: go on), each a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from apps.connectors.errors import LockstepError
from apps.connectors.registry import connector_class
from apps.console.wizard import draft as drafts
from apps.console.wizard.forms import PolicyForm, ScheduleForm, check_lines
from apps.core.admin import explain
from apps.core.clock import now
from apps.core.selectors import permits
from apps.engine.spec import FieldMappingSpec
from apps.mappings.admin.editor import add_suggestions, editor_for, posted_editor
from apps.mappings.services import (
    AUTHOR_PERMISSION,
    create_target,
    require_author,
    suggest,
    validate_mapping,
)
from apps.rules.models import Rule, SyncDraft
from apps.rules.schedule import next_due
from apps.rules.services import save_draft, save_rule, set_enabled
from apps.runs.admin.live import live_context
from apps.runs.services import request_run
from apps.sources.models import Dataset, Source
from apps.sources.selectors import sources

Context = dict[str, Any]
Problems = list[str]
MOST_KEY_FIELDS = 4


@dataclass(frozen=True, slots=True)
class StepInfo:
    name: str
    title: str
    needs: tuple[str, ...] = ()  # names in the draft's data that must be there first


STEPS = (
    StepInfo("sources", "Sources"),
    StepInfo("datasets", "Datasets", ("left_source", "right_source")),
    StepInfo("key", "Match key", ("left", "right")),
    StepInfo("mapping", "Mapping", ("left", "right", "key")),
    StepInfo("policies", "Policies", ("left", "right", "key", "fields")),
    StepInfo("dry-run", "Dry run", ("left", "right", "key", "fields", "policies")),
    StepInfo("enable", "Schedule & enable", ("left", "right", "key", "fields", "policies")),
)
BY_NAME = {step.name: step for step in STEPS}


def is_open(step: StepInfo, draft: SyncDraft) -> bool:
    """Whether everything that this step builds on is there."""
    return all(draft.data.get(name) for name in step.needs)


def next_step(step: StepInfo) -> StepInfo:
    return STEPS[min(len(STEPS) - 1, STEPS.index(step) + 1)]


# 1 Sources


def show_sources(request: HttpRequest, draft: SyncDraft) -> Context:
    known = list(sources(request.user))
    return {
        "known_sources": known,
        "writable": {
            source.pk for source in known if connector_class(source.connector).capabilities.write
        },
        "may_add": permits(request.user, Source, "add"),
    }


def keep_sources(request: HttpRequest, draft: SyncDraft) -> Problems:
    chosen = {side: request.POST.get(f"{side}_source", "") for side in ("left", "right")}
    known = {str(source.pk): source for source in sources(request.user)}
    if not all(pk in known for pk in chosen.values()):
        return ["Choose a source for each side; both sides may be the same one."]
    changes: dict[str, Any] = {f"{side}_source": pk for side, pk in chosen.items()}
    for side, pk in chosen.items():
        if draft.data.get(f"{side}_source") != pk:
            changes[side] = None
    save_draft(draft, actor=request.user, **changes)  # type: ignore[arg-type]
    return []


# 2 Datasets


def show_datasets(request: HttpRequest, draft: SyncDraft) -> Context:
    sides = []
    for side, words in (("left", "Records come from"), ("right", "Records go to")):
        source = drafts.draft_source(draft, side, request.user)
        found = source.datasets.filter(missing_since=None) if source else []
        sides.append({"side": side, "words": words, "source": source, "datasets": found})
    right = sides[1]["source"]
    creates = right and connector_class(right.connector).capabilities.create_dataset
    return {
        "sides": sides,
        "may_create": bool(creates) and permits(request.user, Dataset, "add"),
        "may_discover": permits(request.user, Source, "discover"),
    }


def keep_datasets(request: HttpRequest, draft: SyncDraft) -> Problems:
    left = _chosen_dataset(request, draft, "left")
    if left is None:
        return ["Choose the dataset that records come from."]
    if request.POST.get("right") == "create":
        try:
            right = _created_dataset(request, draft, left)
        except LockstepError as error:
            return [explain(error)]
    else:
        right = _chosen_dataset(request, draft, "right")
    if right is None:
        return ["Choose the dataset that records go to, or have it created."]
    if left == right:
        return ["Both sides are the same dataset: choose another one on the right."]
    changes: dict[str, Any] = {"left": str(left.pk), "right": str(right.pk)}
    if any(draft.data.get(side) != changes[side] for side in ("left", "right")):
        changes.update(key=None, fields=None, key_pairs=None)
    if not draft.data.get("name"):
        draft.name = changes["name"] = f"{left.name} → {right.source.name} {right.name}"[:150]
    save_draft(draft, actor=request.user, **changes)  # type: ignore[arg-type]
    return []


def _chosen_dataset(request: HttpRequest, draft: SyncDraft, side: str) -> Dataset | None:
    source = drafts.draft_source(draft, side, request.user)
    if source is None or not request.POST.get(side):
        return None
    return next((d for d in source.datasets.all() if str(d.pk) == request.POST[side]), None)


def _created_dataset(request: HttpRequest, draft: SyncDraft, left: Dataset) -> Dataset | None:
    source = drafts.draft_source(draft, "right", request.user)
    if source is None or not permits(request.user, Dataset, "add"):
        raise PermissionDenied
    name = request.POST.get("new_name", "").strip() or left.name
    naming = request.POST.get("naming", "same")
    naming = naming if naming == "snake_case" else "same"
    return create_target(left, source, name, naming, actor=request.user)  # type: ignore[arg-type]


# 3 Match key


def show_key(request: HttpRequest, draft: SyncDraft) -> Context:
    left, right = _datasets(request, draft)
    pairs = draft.data.get("key_pairs") or _proposed_pairs(left, right, request.user)
    lines = [*pairs, *[["", ""]] * (MOST_KEY_FIELDS - len(pairs))]
    return {
        "left": left,
        "right": right,
        "lines": list(enumerate(lines)),
        "left_names": left.schema().field_names,
        "right_names": right.schema().field_names,
    }


def keep_key(request: HttpRequest, draft: SyncDraft) -> Problems:
    pairs = posted_pairs(request)
    if not pairs:
        return ["Choose at least one pair of fields that identifies a record on both sides."]
    if len({right for _, right in pairs}) < len(pairs):
        return ["A right field stands in two lines: each may be part of the key once."]
    kept = drafts.draft_fields(draft)
    of_key = {right: left for left, right in pairs}
    others = [field for field in kept if field.right not in of_key]
    keyed = [FieldMappingSpec(right=right, left=left) for left, right in pairs]
    save_draft(
        draft,
        actor=request.user,  # type: ignore[arg-type]
        key_pairs=pairs,
        key=list(of_key),
        fields=[field.model_dump(mode="json") for field in [*keyed, *others]],
        mapping_begun=bool(kept) and bool(others),
    )
    return []


def posted_pairs(request: HttpRequest) -> list[list[str]]:
    """Pairs of left and right field names that are both chosen."""
    lines = [
        [request.POST.get(f"key-{n}-left", ""), request.POST.get(f"key-{n}-right", "")]
        for n in range(MOST_KEY_FIELDS)
    ]
    return [line for line in lines if all(line)]


def _proposed_pairs(left: Dataset, right: Dataset, actor: Any) -> list[list[str]]:
    """The right dataset's key and the left fields that look like it, else both sides' own keys."""
    partners = {pair.right: pair.left for pair in suggest(left, right, actor=actor)}
    if not set(right.key) <= partners.keys() and len(left.key) == len(right.key):
        return [list(pair) for pair in zip(left.key, right.key, strict=True)][:MOST_KEY_FIELDS]
    return [[partners[name], name] for name in right.key if name in partners][:MOST_KEY_FIELDS]


def _datasets(request: HttpRequest, draft: SyncDraft) -> tuple[Dataset, Dataset]:
    left = drafts.draft_dataset(draft, "left", request.user)
    right = drafts.draft_dataset(draft, "right", request.user)
    if left is None or right is None:
        raise PermissionDenied("the datasets of this draft are not there, or not for you")
    return left, right


# 4 Mapping


def show_mapping(request: HttpRequest, draft: SyncDraft) -> Context:
    left, right = _datasets(request, draft)
    if request.method == "POST":
        editor = posted_editor(left, right, request.POST)
        for problem in getattr(request, "row_errors", []):
            editor.place_error(problem)
    else:
        editor = editor_for(left, right, drafts.draft_fields(draft), draft.data.get("key") or ())
    if not draft.data.get("mapping_begun"):
        add_suggestions(editor, request.user)
    return {
        "editor": editor,
        "left": left,
        "right": right,
        "may_save": True,
        "may_author": request.user.has_perm(AUTHOR_PERMISSION),
    }


def keep_mapping(request: HttpRequest, draft: SyncDraft) -> Problems:
    left, right = _datasets(request, draft)
    editor = posted_editor(left, right, request.POST)
    specs = editor.specs()
    if any(row.errors for row in editor.rows):
        return ["Some rows are not complete: they are marked."]
    if editor.unmapped_required:
        names = ", ".join(row.right for row in editor.unmapped_required)
        return [f"Required fields without a value: {names}. Every new record would be refused."]
    try:
        require_author(request.user, [], [f.to_right for f in specs])  # type: ignore[arg-type]
        validate_mapping(editor.mapping_spec())
    except (LockstepError, PermissionDenied) as error:
        request.row_errors = [error]  # type: ignore[attr-defined]
        return [explain(error)]
    fields = [field.model_dump(mode="json") for field in specs]
    save_draft(
        draft,
        actor=request.user,  # type: ignore[arg-type]
        fields=fields,
        key=list(editor.key),
        mapping_begun=True,
    )
    return []


# 5 Policies


def show_policies(request: HttpRequest, draft: SyncDraft) -> Context:
    form, lines = _policy_forms(request, draft)
    return {"form": form, "lines": lines, "policy_groups": _policy_groups(form)}


def keep_policies(request: HttpRequest, draft: SyncDraft) -> Problems:
    form, lines = _policy_forms(request, draft)
    if not (form.is_valid() and lines.is_valid()):
        return ["Some values are not right: they are marked."]
    specs = [line.cleaned_data["spec"] for line in lines if line.cleaned_data.get("spec")]
    draft.name = form.cleaned_data["name"]
    save_draft(
        draft,
        actor=request.user,  # type: ignore[arg-type]
        name=draft.name,
        policies=form.values(),
        checks=[spec.model_dump(mode="json") for spec in specs],
    )
    return []


def _policy_forms(request: HttpRequest, draft: SyncDraft) -> tuple[PolicyForm, Any]:
    left, right = _datasets(request, draft)
    rule = drafts.draft_rule(draft)
    rule.name = draft.data.get("name") or draft.name
    if not draft.data.get("policies") and left.cursor_field:
        rule.cursor_field = left.cursor_field
    data = request.POST if request.method == "POST" else None
    form = PolicyForm(
        data,
        instance=rule,
        left_fields=list(left.schema().field_names),
        right_fields=list(right.schema().field_names),
    )
    return form, check_lines(data, drafts.draft_checks(draft))


def _policy_groups(form: PolicyForm) -> list[tuple[str, str, list[Any]]]:
    groups = (
        ("What takes part", "Empty: every record.", ("filter", "on_leave")),
        (
            "How differences are found",
            "Full compares everything; cursor reads what changed since the last run.",
            ("delta", "cursor_field", "cursor_lag_seconds", "sweep_minutes"),
        ),
        (
            "Deletes",
            "Only records that Lockstep wrote or matched are ever deleted.",
            ("on_delete", "mark_field", "mark_value"),
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
    return [(title, note, [form[name] for name in names]) for title, note, names in groups]


# 6 Dry run


def show_dry_run(request: HttpRequest, draft: SyncDraft) -> Context:
    run = drafts.dry_run_of(draft)
    left, right = _datasets(request, draft)
    context: Context = {
        "left": left,
        "right": right,
        "run": run,
        "proven": drafts.is_proven(draft),
        "field_total": len(draft.data.get("fields") or []),
    }
    return {**context, **live_context(run)} if run else context


def keep_dry_run(request: HttpRequest, draft: SyncDraft) -> Problems:
    return [] if drafts.is_proven(draft) else ["Have a dry run of this version first."]


# 7 Schedule and enable


def show_enable(request: HttpRequest, draft: SyncDraft) -> Context:
    rule = drafts.draft_rule(draft)
    form = ScheduleForm(request.POST if request.method == "POST" else None, instance=rule)
    due = [] if form.is_bound and not form.is_valid() else next_due(rule, now(), 5)
    return {
        "form": form,
        "run": drafts.dry_run_of(draft),
        "proven": drafts.is_proven(draft),
        "due_times": due,
    }


def keep_enable(request: HttpRequest, draft: SyncDraft) -> Problems:
    """Store the schedule; enable the rule only where a dry run proves this very version."""
    rule = drafts.draft_rule(draft)
    form = ScheduleForm(request.POST, instance=rule)
    if not form.is_valid():
        return ["The schedule is not complete."]
    save_draft(draft, actor=request.user, schedule=form.values())  # type: ignore[arg-type]
    if not drafts.is_proven(draft) or draft.rule is None:
        return ["Have a dry run of this very version first (step 6)."]
    if not permits(request.user, Rule, "change"):
        raise PermissionDenied("enabling a rule needs the permission to change rules")
    try:
        save_rule(rule, drafts.draft_checks(draft), actor=request.user)  # type: ignore[arg-type]
        if rule.schedule_kind != Rule.ScheduleKind.MANUAL:
            set_enabled(rule, True, actor=request.user)  # type: ignore[arg-type]
        if "run_now" in request.POST:
            request_run(rule, actor=request.user)  # type: ignore[arg-type]
    except LockstepError as error:
        return [explain(error)]
    return []


SHOW = {
    "sources": show_sources,
    "datasets": show_datasets,
    "key": show_key,
    "mapping": show_mapping,
    "policies": show_policies,
    "dry-run": show_dry_run,
    "enable": show_enable,
}
KEEP = {
    "sources": keep_sources,
    "datasets": keep_datasets,
    "key": keep_key,
    "mapping": keep_mapping,
    "policies": keep_policies,
    "dry-run": keep_dry_run,
    "enable": keep_enable,
}
