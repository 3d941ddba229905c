"""When it runs, and the switch."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from apps.connectors.errors import LockstepError
from apps.console.wizard import draft as drafts
from apps.console.wizard.forms import ScheduleForm
from apps.console.wizard.steps.common import Context, Problems
from apps.core.admin import explain
from apps.core.clock import now
from apps.core.selectors import permits
from apps.rules.models import Rule, SyncDraft
from apps.rules.schedule import next_due
from apps.rules.services import save_draft, save_rule, set_enabled
from apps.runs.services import request_run


def show_enable(request: HttpRequest, draft: SyncDraft) -> Context:
    rule = drafts.draft_rule(draft)
    form = ScheduleForm(request.POST if request.method == "POST" else None, instance=rule)
    due = [] if form.is_bound and not form.is_valid() else next_due(rule, now(), 5)
    return {
        "form": form,
        "run": drafts.dry_run_of(draft),
        "proven": drafts.is_proven(draft),
        "both_ways": drafts.is_two_way(draft),
        "waits": rule.approval in (Rule.Approval.ALWAYS, Rule.Approval.FIRST),
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
        save_rule(
            rule,
            drafts.draft_checks(draft),
            drafts.draft_policies(draft),
            actor=request.user,  # type: ignore[arg-type]
        )
        if rule.schedule_kind != Rule.ScheduleKind.MANUAL:
            set_enabled(rule, True, actor=request.user)  # type: ignore[arg-type]
        if "run_now" in request.POST:
            request_run(rule, actor=request.user)  # type: ignore[arg-type]
    except LockstepError as error:
        return [explain(error)]
    return []
