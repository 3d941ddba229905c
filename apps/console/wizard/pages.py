"""The wizard's pages: the list of drafts, and one page per step."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_POST

from apps.console.wizard.draft import own_draft
from apps.console.wizard.steps import (
    BY_NAME,
    KEEP,
    SHOW,
    STEPS,
    StepInfo,
    is_open,
    next_step,
)
from apps.core.admin import explain
from apps.core.selectors import permits
from apps.mappings.models import Mapping
from apps.rules.models import Rule, SyncDraft
from apps.rules.selectors import drafts
from apps.rules.services import save_draft, start_draft


def require_builder(request: HttpRequest) -> None:
    """Setting up a sync makes a mapping and a rule."""
    if not (permits(request.user, Rule, "add") and permits(request.user, Mapping, "add")):
        raise PermissionDenied


def start_page(request: HttpRequest) -> HttpResponse:
    require_builder(request)
    mine = [(draft, BY_NAME.get(draft.step, STEPS[0])) for draft in drafts(request.user)]
    context = {"drafts": mine, "steps": STEPS}
    return _page(request, "lockstep/wizard/start_page.html", "New sync", [], context)


@require_POST
def start(request: HttpRequest) -> HttpResponse:
    require_builder(request)
    draft = start_draft(actor=request.user)  # type: ignore[arg-type]
    return redirect("admin:new_sync_step", draft.pk, STEPS[0].name)


@require_POST
def discard(request: HttpRequest, draft_id: Any) -> HttpResponse:
    """Forget a draft; a rule that it made already stays, not enabled."""
    require_builder(request)
    own_draft(request, draft_id).delete()
    messages.info(request, "The draft is gone.")
    return redirect("admin:new_sync")


def step_page(request: HttpRequest, draft_id: Any, step: str) -> HttpResponse:
    """One step: GET shows it; POST keeps what was typed and goes on, or says what is wrong."""
    require_builder(request)
    draft = own_draft(request, draft_id)
    info = BY_NAME.get(step)
    if info is None:
        raise Http404(f"there is no step '{step}'")
    if not is_open(info, draft):
        first = next(s for s in STEPS if is_open(s, draft) and not is_open(next_step(s), draft))
        return redirect("admin:new_sync_step", draft.pk, first.name)
    problems: list[str] = []
    if request.method == "POST":
        problems = _keep(request, draft, info)
        if not problems:
            return _go_on(request, draft, info)
    context = SHOW[info.name](request, draft)
    context.update(draft=draft, step=info, problems=problems, steps=_step_links(draft, info))
    crumbs = [(draft.name, None)]
    template = f"lockstep/wizard/{info.name.replace('-', '_')}.html"
    return _page(request, template, info.title, crumbs, context)


def _keep(request: HttpRequest, draft: SyncDraft, info: StepInfo) -> list[str]:
    try:
        return KEEP[info.name](request, draft)
    except PermissionDenied as error:
        if not error.args:
            raise
        return [explain(error)]


def _go_on(request: HttpRequest, draft: SyncDraft, info: StepInfo) -> HttpResponse:
    following = next_step(info)
    if following is not info:
        save_draft(draft, actor=request.user, step=following.name)  # type: ignore[arg-type]
        return redirect("admin:new_sync_step", draft.pk, following.name)
    rule = draft.rule
    draft.delete()
    enabled = "its schedule is enabled" if rule and rule.enabled else "it runs when started"
    messages.success(request, f"“{rule}” is set up: {enabled}.")
    return redirect("admin:rules_rule_change", rule.pk if rule else "")


def _step_links(draft: SyncDraft, current: StepInfo) -> list[dict[str, Any]]:
    place = STEPS.index(current)
    return [
        {
            "title": step.title,
            "current": step is current,
            "done": number < place,
            "url": reverse("admin:new_sync_step", args=(draft.pk, step.name))
            if is_open(step, draft)
            else "",
        }
        for number, step in enumerate(STEPS)
    ]


def _page(
    request: HttpRequest,
    template: str,
    title: str,
    crumbs: list[tuple[str, str | None]],
    context: dict[str, Any],
) -> TemplateResponse:
    home = [("New sync", reverse("admin:new_sync"))] if crumbs else [("New sync", None)]
    frame = {**admin.site.each_context(request), "title": title, "crumbs": [*home, *crumbs]}
    return TemplateResponse(request, template, {**frame, **context})
