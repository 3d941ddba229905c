"""Hub datasets: their schema, and which of their records an account sees."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest
from django.urls import reverse
from unfold.decorators import display
from unfold.widgets import (
    UnfoldAdminExpandableTextareaWidget,
    UnfoldAdminTextInputWidget,
    UnfoldBooleanSwitchWidget,
)

from apps.core.admin import (
    BaseAdmin,
    NextStep,
    ObjectLink,
    ServiceErrorsMixin,
    ServiceForm,
)
from apps.core.templatetags.lockstep import number
from apps.engine.spec import EditDelete
from apps.hub import services
from apps.hub.models import HostedDataset, HostedRecord, ReplicaProgress, RowScope
from apps.hub.selectors import datasets_of, newest_schema

EXAMPLE = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "maxLength": 100},
        "title": {"type": "string", "maxLength": 200},
    },
    "required": ["title"],
}


def _names(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _counted(rows: QuerySet[Any]) -> Subquery:
    """How many rows there are, each counted once whatever else is counted."""
    return Subquery(rows.order_by().values("hosted").annotate(n=Count("pk")).values("n"))


class HostedForm(ServiceForm):
    """A schema is edited as its JSON text."""

    error_fields = {"schema": "schema"}

    key_names = forms.CharField(
        label="Key",
        initial="id",
        widget=UnfoldAdminTextInputWidget,
        help_text="Names of the fields that identify a record, with commas between them.",
    )
    schema = forms.JSONField(
        label="JSON Schema",
        initial=EXAMPLE,
        widget=UnfoldAdminExpandableTextareaWidget(attrs={"rows": 20, "class": "ls-mono"}),
        help_text="Optional fields and wider limits can be added at any time.",
    )
    may_break = forms.BooleanField(
        label="The new schema may break clients",
        required=False,
        widget=UnfoldBooleanSwitchWidget,
        help_text="Apps that know only the one before are told to update, and keep their edits.",
    )

    class Meta:
        model = HostedDataset
        fields = ("name", "scope_field", "edit_delete", "tombstone_days", "history_days")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.instance._state.adding:
            self.initial["key_names"] = ", ".join(self.instance.key)
            self.initial["schema"] = newest_schema(self.instance).schema

    def clean_schema(self) -> dict[str, Any]:
        schema = self.cleaned_data["schema"]
        if not isinstance(schema, dict):
            raise forms.ValidationError("A schema is a JSON object.")
        return schema


@admin.register(HostedDataset)
class HostedDatasetAdmin(ServiceErrorsMixin, BaseAdmin):
    """Datasets that Lockstep hosts for client apps."""

    audited_as = "hosted"
    saved_by_service = True
    form = HostedForm
    list_display = ("name", "key_text", "records_held", "schema_shown", "replica_count", "written")
    search_fields = ("name",)
    fieldsets = (
        (None, {"fields": ("name", "key_names", "schema", "may_break", "scope_field")}),
        ("Deletions and history", {"fields": ("edit_delete", "tombstone_days", "history_days")}),
    )
    nothing_yet = NextStep(
        "Lockstep hosts no dataset yet: add one that client apps keep copies of.",
        "Host a dataset",
        "admin:hub_hosteddataset_add",
        "hub",
        "hub.add_hosteddataset",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[HostedDataset]:
        own = {"hosted": OuterRef("pk")}
        living = HostedRecord.objects.filter(**own, is_deleted=False)
        replicas = ReplicaProgress.objects.filter(**own)
        rows = super().get_queryset(request).select_related("sequence")
        return rows.annotate(living=_counted(living), replicas=_counted(replicas))

    def get_readonly_fields(self, request: HttpRequest, obj: HostedDataset | None = None) -> Any:
        return ("name", "scope_field") if obj else ()

    def get_fieldsets(self, request: HttpRequest, obj: HostedDataset | None = None) -> Any:
        """Declared fields exist in a form that can be saved only."""
        may_save = self.has_change_permission(request, obj) if obj else True
        shown = ["name", "scope_field"]
        if may_save:
            shown = ["name", *([] if obj else ["key_names"]), "schema", "scope_field"]
            shown += ["may_break"] if obj else []
        return [(None, {"fields": shown}), self.fieldsets[1]]

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, **kwargs)
        if obj is not None:
            form.base_fields.pop("key_names", None)
        return form

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: HostedDataset, form: Any, change: bool) -> None:
        sent = form.cleaned_data
        if change:
            services.save_hosted(obj, actor=request.user)
            services.change_schema(
                obj, sent["schema"], may_break=sent["may_break"], actor=request.user
            )
            return
        wanted = services.NewDataset(
            name=sent["name"],
            schema=sent["schema"],
            key=_names(sent["key_names"]),
            scope_field=sent["scope_field"],
            edit_delete=EditDelete(sent["edit_delete"]),
            tombstone_days=sent["tombstone_days"],
            history_days=sent["history_days"],
        )
        services.host_dataset(wanted, actor=request.user)
        obj.pk = HostedDataset.objects.get(name=sent["name"]).pk
        obj._state.adding = False

    def object_links(self, request: HttpRequest, obj: HostedDataset) -> list[ObjectLink]:
        """Grants are given on the dataset as all other rooms know it."""
        links = super().object_links(request, obj)
        dataset = datasets_of(obj).first()
        if dataset is not None and request.user.has_perm("sources.view_dataset"):
            place = reverse("admin:sources_dataset_change", args=(dataset.pk,))
            links = [*links, ObjectLink("Dataset and grants", place, "visibility_lock")]
        return links

    @display(description="Key")
    def key_text(self, hosted: HostedDataset) -> str:
        return ", ".join(hosted.key)

    @display(description="Records")
    def records_held(self, hosted: Any) -> str:
        return number(hosted.living or 0)

    @display(description="Schema")
    def schema_shown(self, hosted: HostedDataset) -> str:
        return f"version {hosted.schema_number}"

    @display(description="Replicas")
    def replica_count(self, hosted: Any) -> str:
        return number(hosted.replicas or 0)

    @display(description="Writes")
    def written(self, hosted: HostedDataset) -> str:
        return number(hosted.sequence.last)


class RowScopeForm(ServiceForm):
    """Values are written with commas between them."""

    values_text = forms.CharField(
        label="Values",
        required=False,
        widget=UnfoldAdminTextInputWidget,
        help_text="Of the dataset's scope field, with commas between them.",
    )

    class Meta:
        model = RowScope
        fields = ("hosted", "account", "every")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial["values_text"] = ", ".join(self.instance.values)


@admin.register(RowScope)
class RowScopeAdmin(ServiceErrorsMixin, BaseAdmin):
    """Which records of a dataset with a scope field an account sees."""

    audited_as = "hosted"
    saved_by_service = True
    form = RowScopeForm
    list_display = ("account", "hosted", "shown")
    list_select_related = ("account", "hosted")
    list_filter = ("hosted",)
    search_fields = ("account__username", "hosted__name")
    fields = ("hosted", "account", "every", "values_text")
    nothing_yet = NextStep("Nobody's records are set apart: accounts see all or nothing.")

    def get_fields(self, request: HttpRequest, obj: RowScope | None = None) -> Any:
        may_save = self.has_change_permission(request, obj) if obj else True
        return self.fields if may_save else ("hosted", "account", "every")

    def get_readonly_fields(self, request: HttpRequest, obj: RowScope | None = None) -> Any:
        return ("hosted", "account") if obj else ()

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: RowScope, form: Any, change: bool) -> None:
        saved = services.set_row_scope(
            obj.hosted,
            obj.account,
            _names(form.cleaned_data["values_text"]),
            every=obj.every,
            actor=request.user,
        )
        obj.pk = saved.pk
        obj._state.adding = False

    @display(description="Sees")
    def shown(self, row: RowScope) -> str:
        return "all records" if row.every else ", ".join(row.values) or "nothing"
