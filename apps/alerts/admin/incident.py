"""Incidents: what is wrong, since when, who is on it, and what helped the last time."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.views.decorators.http import require_POST
from unfold.decorators import display

from apps.alerts.models import Incident, IncidentEvent, IncidentState, Severity
from apps.alerts.selectors import Policies, deliveries, earlier_fixes
from apps.alerts.services import acknowledge, comment, resolve, snooze
from apps.connectors.errors import LockstepError
from apps.core.admin import Chip, InfinitePaginator, NextStep, ReadOnlyAdmin, RelatedFilter, explain
from apps.core.selectors import may
from apps.core.templatetags.lockstep import ago, status

MOST_LINES = 200
MOST_HOURS = 24 * 30


@admin.register(Incident)
class IncidentAdmin(ReadOnlyAdmin):
    """One line per problem, whatever is seen of it."""

    list_display = ("title", "severity_label", "state_label", "began", "last_seen", "times_seen")
    list_filter = ("state", "severity", "kind", ("rule", RelatedFilter), ("source", RelatedFilter))
    list_select_related = ("rule", "source")
    search_fields = ("title", "cause_code")
    ordering = ("-last_seen_at", "-severity", "-created_at")  # what is there now, worst first
    paginator = InfinitePaginator
    nothing_yet = NextStep(
        "Nothing is wrong, and nothing was. Failed runs, rules that are not fresh, sources that "
        "cannot be reached and the like appear here.",
        icon="check_circle",
    )

    def chips(self, request: HttpRequest) -> list[Chip]:
        return Chip.for_choices(request, "state", IncidentState.choices)

    @display(description="Severity", ordering="severity")
    def severity_label(self, incident: Incident) -> str:
        return severity_badge(incident)

    @display(description="State", ordering="state")
    def state_label(self, incident: Incident) -> str:
        return status(incident.state, incident.get_state_display())

    @display(description="Began", ordering="created_at")
    def began(self, incident: Incident) -> str:
        return ago(incident.created_at)

    @display(description="Last seen", ordering="last_seen_at")
    def last_seen(self, incident: Incident) -> str:
        return ago(incident.last_seen_at)

    # One

    def own_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.handle_view))
        return [path("<uuid:incident_id>/handle/", view, name=self.url_name("handle"))]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        incident = self.object_or_404(request, object_id)
        timeline = IncidentEvent.objects.filter(incident=incident).select_related("actor")
        policy = Policies.read().of_id(incident.rule_id or incident.source_id)
        return self.render_page(
            request,
            "lockstep/alerts/incident.html",
            incident,
            title=incident.title,
            incident=incident,
            severity=severity_badge(incident),
            timeline=list(timeline.order_by("-id")[:MOST_LINES]),
            sent=list(deliveries(request.user).filter(incident=incident)[:MOST_LINES]),
            policy=policy,
            earlier=earlier_fixes(request.user, incident),
            runbook=_runbook(incident),
            about_url=_about_url(request, incident),
            may_handle=may(request.user, "handle", incident),
        )

    def handle_view(self, request: HttpRequest, incident_id: Any) -> HttpResponse:
        """Acknowledge, snooze, comment or resolve."""
        incident = self.object_or_404(request, incident_id)
        text = request.POST.get("text", "").strip()
        try:
            if "acknowledge" in request.POST:
                acknowledge(incident, actor=request.user, text=text)
                messages.success(request, "You have it. Nobody else is told.")
            elif "snooze" in request.POST:
                hours = _hours(request.POST.get("hours", ""))
                snooze(incident, actor=request.user, hours=hours, text=text)
                messages.success(request, "Snoozed: it comes back when it gets worse.")
            elif "resolve" in request.POST:
                cause = request.POST.get("cause", "")
                resolve(incident, actor=request.user, cause=cause, fix=request.POST.get("fix", ""))
                messages.success(request, "Resolved. Who was told of it is told so.")
            else:
                comment(incident, actor=request.user, text=text)
        except LockstepError as error:
            messages.error(request, explain(error))
        return redirect(self.url("change", incident.pk))


def severity_badge(incident: Incident) -> str:
    word = Severity(incident.severity).label
    return status(word.lower(), word)


def _hours(text: str) -> int | None:
    """Hours of a snooze; None where none are given."""
    return min(int(text), MOST_HOURS) or None if text.isdecimal() else None


def _runbook(incident: Incident) -> str:
    """Where its error code is explained."""
    return reverse("api:problem", args=(incident.error_code,)) if incident.error_code else ""


def _about_url(request: HttpRequest, incident: Incident) -> str:
    """The page of the rule or the source, for who may open it."""
    if incident.rule_id and may(request.user, "view", incident.rule):
        return reverse("admin:rules_rule_change", args=(incident.rule_id,))
    if incident.source_id and may(request.user, "view", incident.source):
        return reverse("admin:sources_source_change", args=(incident.source_id,))
    return ""
