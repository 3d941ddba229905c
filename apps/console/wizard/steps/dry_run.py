"""What the first run would do."""

from __future__ import annotations

from django.http import HttpRequest

from apps.console.wizard import draft as drafts
from apps.console.wizard.steps.common import Context, Problems, both_datasets
from apps.rules.models import SyncDraft
from apps.rules.selectors import rule_notes
from apps.runs.admin.live import live_context


def show_dry_run(request: HttpRequest, draft: SyncDraft) -> Context:
    run = drafts.dry_run_of(draft)
    left, right = both_datasets(request, draft)
    context: Context = {
        "left": left,
        "right": right,
        "run": run,
        "both_ways": drafts.is_two_way(draft),
        "match": [spec.field for spec in drafts.draft_match(draft)],
        "notes": rule_notes(draft.rule) if draft.rule else [],
        "proven": drafts.is_proven(draft),
        "field_total": len(draft.data.get("fields") or []),
    }
    return {**context, **live_context(run)} if run else context


def keep_dry_run(request: HttpRequest, draft: SyncDraft) -> Problems:
    return [] if drafts.is_proven(draft) else ["Have a dry run of this version first."]
