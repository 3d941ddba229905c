"""Rejections: what was kept out and why; correct, replay, dismiss."""

from __future__ import annotations

import re
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils.text import Truncator
from django.views.decorators.http import require_POST
from unfold.decorators import display

from apps.connectors.errors import LockstepError, RecordError
from apps.core.admin import (
    Chip,
    InfinitePaginator,
    NextStep,
    ReadOnlyAdmin,
    bulk_action,
    explain,
)
from apps.core.selectors import may, permits
from apps.core.templatetags.lockstep import ago, record_key, status
from apps.ledger.admin.revealing import begin_reveal, is_revealed, revealing
from apps.ledger.admin.rule_names import RuleFilter, with_rule_names
from apps.ledger.models import Rejection
from apps.ledger.selectors import masked, rejections
from apps.ledger.services import dismiss_rejection, edit_rejection
from apps.mappings.masking import MASKED
from apps.rules.models import Rule
from apps.runs.models import Run
from apps.runs.services import replay_rejections

OPEN_STATES = (Rejection.State.OPEN, Rejection.State.REPLAYING)


@admin.register(Rejection)
class RejectionAdmin(ReadOnlyAdmin):
    """Records kept out of a run."""

    list_display = ("record", "message_text", "field", "code", "rule", "state_label", "seen")
    list_filter = (RuleFilter, "state", "stage", "code")
    search_fields = ("position", "left_key", "field")
    paginator = InfinitePaginator
    actions = ("replay_chosen", "dismiss_chosen")
    nothing_yet = NextStep(
        "All clear: no record was ever kept out of a run.",
        "Go to the runs",
        "admin:runs_run_changelist",
        "task_alt",
        "runs.view_run",
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return with_rule_names(super().get_queryset(request))

    def has_replay_permission(self, request: HttpRequest) -> bool:
        return permits(request.user, Rejection, "replay")

    def lookup_allowed(self, lookup: str, value: str, request: Any = None) -> bool:
        return lookup.startswith("run_id") or super().lookup_allowed(lookup, value, request)

    def chips(self, request: HttpRequest) -> list[Chip]:
        return Chip.for_choices(request, "state", Rejection.State.choices)

    @display(description="Record")
    def record(self, rejection: Rejection) -> str:
        return record_key(rejection.left_key) if rejection.left_key else rejection.position or "–"

    @display(description="Why")
    def message_text(self, rejection: Rejection) -> str:
        return Truncator(rejection.message).chars(140)

    @display(description="Rule")
    def rule(self, rejection: Any) -> str:
        return rejection.rule_name or "removed rule"

    @display(description="State", ordering="state")
    def state_label(self, rejection: Rejection) -> str:
        return status(rejection.state, rejection.get_state_display())

    @display(description="Last seen", ordering="updated_at")
    def seen(self, rejection: Rejection) -> str:
        return ago(rejection.updated_at)

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        found = super().get_changelist_instance(request)
        found.result_list = masked(found.result_list)
        return found

    # Many at once

    @bulk_action(
        "Replay",
        "replay",
        "Run the rules of these {count} rejections again, for just these records? What passes "
        "is written to the right side.",
    )
    def replay_chosen(self, request: HttpRequest, chosen: list[Rejection]) -> HttpResponse | None:
        runs = replay_rejections(chosen, actor=request.user)
        messages.success(request, f"Started {len(runs)} runs for {len(chosen)} rejections.")
        return redirect("admin:runs_run_change", runs[0].pk) if len(runs) == 1 else None

    @bulk_action(
        "Dismiss",
        "replay",
        "Close these {count} rejections without doing anything about them? The records stay "
        "out of the right side.",
    )
    def dismiss_chosen(self, request: HttpRequest, chosen: list[Rejection]) -> None:
        for rejection in chosen:
            dismiss_rejection(rejection, actor=request.user, note=request.POST.get("note", ""))
        messages.success(request, f"Dismissed {len(chosen)} rejections.")

    # One

    def own_urls(self) -> list[URLPattern]:
        def own(verb: str, view: Any) -> URLPattern:
            wrapped = self.admin_site.admin_view(require_POST(view))
            return path(f"<uuid:rejection_id>/{verb}/", wrapped, name=self.url_name(verb))

        return [own("decide", self.decide_view), own("reveal", self.reveal_view)]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        rejection = self.object_or_404(request, object_id)
        masked([rejection], revealed=is_revealed(request))
        rule = Rule.objects.filter(pk=rejection.rule_id).select_related("mapping").first()
        return self.render_page(
            request,
            "lockstep/ledger/rejection_page.html",
            rejection,
            title=f"Kept out: {self.record(rejection)}",
            rejection=rejection,
            rule=rule,
            run=Run.objects.filter(pk=rejection.run_id).first(),
            remedy=remedy_of(rejection.code),
            revealing=revealing(
                request, [rejection.rule_id], self.url("reveal", rejection.pk), rejection.record()
            ),
            lines=_record_lines(rejection, rule),
            may_decide=may(request.user, "replay", rejection) and rejection.state in OPEN_STATES,
        )

    def reveal_view(self, request: HttpRequest, rejection_id: Any) -> HttpResponse:
        """The page with its personal values, for a reason."""
        rejection = self.object_or_404(request, str(rejection_id))
        begin_reveal(request, {rejection.rule_id: rejection})
        return self.change_view(request, str(rejection_id))

    def decide_view(self, request: HttpRequest, rejection_id: Any) -> HttpResponse:
        """Save the corrected record, replay it, or dismiss the rejection."""
        rejection = rejections(request.user, "replay").filter(pk=rejection_id).first()
        if rejection is None:
            if not self.has_replay_permission(request):
                raise PermissionDenied
            raise Http404("no rejection with this id")
        try:
            return self._decide(request, rejection)
        except LockstepError as error:
            messages.error(request, explain(error))
        return redirect("admin:ledger_rejection_change", rejection.pk)

    def _decide(self, request: HttpRequest, rejection: Rejection) -> HttpResponse:
        page = redirect("admin:ledger_rejection_change", rejection.pk)
        if "dismiss" in request.POST:
            note = request.POST.get("note", "").strip()
            dismiss_rejection(rejection, actor=request.user, note=note)
            messages.success(request, "Dismissed: the record stays out of the right side.")
            return page
        record = _posted_record(rejection, request)
        if record is not None and record != (rejection.edit() or rejection.record()):
            edit_rejection(rejection, record, actor=request.user)
            messages.success(request, "The corrected record is kept beside the original.")
        if "replay" in request.POST:
            runs = replay_rejections([rejection], actor=request.user)
            return redirect("admin:runs_run_change", runs[0].pk)
        return page


def remedy_of(code: str) -> str:
    """What helps against errors of this code."""
    waiting: list[type[LockstepError]] = [LockstepError]
    while waiting:
        found = waiting.pop()
        if found.code == code and found is not LockstepError:
            return found.default_remedy
        waiting.extend(found.__subclasses__())
    return RecordError.default_remedy


def _record_lines(rejection: Rejection, rule: Rule | None) -> list[dict[str, Any]]:
    """The record by field: as read, as corrected, and whether the reason points at it."""
    record, edit = rejection.record() or {}, rejection.edit() or {}
    wrong = _left_fields_behind(rejection, rule)
    return [
        {
            "number": number,
            "name": name,
            "value": value,
            "edited": edit.get(name, value),
            "is_edited": bool(edit) and edit.get(name) != value,
            "is_wrong": name in wrong,
            "has_lines": any(mark in (edit.get(name, value) or "") for mark in "\r\n"),
        }
        for number, (name, value) in enumerate(record.items())
    ]


def _left_fields_behind(rejection: Rejection, rule: Rule | None) -> set[str]:
    """The left fields that a rejection's field (mostly a right one) gets its value from."""
    if not rejection.field:
        return set()
    found = {rejection.field}
    if rule is not None:
        for row in rule.mapping.fields.filter(right=rejection.field):
            found |= {row.left} if row.left else _words(row.to_right)
    return found


def _words(expression: str) -> set[str]:
    return set(re.findall(r"\w+", expression))


def _posted_record(rejection: Rejection, request: HttpRequest) -> dict[str, str | None] | None:
    record = rejection.record()
    if record is None:
        return None
    shown = {**record, **(rejection.edit() or {})}
    return {name: _posted_value(request, number, shown[name]) for number, name in enumerate(record)}


def _posted_value(request: HttpRequest, number: int, shown: str | None) -> str | None:
    """What was typed; what was left as it was stays exactly that, whatever browsers do to lines."""
    typed = _lines(request.POST.get(f"value-{number}", shown or ""))
    if typed == MASKED:
        return shown  # it was masked and is left as it is
    if f"null-{number}" in request.POST and (shown is not None or not typed):
        return None  # a text typed where NULL was shown is meant, though the box is still ticked
    return shown if shown is not None and typed == _lines(shown) else typed


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")
