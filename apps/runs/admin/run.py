"""Runs: the list with quick chips, the live page, and the page of changes."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_GET, require_POST
from unfold.decorators import display

from apps.audit.services import record_refusal
from apps.connectors.errors import LockstepError
from apps.core.admin import (
    Chip,
    InfinitePaginator,
    NextStep,
    ObjectAction,
    ReadOnlyAdmin,
    RelatedFilter,
    explain,
)
from apps.core.reauthentication import require_recent_sign_in
from apps.core.templatetags.lockstep import ago, number, seconds, status
from apps.ledger.admin.revealing import begin_reveal, is_revealed, revealing
from apps.ledger.admin.sides import side_names
from apps.rules.selectors import rules
from apps.runs.admin.approval import posted_answer, waiting_plan
from apps.runs.admin.changes import changes_context
from apps.runs.admin.live import live_context
from apps.runs.admin.undo_pages import UndoPages, undo_context
from apps.runs.admin.verification import verification
from apps.runs.models import ACTIVE_STATUSES, Run, RunStatus
from apps.runs.selectors import runs
from apps.runs.services import approve_run, cancel_run, propose_repair, reject_run

ACTIVE = ",".join(status for status in ACTIVE_STATUSES if status != RunStatus.WAITING)
ATTENTION = ",".join(
    (RunStatus.WAITING, RunStatus.PARTIAL, RunStatus.REFUSED, RunStatus.FAILED, RunStatus.EXPIRED)
)
STOP_POLLING = 286
PLANNED = ("planned_inserts", "planned_updates", "planned_deletes")
WRITTEN = ("inserted", "updated", "deleted")


@admin.register(Run)
class RunAdmin(UndoPages, ReadOnlyAdmin):
    """Executions of rules."""

    list_display = ("begun", "rule", "state", "mode_text", "outcome", "duration", "trigger")
    list_display_links = ("begun",)
    list_filter = ("status", ("rule", RelatedFilter), "mode", "trigger")
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
            "Waiting for approval": {"status__exact": RunStatus.WAITING},
            "Needs attention": {"status__in": ATTENTION},
            "Today": {"created_at__gte": midnight.isoformat()},
            "Dry runs": {"mode__exact": Run.Mode.DRY_RUN},
            "Undo": {"kind__exact": Run.Kind.UNDO},
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
        if run.kind == Run.Kind.UNDO:
            return "Undo" if run.mode == Run.Mode.APPLY else "Preview of an undo"
        return run.get_mode_display()

    @display(description="Inserted · updated · deleted · rejected")
    def outcome(self, run: Run) -> str:
        is_plan = run.is_dry or run.status == RunStatus.WAITING
        names = PLANNED if is_plan else WRITTEN
        values = [getattr(run, name) for name in names]
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

        decide = self.admin_site.admin_view(require_POST(self.decide_view))
        reveal = self.admin_site.admin_view(require_POST(self.reveal_view))
        repair = self.admin_site.admin_view(require_POST(self.repair_view))
        return [
            *self.undo_urls(),
            own("<uuid:run_id>/live/", self.live_view, self.url_name("live")),
            own("<uuid:run_id>/changes/", self.changes_view, self.url_name("changes")),
            path("<uuid:run_id>/changes/reveal/", reveal, name=self.url_name("reveal")),
            path("<uuid:run_id>/decide/", decide, name=self.url_name("decide")),
            path("<uuid:run_id>/repair/", repair, name=self.url_name("repair")),
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
            title=f"{run.rule.name}: {self.mode_text(run).lower()}",
            run=run,
            **self._about(request, run),
            **live_context(run),
        )

    def _about(self, request: HttpRequest, run: Run) -> dict[str, Any]:
        """What both pages of a run say: where it writes, what waits, what may be undone."""
        names = side_names(run.rule)
        is_two_way = run.rule.direction == "two_way"
        return {
            "targets": f"{names.left} and {names.right}" if is_two_way else run.rule.mapping.right,
            "names": names,
            "may_run": rules(request.user, "run").filter(pk=run.rule_id).exists(),
            "plan": waiting_plan(run, request.user),
            "verification": verification(run),
            **undo_context(run, request.user),
        }

    def live_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """The part that changes while a run goes on; status 286 ends the asking: at its end, and
        while a person is waited for."""
        run = self._run(request, run_id)
        after = request.GET.get("after", "")
        context = {"run": run, **live_context(run, int(after) if after.isdecimal() else 0)}
        response = render(request, "lockstep/runs/live_update.html", context)
        if not run.is_active or run.is_waiting:
            response.status_code = STOP_POLLING
            response["HX-Refresh"] = "true"
        return response

    def changes_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """What a run would write, or wrote: one row per change, a page at a time."""
        run = self._run(request, run_id)
        if not request.user.has_perm("ledger.view_change"):
            raise PermissionDenied
        about = self._about(request, run)
        shown = changes_context(run, request.GET, request.user, revealed=is_revealed(request))
        plan = about["plan"]
        return self.render_page(
            request,
            "lockstep/runs/changes_page.html",
            run,
            title="What would change" if run.is_dry or plan else "What changed",
            run=run,
            on_changes_page=True,
            revealing=revealing(
                request,
                [run.rule_id],
                self.url("reveal", run.pk),
                {field.name for _, fields in shown["changes"] for field in fields},
            ),
            selectable=plan.may_decide if plan else about["offers_undo"],
            selection_url=self.url("decide", run.pk) if plan else self.url("undo"),
            chosen_question=plan.question("{count}", "chosen changes") if plan else "",
            filter_question=plan.question(shown["passing"]) if plan else "",
            **about,
            **shown,
        )

    def reveal_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """The page of changes with its personal values, for a reason."""
        run = self._run(request, run_id)
        begin_reveal(request, {run.rule_id: run})
        return self.changes_view(request, run_id)

    def decide_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """Apply exactly the plan that waits, or what was chosen of it, or reject it."""
        run = runs(request.user, "approve").filter(pk=run_id).first()
        if run is None:
            raise PermissionDenied
        answer = posted_answer(request.POST)
        if answer.approve:
            require_recent_sign_in(request)
        note = request.POST.get("note", "").strip()
        try:
            if answer.problem:
                messages.error(request, answer.problem)
            elif answer.approve:
                approve_run(run, actor=request.user, selection=answer.selection, note=note)
            else:
                reject_run(run, actor=request.user, note=note)
        except LockstepError as error:
            messages.error(request, explain(error))
        except PermissionDenied as error:
            record_refusal(request, error)
            messages.error(request, f"{str(error)[:1].upper()}{str(error)[1:]}.")
        return redirect("admin:runs_run_change", run.pk)

    def repair_view(self, request: HttpRequest, run_id: Any) -> HttpResponse:
        """Plan what a verification says is to be repaired; the plan waits for approval."""
        run = self._run(request, run_id)
        try:
            repair = propose_repair(run, actor=request.user)
        except LockstepError as error:
            messages.error(request, explain(error))
            return redirect("admin:runs_run_change", run.pk)
        return redirect("admin:runs_run_change", repair.pk)

    def do_cancel(self, request: HttpRequest, run: Run) -> None:
        cancel_run(run, actor=request.user)
        messages.info(request, "The run stops after the batch it is writing.")
