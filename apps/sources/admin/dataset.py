"""Datasets with their fields, the data inventory, and schema drift."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest
from django.utils.html import format_html
from unfold.decorators import display
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.accounts.admin import AccessPages
from apps.core.admin import (
    BaseAdmin,
    BaseTabularInline,
    Chip,
    NextStep,
    ObjectAction,
    ReadOnlyAdmin,
    RelatedFilter,
)
from apps.core.templatetags.lockstep import ago, number, size, status
from apps.sources import services
from apps.sources.models import Dataset, Drift, Field


class FieldInline(BaseTabularInline):
    """Facts come from discovery; people say which fields are personal, which are searched by."""

    model = Field
    fields = ("name", "type", "native_type", "nullable", "personal_data", "searchable")
    readonly_fields = ("name", "type", "native_type", "nullable")
    ordering = ("position",)
    can_delete = False
    max_num = 0
    hide_title = True


class DatasetForm(forms.ModelForm):  # type: ignore[type-arg]
    """The key is written as names with commas between them."""

    key = forms.CharField(
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Names of the fields that identify a record, with commas between them.",
    )

    class Meta:
        model = Dataset
        fields = "__all__"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["key"] = ", ".join(self.instance.key)

    def clean_key(self) -> list[str]:
        names = [part.strip() for part in self.cleaned_data["key"].split(",") if part.strip()]
        known = set(self.instance.fields.values_list("name", flat=True))
        unknown = [name for name in names if name not in known]
        if unknown:
            raise forms.ValidationError(f"There is no field called {', '.join(unknown)}.")
        return names


@admin.register(Dataset)
class DatasetAdmin(AccessPages, BaseAdmin):
    """Tables, views and files, with the inventory facts that people keep."""

    audited_as = "dataset"
    list_display = ("name", "source", "key_text", "rows", "volume", "criticality", "owner", "state")
    list_filter = (
        ("source", RelatedFilter),
        "format",
        "criticality",
        "update_frequency",
    )
    list_select_related = ("source",)
    search_fields = ("name", "description", "owner", "source__name")
    inlines = (FieldInline,)
    form = DatasetForm
    parts = frozenset({"field"})
    autocomplete_fields = ("depends_on",)
    readonly_fields = ("source", "name", "format", "rows", "volume", "foreign_keys", "discovered")
    fieldsets = (
        (None, {"fields": ("source", "name", "description", "key", "cursor_field")}),
        ("As discovered", {"fields": ("format", "rows", "volume", "foreign_keys", "discovered")}),
        (
            "Inventory",
            {
                "fields": (
                    "owner",
                    "criticality",
                    "update_frequency",
                    "required_freshness_minutes",
                    "tolerated_loss_minutes",
                    "subject_field",
                    "depends_on",
                )
            },
        ),
    )
    object_actions = (ObjectAction("refresh", "Discover again", "refresh", "change", "do_refresh"),)
    nothing_yet = NextStep(
        "No datasets are known yet: discover a source.",
        "Go to the sources",
        "admin:sources_source_changelist",
        "table",
        "sources.view_source",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def access_roots(self, obj: Dataset) -> list[Any]:
        return [obj.source]

    @display(description="Key")
    def key_text(self, dataset: Dataset) -> str:
        return ", ".join(dataset.key) or "–"

    @display(description="Rows", ordering="row_count")
    def rows(self, dataset: Dataset) -> str:
        return number(dataset.row_count)

    @display(description="Volume", ordering="size_bytes")
    def volume(self, dataset: Dataset) -> str:
        return size(dataset.size_bytes)

    @display(description="Foreign keys")
    def foreign_keys(self, dataset: Dataset) -> str:
        texts = [f"{', '.join(r['fields'])} → {r['dataset']}" for r in dataset.references]
        return "; ".join(texts) or "none"

    @display(description="Discovered", ordering="discovered_at")
    def discovered(self, dataset: Dataset) -> str:
        return ago(dataset.discovered_at)

    @display(description="State")
    def state(self, dataset: Dataset) -> str:
        if dataset.missing_since:
            return status("missing", "Missing")
        return status("ok", "There") if dataset.writable else status("skipped", "Read only")

    def do_refresh(self, request: HttpRequest, dataset: Dataset) -> None:
        drifts = services.refresh_dataset(dataset, actor=request.user)
        found = f"{len(drifts)} differences" if drifts else "no difference"
        messages.success(request, f"Read the shape of {dataset.name} again: {found}.")


@admin.register(Field)
class FieldAdmin(BaseAdmin):
    """The data inventory: each field of each dataset, and whether it is personal."""

    audited_as = "field"
    list_display = (
        "name",
        "dataset",
        "type",
        "required",
        "personal_data",
        "searchable",
        "present",
    )
    list_editable = ("personal_data", "searchable")
    list_filter = (
        "personal_data",
        "searchable",
        ("dataset__source", RelatedFilter),
        ("dataset", RelatedFilter),
    )
    list_select_related = ("dataset__source",)
    search_fields = ("name", "dataset__name", "dataset__source__name")
    ordering = ("dataset__source__name", "dataset__name", "position")
    readonly_fields = ("dataset", "name", "type", "native_type", "nullable", "has_default")
    fields = (*readonly_fields, "personal_data", "searchable")
    nothing_yet = NextStep(
        "The inventory fills when a source is discovered.",
        "Go to the sources",
        "admin:sources_source_changelist",
        "inventory_2",
        "sources.view_source",
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def chips(self, request: HttpRequest) -> list[Chip]:
        kinds = [(value, label) for value, label in Field.PersonalData.choices if value]
        return Chip.for_choices(request, "personal_data", kinds)

    @display(description="Value")
    def required(self, field: Field) -> str:
        return "may be empty" if field.nullable else "required"

    @display(description="State")
    def present(self, field: Field) -> str:
        return status("missing", "Missing") if field.missing_since else status("ok", "There")


@admin.register(Drift)
class DriftAdmin(ReadOnlyAdmin):
    """What discovery found to differ from what was known."""

    list_display = ("what", "place", "before", "after", "source", "found", "seen")
    list_filter = (("source", RelatedFilter), "kind", "breaking")
    list_select_related = ("source", "acknowledged_by")
    search_fields = ("dataset_name", "field_name")
    object_actions = (
        ObjectAction(
            "acknowledge",
            "Mark as seen",
            "done",
            "change",
            "do_acknowledge",
            shown=lambda drift: drift.acknowledged_at is None,
        ),
    )
    nothing_yet = NextStep(
        "No drift: every source still looks as it did when it was first discovered.", icon="schema"
    )

    def chips(self, request: HttpRequest) -> list[Chip]:
        is_open = request.GET.get("acknowledged_at__isnull") == "True"
        breaking = request.GET.get("breaking__exact") == "1"
        return [
            Chip("All", "", not (is_open or breaking)),
            Chip("Not seen yet", "acknowledged_at__isnull=True", is_open),
            Chip("Breaking", "breaking__exact=1", breaking),
        ]

    @display(description="What", ordering="kind")
    def what(self, drift: Drift) -> str:
        return status("breaking" if drift.breaking else "harmless", drift.get_kind_display())

    @display(description="Where")
    def place(self, drift: Drift) -> str:
        name = drift.dataset_name
        if drift.field_name:
            name = f"{name}.{drift.field_name}"
        return format_html('<span class="ls-mono">{}</span>', name)

    @display(description="Found", ordering="created_at")
    def found(self, drift: Drift) -> str:
        return ago(drift.created_at)

    @display(description="Seen", ordering="acknowledged_at")
    def seen(self, drift: Drift) -> str:
        return ago(drift.acknowledged_at, "not yet")

    def do_acknowledge(self, request: HttpRequest, drift: Drift) -> None:
        services.acknowledge_drift(drift, actor=request.user)
