"""The addresses of undoing: begin a preview, ask for an undo, put back what a preview showed."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_POST

from apps.connectors.errors import LockstepError
from apps.core.admin import explain
from apps.core.reauthentication import require_recent_sign_in
from apps.core.selectors import by_id
from apps.rules.models import Rule
from apps.rules.selectors import rules
from apps.runs.admin.undo import (
    count_problem,
    posted_scope,
    scope_words,
    undo_preview,
    undo_rights,
)
from apps.runs.models import Run
from apps.runs.selectors import runs
from apps.runs.services import UndoScope, apply_preview, plan_undo, request_restore

CARRIED = ("run", "rule", "left_key", "right_key", "after_change", "as_of", "next", "what")


class UndoPages:
    """For the admin of runs."""

    def undo_urls(self) -> list[URLPattern]:
        wrap = self.admin_site.admin_view  # type: ignore[attr-defined]
        name = self.url_name  # type: ignore[attr-defined]
        return [
            path("undo/", wrap(require_POST(self.undo_view)), name=name("undo")),
            path(
                "<uuid:run_id>/undo/",
                wrap(require_POST(self.undo_apply_view)),
                name=name("undo_apply"),
            ),
        ]

    def undo_view(self, request: HttpRequest) -> HttpResponse:
        """Begin the preview of an undo; for who may not undo, ask for a reason and send it."""
        may_undo, may_ask = undo_rights(request.user)
        if not (may_undo or may_ask):
            raise PermissionDenied
        rule, undone = self._subject(request)
        scope = posted_scope(request.POST)
        if scope is None:
            messages.error(request, "Nothing was chosen that could be undone.")
            return self._back(request)
        reason = request.POST.get("reason", "").strip()
        try:
            if may_undo and "ask" not in request.POST:
                run = plan_undo(rule, scope, actor=request.user, reason=reason)
                return redirect("admin:runs_run_change", run.pk)
            if not reason:
                return self._ask(request, rule, undone, scope)
            asked = request_restore(rule, scope, actor=request.user, reason=reason)
        except LockstepError as error:
            messages.error(request, explain(error))
            return self._back(request)
        messages.success(request, "The request was sent to the people who may approve it.")
        return redirect("admin:runs_restorerequest_change", asked.pk)

    @staticmethod
    def _subject(request: HttpRequest) -> tuple[Rule, Run | None]:
        """The rule, and the run if one is named; 404 for what is not there or not for them."""
        undone = by_id(runs(request.user), request.POST.get("run"))
        rule = undone.rule if undone else by_id(rules(request.user), request.POST.get("rule"))
        if rule is None:
            raise Http404("no run or rule with this id")
        return rule, undone

    def _ask(
        self, request: HttpRequest, rule: Rule, undone: Run | None, scope: UndoScope
    ) -> HttpResponse:
        """A page that asks for the reason; nothing is sent yet."""
        carried = [(name, request.POST[name]) for name in CARRIED if request.POST.get(name)]
        if scope.change_ids:
            carried.append(("chosen", ",".join(map(str, scope.change_ids))))
        page: HttpResponse = self.render_page(  # type: ignore[attr-defined]
            request,
            "lockstep/runs/restore_ask.html",
            title="Ask for an undo",
            words=scope_words(scope, undone),
            rule=rule,
            carried=carried,
            back=self._safe_next(request),
        )
        return page

    def undo_apply_view(self, request: HttpRequest, run_id: UUID) -> HttpResponse:
        """Put back what a preview showed; what came after it is left alone."""
        run = runs(request.user, "undo").filter(pk=run_id).first()
        if run is None:
            if not undo_rights(request.user)[0]:
                raise PermissionDenied
            raise Http404("no run with this id")
        require_recent_sign_in(request)
        preview = undo_preview(run, request.user)
        page = redirect("admin:runs_run_change", run.pk)
        if preview is None or not preview.can_apply:
            messages.error(request, "This is no preview of an undo that could be applied.")
            return page
        reason = request.POST.get("reason", "").strip()
        problem = count_problem(preview, request.POST.get("count", ""))
        if problem or not reason:
            messages.error(request, problem or "Say why: the reason is kept with the undo.")
            return page
        try:
            done = apply_preview(run, actor=request.user, reason=reason)
        except LockstepError as error:
            messages.error(request, explain(error))
            return page
        return redirect("admin:runs_run_change", done.pk)

    @staticmethod
    def _safe_next(request: HttpRequest) -> str:
        target = request.POST.get("next", "")
        host = {request.get_host()}
        safe = url_has_allowed_host_and_scheme(target, host, request.is_secure())
        return target if safe else ""

    def _back(self, request: HttpRequest) -> HttpResponse:
        listing: str = self.url("changelist")  # type: ignore[attr-defined]
        return redirect(self._safe_next(request) or listing)


def undo_context(run: Run, actor: Any) -> dict[str, Any]:
    """What the pages of a run show about undoing it."""
    may_undo, may_ask = undo_rights(actor)
    can_be_undone = not run.is_active and run.mode == Run.Mode.APPLY and run.written > 0
    return {
        "may_undo": may_undo,
        "offers_undo": can_be_undone and (may_undo or may_ask),
        "undo": undo_preview(run, actor),
        "undone_by": list(run.undos.filter(mode=Run.Mode.APPLY)[:10]),
    }
