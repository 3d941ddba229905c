"""Runs: the list with quick chips, the live page, and the page of changes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_GET
from unfold.contrib.filters.admin import RelatedDropdownFilter
from unfold.decorators import display

from apps.core.admin import Chip, InfinitePaginator, NextStep, ObjectAction, ReadOnlyAdmin
from apps.core.templatetags.lockstep import ago, number, seconds, status
from apps.runs.admin.changes import changes_context
from apps.runs.admin.live import counters, live_context
from apps.runs.models import ACTIVE_STATUSES, Run, RunStatus
from apps.runs.services import cancel_run

ACTIVE = ",".join(ACTIVE_STATUSES)
ATTENTION = ",".join((RunStatus.PARTIAL, RunStatus.REFUSED, RunStatus.FAILED))
STOP_POLLING = 286


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    """Executions of rules."""

    list_display = ("begun", "rule", "state", "mode_text", "outcome", "duration", "trigger")
    list_display_links = ("begun",)
    list_filter = ("status", ("rule", RelatedDropdownFilter), "mode", "trigger")
    list_select_related = ("rule", "version")
    search_fields = ("rule__name", "cause")
    paginator = InfinitePaginator
    nothing_yet = NextStep(
        "Nothing has run yet. Set up a sync; its dry run shows what would be written.",
        "New sync",
        "admin:new_sync",
        "play_circle",
        "rules.add_rule",
    )
    object_actions = (
        ObjectAction(
            "cancel",
            "Cancel",
            "cancel",
            "cancel",
            "do_cancel",
            confirm="Cancel this run? It stops within a batch; what was written stays written.",
            variant="danger",
            shown=lambda run: run.is_active and run.cancel_requested_at is None,
        ),
    )

    # List

    def chips(self, request: HttpRequest) -> list[Chip]:
        midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
        queries = {
            "All": {},
            "Running": {"status__in": ACTIVE},
            "Needs attention": {"status__in": ATTENTION},
            "Today": {"created_at__gte": midnight.isoformat()},
            "Dry runs": {"mode__exact": Run.Mode.DRY_RUN},
        }
        given = {k: v for k, v in request.GET.items() if k not in ("p", "o", "q")}
        return [
            Chip(label, urlencode(params), given == {k: str(v) for k, v in params.items()})
            for label, params in queries.items()
        ]

    @display(description="Begun", ordering="created_at")
    def begun(self, run: Run) -> str:
        return ago(run.started_at or run.created_at)

    @display(description="Status", ordering="status")
    def state(self, run: Run) -> str:
        return status(run.status, run.get_status_display())

    @display(description="Mode", ordering="mode")
    def mode_text(self, run: Run) -> str:
        return run.get_mode_display()

    @display(description="Inserted · updated · deleted · rejected")
    def outcome(self, run: Run) -> str:
        values = [counter.value for counter in counters(run)[:3]]
        return format_html(
            '<span class="ls-nowrap">{} · {} · {} · {}</span>',
            *(number(value) for value in [*values, run.rejected]),
        )

    @display(description="Took")
    def duration(self, run: Run) -> str:
        if run.started_at is None:
            return "–"
        return seconds((run.finished_at or timezone.now()) - run.started_at)

    # Pages

    def own_urls(self) -> list[URLPattern]:
        def own(route: str, view: Any, name: str) -> URLPattern:
            return path(route, self.admin_site.admin_view(require_GET(view)), name=name)

        return [
            own("<uuid:run_id>/live/", self.live_view, self.url_name("live")),
            own("<uuid:run_id>/changes/", self.changes_view, self.url_name("changes")),
        ]

    def _run(self, request: HttpRequest, run_id: Any) -> Run:
        if not self.has_view_permission(request):
            raise PermissionDenied
        run: Run = self.object_or_404(request, run_id)
        return run

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        run = self._run(request, object_id)
        return self.render_page(
            request,
            "lockstep/runs/run_page.html",
            run,
            title=f"{run.rule.name}: {run.get_mode_display().lower()}",
            run=run,
            partitions=run.partitions.all()[:200],
            **live_context(run),
        )

    def live_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """The part that changes while a run goes on; status 286 ends the asking."""
        run = self._run(request, run_id)
        after = request.GET.get("after", "")
        context = {"run": run, **live_context(run, int(after) if after.isdecimal() else 0)}
        response = render(request, "lockstep/runs/live_update.html", context)
        if not run.is_active:
            response.status_code = STOP_POLLING
            response["HX-Refresh"] = "true"
        return response

    def changes_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """What a run would write, or wrote: one row per change, a page at a time."""
        run = self._run(request, run_id)
        if not request.user.has_perm("ledger.view_change"):
            raise PermissionDenied
        return self.render_page(
            request,
            "lockstep/runs/changes_page.html",
            run,
            title="What would change" if run.is_dry else "What changed",
            run=run,
            **changes_context(run, request.GET, request.user),
        )

    def do_cancel(self, request: HttpRequest, run: Run) -> None:
        cancel_run(run, actor=request.user)
        messages.info(request, "The run stops after the batch it is writing.")
