"""Restore requests: what people who may not write ask for, and the answer."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils.text import Truncator
from django.views.decorators.http import require_POST
from unfold.decorators import display

from apps.connectors.errors import LockstepError
from apps.core.admin import Chip, InfinitePaginator, NextStep, ReadOnlyAdmin, RelatedFilter, explain
from apps.core.reauthentication import require_recent_sign_in
from apps.core.selectors import may
from apps.core.templatetags.lockstep import ago, status
from apps.ledger.admin.sides import side_names
from apps.runs.admin.undo import scope_words
from apps.runs.models import RestoreRequest
from apps.runs.services import UndoScope, approve_restore, decline_restore, withdraw_restore


@admin.register(RestoreRequest)
class RestoreRequestAdmin(ReadOnlyAdmin):
    """Somebody who may not write asks for a record, or a run, to be put back."""

    list_display = ("asked", "what", "rule", "short_reason", "requested_by", "state_label")
    list_display_links = ("asked", "what")
    list_filter = ("state", ("rule", RelatedFilter))
    list_select_related = ("rule", "requested_by", "run")
    search_fields = ("reason", "requested_by__username")
    paginator = InfinitePaginator
    nothing_yet = NextStep(
        "Nobody has asked for anything to be put back. Support staff ask on the page of a record "
        "or a run.",
        icon="task_alt",
    )

    def chips(self, request: HttpRequest) -> list[Chip]:
        return Chip.for_choices(request, "state", RestoreRequest.State.choices)

    @display(description="Asked", ordering="created_at")
    def asked(self, request: RestoreRequest) -> str:
        return ago(request.created_at)

    @display(description="What")
    def what(self, request: RestoreRequest) -> str:
        return scope_words(UndoScope.from_json(request.scope), request.run)

    @display(description="Why")
    def short_reason(self, request: RestoreRequest) -> str:
        return Truncator(request.reason).chars(80)

    @display(description="State", ordering="state")
    def state_label(self, request: RestoreRequest) -> str:
        return status(request.state, request.get_state_display())

    # One

    def own_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.decide_view))
        return [path("<uuid:request_id>/decide/", view, name=self.url_name("decide"))]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        asked = self.object_or_404(request, object_id)
        scope = UndoScope.from_json(asked.scope)
        is_open = asked.state == RestoreRequest.State.OPEN
        is_own = asked.requested_by_id == request.user.pk
        return self.render_page(
            request,
            "lockstep/runs/restore_request.html",
            asked,
            title=f"Restore request: {scope_words(scope, asked.run)}",
            asked=asked,
            scope=scope,
            words=scope_words(scope, asked.run),
            names=side_names(asked.rule),
            may_decide=is_open and not is_own and may(request.user, "decide", asked),
            is_own=is_own and is_open,
        )

    def decide_view(self, request: HttpRequest, request_id: Any) -> HttpResponse:
        """Approve, decline, or (one's own) withdraw."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        asked = self.object_or_404(request, request_id)
        note = request.POST.get("note", "").strip()
        if "approve" in request.POST:
            require_recent_sign_in(request)
        try:
            if "approve" in request.POST:
                run = approve_restore(asked, actor=request.user, note=note)
                return redirect("admin:runs_run_change", run.pk)
            if "withdraw" in request.POST:
                withdraw_restore(asked, actor=request.user)
                messages.success(request, "The request is withdrawn.")
            elif "decline" in request.POST:
                decline_restore(asked, actor=request.user, note=note)
                messages.success(request, "The request is declined; who asked sees the reason.")
        except LockstepError as error:
            messages.error(request, explain(error))
        return redirect(self.url("change", asked.pk))
