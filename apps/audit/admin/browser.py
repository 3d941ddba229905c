"""The pages of the audit log. Nothing here is counted: each page is a few index reads."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.apps import apps
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.urls import NoReverseMatch, URLPattern, path, reverse
from django.utils import timezone
from django.views.decorators.http import require_POST
from kombu.exceptions import OperationalError

from apps.audit import tasks
from apps.audit.actions import SUBJECTS, Act, actions_of
from apps.audit.admin.exports import FORMATS, export_response
from apps.audit.models import AuditEvent, Outcome
from apps.audit.origin import Channel
from apps.audit.selectors import (
    EventFilter,
    event_page,
    events,
    last_verification,
    saved_filters,
    seal_of,
)
from apps.audit.services import forget_filter, save_filter
from apps.connectors.errors import LockstepError
from apps.core.admin import Chip, NextStep, ReadOnlyAdmin, explain
from apps.core.selectors import permits

PAGE = 50
# What acts are done to, for the choice of a filter.
OBJECT_TYPES = (
    "accounts.user",
    "auth.group",
    "sources.source",
    "sources.dataset",
    "sources.field",
    "sources.drift",
    "mappings.mapping",
    "mappings.lookuptable",
    "rules.rule",
    "runs.run",
    "runs.restorerequest",
    "ledger.conflict",
    "ledger.rejection",
    "core.datakey",
)
NAMED_OTHERWISE = {"accounts.user": "Person", "auth.group": "Role"}
QUICK = {
    "Failed sign-ins": EventFilter(action=Act.SIGN_IN_FAILED),
    "Refused": EventFilter(outcome=Outcome.REFUSED),
    "Rights": EventFilter(action=Act.PERSON_RIGHTS_CHANGED),
    "Runs": EventFilter(action="run."),
    "Secrets": EventFilter(action=Act.SECRETS_REPLACED),
    "Exports": EventFilter(action=Act.AUDIT_EXPORTED),
}


@admin.register(AuditEvent)
class AuditEventAdmin(ReadOnlyAdmin):
    """Who did what to which object, from where, with what outcome."""

    nothing_yet = NextStep(
        "Nothing is on record yet. Sign-ins, changes of the configuration, runs and decisions "
        "appear here as they happen.",
        icon="policy",
    )

    def own_urls(self) -> list[URLPattern]:
        def own(route: str, view: Any, name: str) -> URLPattern:
            wrapped = self.admin_site.admin_view(require_POST(view))
            return path(route, wrapped, name=self.url_name(name))

        return [
            own("export/", self.export_view, "export"),
            own("verify/", self.verify_view, "verify"),
            own("filters/save/", self.save_filter_view, "save_filter"),
            own("filters/<uuid:filter_id>/forget/", self.forget_filter_view, "forget_filter"),
        ]

    def _require_view(self, request: HttpRequest) -> None:
        if not self.has_view_permission(request):
            raise PermissionDenied

    # The stream

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        self._require_view(request)
        wanted = EventFilter.of(request.GET)
        before, after = (_id(request.GET.get(name)) for name in ("before", "after"))
        page = event_page(wanted, request.user, before=before, after=after, limit=PAGE)
        return self.render_page(
            request,
            "lockstep/audit/browser.html",
            title="Audit log",
            crumbs=[("Audit log", None)],
            wanted=wanted,
            query=wanted.as_query(),
            page=page,
            is_first=before is None and (after is None or page.newer is None),
            chips=self._quick_filters(wanted),
            saved=[(kept, wanted.as_query() == kept.query) for kept in saved_filters(request.user)],
            nothing_yet=self.nothing_yet,
            **_choices(),
            **self._rights(request),
        )

    @staticmethod
    def _quick_filters(wanted: EventFilter) -> list[Chip]:
        today = EventFilter(since=timezone.localdate().isoformat())
        quick = {"Everything": EventFilter(), "Today": today, **QUICK}
        return [Chip(label, kept.as_query(), kept == wanted) for label, kept in quick.items()]

    @staticmethod
    def _rights(request: HttpRequest) -> dict[str, Any]:
        return {
            "may_export": permits(request.user, AuditEvent, "export"),
            "may_verify": permits(request.user, AuditEvent, "verify"),
            "verification": last_verification(),
        }

    # One event

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        self._require_view(request)
        event = self.object_or_404(request, object_id)
        return self.render_page(
            request,
            "lockstep/audit/event.html",
            title=event.action_label,
            event=event,
            type_label=_type_label(event.object_type),
            object_url=_object_url(event, request),
            details=_detail_lines(event.details),
            seal=(seal := seal_of(event)),
            seal_root=bytes(seal.root).hex() if seal else "",
            channel=dict(Channel.choices).get(event.channel, event.channel),
            together=_together(event, request),
        )

    # What leaves a trace

    def export_view(self, request: HttpRequest) -> HttpResponse | StreamingHttpResponse:
        """A file of everything that the filter shows; put on record before its first line."""
        self._require_view(request)
        wanted = EventFilter.of(request.POST)
        format_name = request.POST.get("format", "")
        if format_name not in FORMATS:
            raise Http404(f"there is no format '{format_name}'; there is: {', '.join(FORMATS)}")
        if wanted.problems:
            for problem in wanted.problems:
                messages.error(request, problem)
            return redirect(f"{self.url('changelist')}?{wanted.as_query()}")
        return export_response(request, wanted, format_name)

    def verify_view(self, request: HttpRequest) -> HttpResponse:
        """Let a worker verify everything; the outcome appears on the page."""
        if not permits(request.user, AuditEvent, "verify"):
            raise PermissionDenied
        try:
            tasks.verify.delay(request.user.pk)
        except (OperationalError, OSError):
            messages.error(
                request,
                "No worker can be told: the broker does not answer. On the command line, "
                "`manage.py lockstep audit verify` does the same.",
            )
        else:
            messages.info(request, "A worker verifies the audit log; what it finds is shown here.")
        return redirect(self.url("changelist"))

    # Saved filters

    def save_filter_view(self, request: HttpRequest) -> HttpResponse:
        self._require_view(request)
        wanted = EventFilter.of(request.POST)
        try:
            saved = save_filter(request.POST.get("name", ""), wanted, actor=request.user)  # type: ignore[arg-type]
            messages.success(request, f"The filter “{saved.name}” is saved, for you alone.")
        except LockstepError as error:
            messages.error(request, explain(error))
        return redirect(f"{self.url('changelist')}?{wanted.as_query()}")

    def forget_filter_view(self, request: HttpRequest, filter_id: UUID) -> HttpResponse:
        self._require_view(request)
        forget_filter(filter_id, actor=request.user)  # type: ignore[arg-type]
        return redirect(self.url("changelist"))


def _id(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def _choices() -> dict[str, Any]:
    """What the selects of the filter offer."""
    return {
        "subjects": [
            (subject, label, actions_of(subject))
            for subject, label in sorted(SUBJECTS.items(), key=lambda item: item[1])
        ],
        "outcomes": Outcome.choices,
        "object_types": [(name, _type_label(name)) for name in OBJECT_TYPES],
    }


def _type_label(name: str) -> str:
    if name in NAMED_OTHERWISE:
        return NAMED_OTHERWISE[name]
    try:
        return str(apps.get_model(name)._meta.verbose_name).capitalize()
    except (LookupError, ValueError):
        return name


def _object_url(event: AuditEvent, request: HttpRequest) -> str:
    """The page of the object, where it is still there and this person may see it."""
    try:
        model = apps.get_model(event.object_type)
        page = admin.site._registry[model]
        found = page.get_object(request, event.object_id)
        options = model._meta
        name = f"admin:{options.app_label}_{options.model_name}_change"
        return reverse(name, args=(found.pk,)) if found is not None else ""
    except (LookupError, ValueError, NoReverseMatch):
        return ""


def _detail_lines(details: Any) -> list[tuple[str, str]]:
    """Details as lines of a name and a text."""
    if not isinstance(details, dict):
        return []
    return [(name.replace("_", " ").capitalize(), _text(value)) for name, value in details.items()]


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_text(item)}" for name, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value in (None, "") else str(value)


def _together(event: AuditEvent, request: HttpRequest) -> list[AuditEvent]:
    """What else the same request did."""
    if not event.request_id:
        return []
    rows = events(request.user).filter(request_id=event.request_id).exclude(pk=event.pk)
    return list(rows.order_by("id")[:20])
