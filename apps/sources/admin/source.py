"""Sources: the form with its connection test, discovery, pause and resume."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST
from unfold.decorators import display
from unfold.widgets import UnfoldAdminSelectWidget

from apps.accounts.admin import AccessPages
from apps.connectors.errors import ConfigurationError
from apps.connectors.registry import connector_class, connector_names
from apps.core.admin import BaseAdmin, NextStep, ObjectAction, ServiceErrorsMixin
from apps.core.selectors import by_id, permits
from apps.core.templatetags.lockstep import ago, status
from apps.rules.selectors import rules
from apps.sources import services
from apps.sources.admin.settings_form import advanced_names, posted_settings
from apps.sources.admin.source_form import (
    KEPT,
    LIMITS,
    connector_choices,
    setting_names,
    source_form,
)
from apps.sources.models import Dataset, Source
from apps.sources.selectors import datasets, drifts, sources

TEST_STEPS = "lockstep/sources/test_steps.html"


@admin.register(Source)
class SourceAdmin(AccessPages, ServiceErrorsMixin, BaseAdmin):
    """Platforms that hold data."""

    audited_as = "source"
    saved_by_service = True
    list_display = ("name", "kind", "state", "dataset_count", "owner", "criticality", "checked")
    columns_need = {"dataset_count": Dataset}
    list_filter = ("connector", "health", "paused", "criticality")
    search_fields = ("name", "owner", "description")
    parts = frozenset({"dataset", "field", "schema drift"})
    change_form_after_template = "lockstep/sources/test_connection.html"
    change_form_outer_after_template = "lockstep/sources/panels.html"
    nothing_yet = NextStep(
        "No platform is connected yet. Connect the first one: a database or a folder of files.",
        "Connect a source",
        "admin:sources_source_add",
        "database",
        "sources.add_source",
    )
    object_actions = (
        ObjectAction("discover", "Discover datasets", "travel_explore", "discover", "do_discover"),
        ObjectAction("check", "Test connection", "network_check", "check", "do_check"),
        ObjectAction(
            "pause",
            "Pause",
            "pause",
            "pause",
            "do_pause",
            confirm="Pause {obj}? No run reads or writes it until you resume it.",
            shown=lambda source: not source.paused,
        ),
        ObjectAction(
            "resume",
            "Resume",
            "play_arrow",
            "pause",
            "do_resume",
            variant="primary",
            shown=lambda source: source.paused,
        ),
    )

    # List

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).annotate(dataset_total=Count("datasets"))

    @display(description="Connector", ordering="connector")
    def kind(self, source: Source) -> str:
        return dict(connector_choices()).get(source.connector, source.connector)

    @display(description="State", ordering="health")
    def state(self, source: Source) -> str:
        if source.paused:
            return status("paused")
        return status(source.health, source.get_health_display())

    @display(description="Datasets", ordering="dataset_total")
    def dataset_count(self, source: Any) -> str:
        url = reverse("admin:sources_dataset_changelist")
        return format_html(
            '<a class="ls-link" href="{}?source__id__exact={}">{}</a>',
            url,
            source.pk,
            source.dataset_total,
        )

    @display(description="Tested", ordering="checked_at")
    def checked(self, source: Source) -> str:
        return ago(source.checked_at)

    # Form

    def get_form(self, request: HttpRequest, obj: Source | None = None, **kwargs: Any) -> Any:
        kwargs["form"] = source_form(_chosen_connector(request, obj), obj)
        form = super().get_form(request, obj, **kwargs)
        if obj is None and "connector" in form.base_fields:
            _make_connector_select(form.base_fields["connector"])
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Source | None = None) -> Any:
        return ("connector",) if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: Source | None = None) -> Any:
        connector = _chosen_connector(request, obj)
        sections: list[Any] = [(None, {"fields": ("name", "connector")})]
        if connector and self._may_see_settings(request, obj):
            names = setting_names(source_form(connector, obj))
            folded = advanced_names(connector)
            plain = [name for name in names if name not in folded]
            sections.append(("Connection", {"fields": plain}))
            if folded:
                fields = [name for name in names if name in folded]
                sections.append(("Advanced", {"fields": fields, "classes": ["collapse"]}))
        facts = {"fields": ("description", "owner", "criticality")}
        limits = {"fields": LIMITS, "classes": ["collapse"]}
        return [*sections, ("Inventory", facts), ("Limits", limits)]

    def _may_see_settings(self, request: HttpRequest, obj: Source | None) -> bool:
        """Declared fields exist in a form that can be saved only."""
        if obj is None:
            return self.has_add_permission(request)
        return self.has_change_permission(request, obj)

    def save_model(self, request: HttpRequest, obj: Source, form: Any, change: bool) -> None:
        services.save_source(obj, form.setting_values(), actor=request.user)

    def page_context(self, request: HttpRequest, obj: Source | None) -> dict[str, Any]:
        if obj is None:
            return {"connector": _chosen_connector(request, None)}
        using = Q(mapping__left__source=obj) | Q(mapping__right__source=obj)
        return {
            "connector": obj.connector,
            "settings_shown": _shown_settings(obj),
            "can_edit": self.has_change_permission(request, obj),
            "datasets": [],
            "source_datasets": datasets(request.user).filter(source=obj, missing_since=None)[:100],
            "open_drifts": drifts(request.user).filter(source=obj, acknowledged_at=None)[:20],
            "rules_using": rules(request.user).filter(using)[:50],
        }

    # Own pages and buttons

    def available_actions(self, request: HttpRequest, obj: Any) -> list[dict[str, Any]]:
        """Who may edit tests inside the form, with what is typed there."""
        entries = super().available_actions(request, obj)
        if not self.has_change_permission(request, obj):
            return entries
        return [entry for entry in entries if entry["action"].name != "check"]

    def own_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.test_view))
        return [path("test-connection/", view, name=self.url_name("test"))]

    def test_view(self, request: HttpRequest) -> HttpResponse:
        """Test the unsaved form step by step; secrets left empty are the stored ones."""
        source = self._source_of_form(request)
        connector = source.connector if source else request.POST.get("connector", "")
        if not connector:
            note = "Choose a connector first."
            return render(request, TEST_STEPS, {"note": note})
        if connector not in connector_names():
            return render(request, TEST_STEPS, {"note": f"There is no connector '{connector}'."})
        values = posted_settings(request.POST, connector)
        if source is not None and services.says_the_same(source, values):
            steps = services.check_source(source, actor=request.user)
        else:
            found = services.check_settings(connector, values, source, actor=request.user)
            steps = list(found)
        return render(request, TEST_STEPS, {"steps": steps})

    def _source_of_form(self, request: HttpRequest) -> Source | None:
        """The stored source behind the form. Unsaved values need the right to save them."""
        pk = request.POST.get("source_id")
        if not pk:
            if not permits(request.user, Source, "add"):
                raise PermissionDenied
            return None
        source = by_id(sources(request.user, "change"), pk)
        if source is None:
            raise Http404("no source with this id, or not for you")
        if not permits(request.user, Source, "check"):
            raise PermissionDenied
        return source

    def do_discover(self, request: HttpRequest, source: Source) -> None:
        found = services.discover(source, actor=request.user)
        drift = f" {len(found.drifts)} differences from before." if found.drifts else ""
        messages.success(request, f"Found {len(found.datasets)} datasets.{drift}")

    def do_check(self, request: HttpRequest, source: Source) -> None:
        services.check_source(source, actor=request.user)

    def do_pause(self, request: HttpRequest, source: Source) -> None:
        services.set_source_paused(source, True, actor=request.user)
        messages.success(request, f"{source} is paused: no run reads or writes it.")

    def do_resume(self, request: HttpRequest, source: Source) -> None:
        services.set_source_paused(source, False, actor=request.user)
        messages.success(request, f"{source} takes part in runs again.")


def _chosen_connector(request: HttpRequest, source: Source | None) -> str:
    if source is not None:
        return source.connector
    chosen = request.POST.get("connector") or request.GET.get("connector") or ""
    return chosen if chosen in connector_names() else ""


def _make_connector_select(field: Any) -> None:
    """Choosing a connector shows its fields; what was typed elsewhere in the form stays."""
    field.widget = UnfoldAdminSelectWidget(
        attrs={
            "hx-get": reverse("admin:sources_source_add"),
            "hx-include": ",".join(f"[name={name}]" for name in KEPT),
            "hx-select": "#source_form",
            "hx-target": "#source_form",
            "hx-swap": "outerHTML",
        }
    )
    field.widget.choices = [("", "Choose what kind of platform it is"), *connector_choices()]
    field.validators.append(_known_connector)


def _known_connector(value: str) -> None:
    try:
        connector_class(value)
    except ConfigurationError as error:
        raise ValidationError(f"{error.message}. {error.remedy}") from None


def _shown_settings(source: Source) -> list[tuple[str, Any]]:
    """Plain settings for people who may look but not change; secrets as their date only."""
    model = connector_class(source.connector).settings_model
    rows = [
        (info.title or name, source.settings[name])
        for name, info in model.model_fields.items()
        if name in source.settings
    ]
    stored = [(name, f"stored, set on {at[:10]}") for name, at in source.secrets_set_at.items()]
    return [*rows, *stored]
