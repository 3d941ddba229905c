"""Mappings: the editor with suggestions and live preview, versions, the missing target."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST
from pydantic import ValidationError
from unfold.decorators import display

from apps.connectors.errors import LockstepError
from apps.connectors.registry import connector_class
from apps.core.admin import BaseAdmin, NextStep, RelatedFilter, explain
from apps.core.selectors import by_id, permits, scoped
from apps.core.templatetags.lockstep import ago
from apps.mappings import services
from apps.mappings.admin.editor import Editor, add_suggestions, editor_for, posted_editor
from apps.mappings.admin.preview import match_report, preview_cells
from apps.mappings.models import Mapping
from apps.mappings.selectors import mapping_spec
from apps.rules.models import Rule
from apps.sources.models import Dataset
from apps.sources.selectors import datasets, sources

EDITOR_PAGE = "lockstep/mappings/mapping_page.html"


@admin.register(Mapping)
class MappingAdmin(BaseAdmin):
    """How the fields of two datasets correspond."""

    audited_as = "mapping"
    saved_by_service = True
    list_display = ("name", "left_text", "right_text", "field_count", "rules", "changed")
    columns_need = {"rules": Rule}
    list_select_related = ("left__source", "right__source")
    list_filter = (("left__source", RelatedFilter),)
    search_fields = ("name", "description", "left__name", "right__name")
    nothing_yet = NextStep(
        "No mappings yet. A mapping says which left field becomes which right field.",
        "Add a mapping",
        "admin:mappings_mapping_add",
        "conversion_path",
        "mappings.add_mapping",
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        counts = {
            "field_total": Count("fields", distinct=True),
            "rule_total": Count("rules", distinct=True),
        }
        return super().get_queryset(request).annotate(**counts)

    @display(description="Left", ordering="left__name")
    def left_text(self, mapping: Mapping) -> str:
        return str(mapping.left)

    @display(description="Right", ordering="right__name")
    def right_text(self, mapping: Mapping) -> str:
        return str(mapping.right)

    @display(description="Fields", ordering="field_total")
    def field_count(self, mapping: Any) -> int:
        return mapping.field_total

    @display(description="Rules", ordering="rule_total")
    def rules(self, mapping: Any) -> str:
        url = reverse("admin:rules_rule_changelist")
        return format_html(
            '<a class="ls-link" href="{}?mapping__id__exact={}">{}</a>',
            url,
            mapping.pk,
            mapping.rule_total,
        )

    @display(description="Changed", ordering="updated_at")
    def changed(self, mapping: Mapping) -> str:
        return ago(mapping.updated_at)

    # Pages

    def own_urls(self) -> list[URLPattern]:
        def own(route: str, view: Any, name: str) -> URLPattern:
            return path(route, self.admin_site.admin_view(require_POST(view)), name=name)

        return [
            own("editor/preview/", self.preview_view, self.url_name("preview")),
            own("editor/matches/", self.matches_view, self.url_name("matches")),
            own("editor/suggest/", self.suggest_view, self.url_name("suggest")),
            own("create-target/", self.create_target_view, self.url_name("create_target")),
        ]

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        """Choose both datasets, then edit; nothing is stored before the editor is saved."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        known = datasets(request.user).filter(missing_since=None)
        left = by_id(known, request.GET.get("left"))
        right = by_id(known, request.GET.get("right"))
        if left is None or right is None:
            return self._choose_page(request, left)
        mapping = Mapping(left=left, right=right, name=f"{left.name} to {right.name}")
        if request.method == "POST":
            return self._save(request, mapping)
        return self._editor_page(request, mapping, editor_for(left, right))

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None
    ) -> HttpResponse:
        mapping = self.object_or_404(request, object_id)
        if request.method == "POST":
            if not self.has_change_permission(request, mapping):
                raise PermissionDenied
            return self._save(request, mapping)
        spec = mapping_spec(mapping)
        editor = editor_for(
            mapping.left,
            mapping.right,
            spec.fields,
            spec.key,
            spec.match,
            both_ways=works_both_ways(mapping),
        )
        return self._editor_page(request, mapping, editor)

    def _choose_page(self, request: HttpRequest, left: Dataset | None) -> HttpResponse:
        known = datasets(request.user).filter(missing_since=None)
        writers = [
            source
            for source in sources(request.user)
            if connector_class(source.connector).capabilities.create_dataset
        ]
        return self.render_page(
            request,
            "lockstep/mappings/choose_page.html",
            title="Add a mapping",
            left=left,
            lefts=known,
            rights=known.filter(writable=True),
            target_sources=writers,
            may_create=permits(request.user, Dataset, "add"),
        )

    def _editor_page(self, request: HttpRequest, mapping: Mapping, editor: Editor) -> HttpResponse:
        stored = mapping.created_at is not None
        may_save = (
            self.has_change_permission(request, mapping)
            if stored
            else self.has_add_permission(request)
        )
        return self.render_page(
            request,
            EDITOR_PAGE,
            mapping if stored else None,
            title=mapping.name if stored else "Add a mapping",
            mapping=mapping,
            editor=editor,
            may_save=may_save,
            may_delete=stored and self.has_delete_permission(request, mapping),
            may_author=request.user.has_perm(services.AUTHOR_PERMISSION),
            versions=mapping.versions.select_related("created_by")[:10] if stored else [],
            rules_using=self._rules_using(request, mapping) if stored else [],
            errors=getattr(request, "editor_errors", []),
        )

    def _rules_using(self, request: HttpRequest, mapping: Mapping) -> Any:
        return scoped(mapping.rules.all(), request.user)[:20]

    def _save(self, request: HttpRequest, mapping: Mapping) -> HttpResponse:
        """Store what was typed; what is wrong is shown beside it, with nothing lost."""
        mapping.name = request.POST.get("name", "").strip()
        mapping.description = request.POST.get("description", "").strip()
        editor = posted_editor(mapping.left, mapping.right, request.POST)
        errors = self._errors_of(mapping)
        try:
            specs = editor.specs()
            if not errors and not any(row.errors for row in editor.rows):
                services.save_mapping(mapping, specs, editor.key, editor.match, actor=request.user)
                messages.success(request, f"{mapping} is saved.")
                if "_dry_run" in request.POST and (rule := mapping.rules.first()):
                    return redirect("admin:rules_rule_change", rule.pk)
                return redirect("admin:mappings_mapping_change", mapping.pk)
        except (LockstepError, PermissionDenied, ValidationError) as error:
            if editor.place_error(error) is None or isinstance(error, PermissionDenied):
                errors.append(explain(error))
        request.editor_errors = errors or ["Not saved: look at the rows that are marked."]  # type: ignore[attr-defined]
        return self._editor_page(request, mapping, editor)

    def _errors_of(self, mapping: Mapping) -> list[str]:
        if not mapping.name:
            return ["Give the mapping a name."]
        if Mapping.objects.exclude(pk=mapping.pk).filter(name=mapping.name).exists():
            return [f"There is a mapping called '{mapping.name}' already."]
        return []

    # Parts of the editor

    def _posted(self, request: HttpRequest) -> Editor:
        known = datasets(request.user)
        left = by_id(known, request.POST.get("left_dataset"))
        right = by_id(known, request.POST.get("right_dataset"))
        if left is None or right is None:
            raise Http404("one of the datasets is not there, or not for you")
        return posted_editor(left, right, request.POST)

    def preview_view(self, request: HttpRequest) -> HttpResponse:
        """Sample values for the unsaved rows; reads a few records, stores nothing."""
        services.require_editor(request.user)
        editor = self._posted(request)
        cells = preview_cells(editor, request.user)
        context = {"editor": editor, "cells": cells, "out_of_band": True}
        return render(request, "lockstep/mappings/preview.html", context)

    def matches_view(self, request: HttpRequest) -> HttpResponse:
        """Which records of the unsaved mapping would find each other; writes nothing."""
        services.require_editor(request.user)
        context: dict[str, Any] = {}
        try:
            context["matches"] = match_report(self._posted(request), request.user)
        except (LockstepError, PermissionDenied, ValidationError) as error:
            context["problem"] = explain(error)
        return render(request, "lockstep/mappings/match_report.html", context)

    def suggest_view(self, request: HttpRequest) -> HttpResponse:
        """The same editor with a proposal beside each right field without a value."""
        services.require_editor(request.user)
        editor = self._posted(request)
        add_suggestions(editor, request.user)
        context = {
            "editor": editor,
            "may_save": True,
            "may_author": request.user.has_perm(services.AUTHOR_PERMISSION),
            "suggested": True,
        }
        return render(request, "lockstep/mappings/editor.html", context)

    def create_target_view(self, request: HttpRequest) -> HttpResponse:
        """Create the right dataset after the left one's shape, then go on to the editor."""
        if not (permits(request.user, Dataset, "add") and self.has_add_permission(request)):
            raise PermissionDenied
        left = by_id(datasets(request.user), request.POST.get("left"))
        source = by_id(sources(request.user), request.POST.get("source"))
        if left is None or source is None:
            raise Http404("the dataset or the source is not there, or not for you")
        add = reverse("admin:mappings_mapping_add")
        name = request.POST.get("name", "").strip() or left.name
        naming = "snake_case" if request.POST.get("naming") == "snake_case" else "same"
        try:
            right = services.create_target(left, source, name, naming, actor=request.user)
        except LockstepError as error:
            messages.error(request, explain(error))
            return redirect(f"{add}?left={left.pk}")
        messages.success(request, f"Created {right.name} in {source.name}.")
        return redirect(f"{add}?left={left.pk}&right={right.pk}")


def works_both_ways(mapping: Mapping) -> bool:
    """Whether something of the mapping is for the way back, or a rule takes it."""
    backward = mapping.fields.exclude(to_left="").exists()
    return backward or bool(mapping.match) or mapping.rules.filter(direction="two_way").exists()
