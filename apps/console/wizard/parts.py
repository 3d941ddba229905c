"""Parts of the wizard's pages that are asked for on their own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from apps.connectors.errors import LockstepError
from apps.connectors.registry import connector_names
from apps.console.wizard.draft import (
    draft_dataset,
    draft_fields,
    draft_rule,
    draft_source,
    dry_run_of,
    is_proven,
    materialise,
    own_draft,
)
from apps.console.wizard.forms import ScheduleForm
from apps.console.wizard.keycheck import KeyReport, report_key
from apps.console.wizard.pages import require_builder
from apps.console.wizard.steps.common import both_datasets
from apps.console.wizard.steps.key import posted_pairs, posted_partners
from apps.core.admin import explain
from apps.core.clock import now
from apps.core.selectors import permits
from apps.engine.spec import DatasetSpec, FieldMappingSpec, MappingSpec
from apps.mappings.admin.matching import posted_match
from apps.mappings.matching import MatchReport
from apps.mappings.services import check_matches
from apps.rules.models import SyncDraft
from apps.rules.schedule import next_due
from apps.rules.selectors import drafts
from apps.rules.services import save_draft
from apps.runs.admin.live import live_context
from apps.runs.models import Run
from apps.runs.services import request_run
from apps.sources import services as source_services
from apps.sources.admin.source_form import connector_choices, setting_names, source_form
from apps.sources.models import Source


def add_source(request: HttpRequest, draft_id: Any) -> HttpResponse:
    """A source, added without leaving the wizard: GET shows its form, POST stores it."""
    require_builder(request)
    draft = own_draft(request, draft_id)
    if not permits(request.user, Source, "add"):
        raise PermissionDenied
    chosen = request.POST.get("connector") or request.GET.get("connector", "")
    connector = chosen if chosen in connector_names() else ""
    form_class = source_form(connector, None)
    form = form_class(request.POST if request.method == "POST" else None)
    context = {
        "draft": draft,
        "form": form,
        "connector": connector,
        "connectors": connector_choices(),
        "setting_fields": [form[name] for name in setting_names(form_class)],
    }
    if request.method == "POST" and connector and form.is_valid():
        problem = _store_source(form, request.user)
        if not problem:
            response = HttpResponse()
            response["HX-Refresh"] = "true"
            return response
        context["problem"] = problem
    return render(request, "lockstep/wizard/add_source.html", context)


def _store_source(form: Any, actor: Any) -> str:
    """Store and discover; a source that cannot be read yet is stored all the same."""
    source = form.save(commit=False)
    try:
        source_services.save_source(source, form.setting_values(), actor=actor)
    except (LockstepError, ValidationError) as error:
        return explain(error) if isinstance(error, LockstepError) else str(error)
    with suppress(PermissionDenied):  # somebody else discovers it, then
        try:
            source_services.discover(source, actor=actor)
        except LockstepError:
            source_services.check_source(source, actor=actor)
    return ""


@require_POST
def discover(request: HttpRequest, draft_id: Any) -> HttpResponse:
    """Read again what a chosen source holds."""
    require_builder(request)
    draft = own_draft(request, draft_id)
    side = "right" if request.POST.get("side") == "right" else "left"
    source = draft_source(draft, side, request.user)
    if source is None or not permits(request.user, Source, "discover"):
        raise PermissionDenied
    try:
        found = source_services.discover(source, actor=request.user)  # type: ignore[arg-type]
        messages.success(request, f"{source}: {len(found.datasets)} datasets.")
    except LockstepError as error:
        messages.error(request, explain(error))
    return redirect("admin:new_sync_step", draft.pk, "datasets")


@require_POST
def check_key(request: HttpRequest, draft_id: Any) -> HttpResponse:
    """Count repeated and missing keys on both sides; reads the key fields only."""
    require_builder(request)
    draft = own_draft(request, draft_id)
    pairs = posted_pairs(request)
    reports: list[KeyReport] = []
    matches = None
    problem = "" if pairs else "Choose the fields first."
    try:
        for side, place in (("left", 0), ("right", 1)):
            dataset = draft_dataset(draft, side, request.user)
            fields = [pair[place] for pair in pairs]
            if dataset is not None and fields and all(fields):
                reports.append(report_key(dataset, fields))
        if pairs:
            matches = _matches(request, draft)
    except (LockstepError, PermissionDenied) as error:
        problem = explain(error)
    context = {"reports": reports, "matches": matches, "problem": problem}
    return render(request, "lockstep/wizard/key_report.html", context)


def _matches(request: HttpRequest, draft: SyncDraft) -> MatchReport | None:
    """Which records the chosen key or match fields would pair; None where some are not paired."""
    left, right = both_datasets(request, draft)
    match = posted_match(request.POST, right.schema().field_names)
    chosen = {name: field for field, name in posted_pairs(request)}
    stored = {field.right: field for field in draft_fields(draft)}
    chosen |= {name: field for name, field in posted_partners(request).items() if field}
    wanted = [item.field for item in match] or list(chosen)
    fields = [
        FieldMappingSpec(right=name, left=chosen[name]) if chosen.get(name) else stored.get(name)
        for name in wanted
    ]
    if not fields or None in fields:
        return None
    mapping = MappingSpec(
        left=DatasetSpec.of(left.schema()),
        right=DatasetSpec.of(right.schema()),
        fields=tuple(field for field in fields if field),
        key=tuple(name for _, name in posted_pairs(request)),
        match=match,
    )
    return check_matches(mapping, left, right, actor=request.user)  # type: ignore[arg-type]


@require_POST
def dry_run(request: HttpRequest, draft_id: Any) -> HttpResponse:
    """Store the version and plan it, without writing to either side."""
    require_builder(request)
    draft = own_draft(request, draft_id)
    try:
        rule = materialise(draft, request.user)
        run = request_run(rule, actor=request.user, mode=Run.Mode.DRY_RUN)  # type: ignore[arg-type]
        save_draft(draft, actor=request.user, dry_run=str(run.pk))  # type: ignore[arg-type]
    except LockstepError as error:
        messages.error(request, explain(error))
    except PermissionDenied as error:
        if not error.args:
            raise
        messages.error(request, explain(error))
    return redirect("admin:new_sync_step", draft.pk, "dry-run")


def progress(request: HttpRequest, draft_id: Any) -> HttpResponse:
    """The dry run while it goes on; ends with status 286."""
    require_builder(request)
    draft = own_draft(request, draft_id)
    run = dry_run_of(draft)
    if run is None:
        return HttpResponse(status=286)
    context = {"run": run, "draft": draft, "proven": is_proven(draft), **live_context(run)}
    response = render(request, "lockstep/runs/live.html", context)
    if not run.is_active:
        response.status_code = 286
        response["HX-Refresh"] = "true"
    return response


@require_POST
def due_times(request: HttpRequest, draft_id: Any) -> HttpResponse:
    """The next five runs under the schedule as typed; nothing once the draft is finished."""
    require_builder(request)
    if not drafts(request.user).filter(pk=draft_id).exists():
        return HttpResponse(status=204)  # asked just before the page was left
    rule = draft_rule(own_draft(request, draft_id))
    form = ScheduleForm(request.POST, instance=rule)
    valid = form.is_valid()
    context = {"due_times": next_due(rule, now(), 5) if valid else [], "errors": form.errors}
    return render(request, "lockstep/wizard/due_times.html", context)
