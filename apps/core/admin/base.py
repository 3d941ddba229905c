"""Base classes of the model admins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import models, transaction
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.http import url_has_allowed_host_and_scheme
from simple_history.admin import SimpleHistoryAdmin
from unfold.admin import ModelAdmin, StackedInline, TabularInline
from unfold.widgets import UnfoldAdminExpandableTextareaWidget

from apps.audit.actions import Act
from apps.audit.services import record
from apps.connectors.errors import LockstepError
from apps.core.admin.actions import ObjectAction, ObjectLink
from apps.core.admin.choices import choosable, unseen_kept
from apps.core.admin.errors import explain
from apps.core.reauthentication import require_recent_sign_in
from apps.core.selectors import permits, reaches, scoped


@dataclass(frozen=True, slots=True)
class Chip:
    """A quick filter above a list: a label and the query string it stands for."""

    label: str
    query: str
    active: bool = False

    @classmethod
    def for_choices(cls, request: HttpRequest, field: str, choices: Any) -> list[Chip]:
        """One for each choice of a field, behind one for all."""
        chosen = request.GET.get(f"{field}__exact", "")
        return [
            cls("All", "", not chosen),
            *(
                cls(str(label), f"{field}__exact={value}", chosen == value)
                for value, label in choices
            ),
        ]


@dataclass(frozen=True, slots=True)
class NextStep:
    """What an empty list says: a sentence and where to go from here."""

    sentence: str
    label: str = ""
    url_name: str = ""
    icon: str = "inbox"
    permission: str = ""  # to go there

    @property
    def url(self) -> str:
        return reverse(self.url_name) if self.url_name else ""


class BaseAdmin(ModelAdmin):  # type: ignore[misc]
    """Scoped querysets, no full counts, no unasked deletion, own buttons, chips, empty states."""

    list_per_page = 50
    show_full_result_count = False
    compressed_fields = True
    warn_unsaved_form = True
    list_filter_submit = False
    list_before_template = "lockstep/list_before.html"
    change_form_outer_before_template = "lockstep/object_actions.html"
    formfield_overrides = {models.TextField: {"widget": UnfoldAdminExpandableTextareaWidget}}
    object_actions: tuple[ObjectAction, ...] = ()
    nothing_yet = NextStep("There is nothing here yet.")
    parts: frozenset[str] = frozenset()
    columns_need: dict[str, type[models.Model]] = {}  # column of the list -> what it tells of
    # First part of the acts that adding, changing and deleting here are in the audit log.
    audited_as = ""
    saved_by_service = False  # which puts adding and changing on record itself

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Any]:
        return scoped(super().get_queryset(request), request.user, "view")

    # Permissions, on the object itself where there is one

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_view_permission(request, obj)
        return allowed and (obj is None or reaches(request.user, "view", obj))

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_change_permission(request, obj)
        return allowed and (obj is None or reaches(request.user, "change", obj))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)
        return allowed and (obj is None or reaches(request.user, "delete", obj))

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Lists that can be edited ask for the permission on the model only."""
        if change and not self.has_change_permission(request, obj):
            raise PermissionDenied
        super().save_model(request, obj, form, change)

    # Choices: only what this person reaches can be chosen, and is named

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs.setdefault("queryset", choosable(db_field.related_model, request))
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        kwargs.setdefault("queryset", choosable(db_field.related_model, request))
        return super().formfield_for_manytomany(db_field, request, **kwargs)

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        with unseen_kept(form, request):
            super().save_related(request, form, formsets, change)

    # Addresses

    def url_name(self, view: str) -> str:
        return f"{self.opts.app_label}_{self.opts.model_name}_{view}"

    def url(self, view: str, *args: Any) -> str:
        return reverse(f"admin:{self.url_name(view)}", args=args)

    def own_urls(self) -> list[URLPattern]:
        """Further pages of this model, before Django's own."""
        return []

    def get_urls(self) -> list[URLPattern]:
        own = self.own_urls()
        if self.object_actions:
            view = self.admin_site.admin_view(self.object_action_view)
            own.append(path("<path:object_id>/do/<slug:name>/", view, name=self.url_name("do")))
        return [*own, *super().get_urls()]

    # Deleting

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """What is part of an object (`parts`, by verbose name) goes with it, unasked."""
        found, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return found, counts, set(lacking) - self.parts, protected

    # On record

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if self.audited_as and not self.saved_by_service:
            record(f"{self.audited_as}.created", obj, actor=request.user)
        return super().log_addition(request, obj, message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        if self.audited_as and not self.saved_by_service and message:
            details = {"changed": _changed_names(message)}
            record(f"{self.audited_as}.changed", obj, actor=request.user, details=details)
        return super().log_change(request, obj, message)

    @transaction.atomic
    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.record_deletion(request, obj)
        super().delete_model(request, obj)

    @transaction.atomic
    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        for obj in queryset:
            if not self.has_delete_permission(request, obj):
                raise PermissionDenied
            self.record_deletion(request, obj)
        super().delete_queryset(request, queryset)

    def record_deletion(self, request: HttpRequest, obj: Any) -> None:
        if self.audited_as:
            record(Act(f"{self.audited_as}.deleted"), obj, actor=request.user)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Deleting is dangerous, whatever it is."""
        if self.has_delete_permission(request):
            require_recent_sign_in(request, form=True)
        page: HttpResponse = super().delete_view(request, object_id, extra_context)
        return page

    def response_action(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> Any:
        """Likewise where many are chosen in the list."""
        if request.POST.get("action") == "delete_selected" and self.has_delete_permission(request):
            require_recent_sign_in(request)
        return super().response_action(request, queryset)

    # Objects and their buttons

    def object_or_404(self, request: HttpRequest, object_id: Any) -> Any:
        obj = self.get_object(request, object_id)
        if obj is None:
            raise Http404(f"no {self.opts.verbose_name} with this id, or not for you")
        return obj

    def available_actions(self, request: HttpRequest, obj: Any) -> list[dict[str, Any]]:
        """The buttons that this person may press on this object now."""
        return [
            {
                "action": action,
                "url": self.url("do", obj.pk, action.name),
                "question": action.question(obj),
            }
            for action in self.object_actions
            if action.shown(obj) and action.permitted(request, obj)
        ]

    def object_links(self, request: HttpRequest, obj: Any) -> list[ObjectLink]:
        """Further pages about this object that this person may open."""
        return []

    def object_action_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Do what one of the `object_actions` says."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        action = next((a for a in self.object_actions if a.name == name), None)
        if action is None:
            raise Http404(f"there is no action '{name}'")
        obj = self.object_or_404(request, object_id)
        if not action.permitted(request, obj):
            raise PermissionDenied
        if action.dangerous:
            require_recent_sign_in(request)
        try:
            response = getattr(self, action.handler)(request, obj)
        except LockstepError as error:
            messages.error(request, explain(error))
            response = None
        return response or redirect(self._return_url(request, obj))

    def _return_url(self, request: HttpRequest, obj: Any) -> str:
        target = request.POST.get("next", "")
        if url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
            return target
        return self.url("change", obj.pk)

    # Pages

    def render_page(
        self, request: HttpRequest, template: str, obj: Any = None, **context: Any
    ) -> TemplateResponse:
        """A page of our own with the frame of the admin around it."""
        request.current_app = self.admin_site.name
        common = {
            **self.admin_site.each_context(request),
            "crumbs": self._crumbs(context.get("title", "")),
        }
        if obj is not None:
            common["object_actions"] = self.available_actions(request, obj)
            common["object_links"] = self.object_links(request, obj)
        return TemplateResponse(request, template, {**common, **context})

    def _crumbs(self, title: str) -> list[tuple[str, str | None]]:
        listing = str(self.opts.verbose_name_plural).capitalize()
        return [(listing, self.url("changelist")), (title, None)]

    def page_context(self, request: HttpRequest, obj: Any | None) -> dict[str, Any]:
        """What the panels around a change form show; `obj` is None on the add page."""
        return {}

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        context = {**(extra_context or {})}
        obj = self.get_object(request, object_id) if object_id else None
        if obj is not None:
            context["object_actions"] = self.available_actions(request, obj)
            context["object_links"] = self.object_links(request, obj)
        context.update(self.page_context(request, obj))
        page: HttpResponse = super().changeform_view(request, object_id, form_url, context)
        return page

    def chips(self, request: HttpRequest) -> list[Chip]:
        return []

    def get_list_display(self, request: HttpRequest) -> Any:
        """Without columns that tell of, and link to, what this person may not see."""
        return [
            name
            for name in super().get_list_display(request)
            if name not in self.columns_need
            or permits(request.user, self.columns_need[name], "view")
        ]

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        """With `may_go_on`: whether this person may go where `nothing_yet` leads."""
        found = super().get_changelist_instance(request)
        permission = self.nothing_yet.permission
        found.may_go_on = not permission or request.user.has_perm(permission)
        return found

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        context = {"chips": self.chips(request), **(extra_context or {})}
        page: HttpResponse = super().changelist_view(request, context)
        return page


def _changed_names(message: Any) -> list[str]:
    """Labels of the fields that a form has changed, those of its inlines with their model's."""
    if not isinstance(message, list):
        return [str(message)]
    names: list[str] = []
    for entry in message:
        for what, facts in entry.items():
            part = f"{facts['name']} {what}" if "name" in facts else ""
            labels = [str(label) for label in facts.get("fields", ())]
            names += [f"{part}: {label}" if part else label for label in labels] or [part]
    return list(dict.fromkeys(name for name in names if name))


class ReadOnlyAdmin(BaseAdmin):
    """For rows that only services write."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class HistoryAdmin(SimpleHistoryAdmin, BaseAdmin):  # type: ignore[misc]
    """Shows the versions of an object as simple-history keeps them, and never writes one back.

    The library's page of one version saves what is posted to it after asking for the right to
    look only, whatever `SIMPLE_HISTORY_REVERT_DISABLED` says: that setting hides the button.
    """

    def history_form_view(
        self,
        request: HttpRequest,
        object_id: str,
        version_id: str,
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        page: HttpResponse = super().history_form_view(
            request, object_id, version_id, extra_context
        )
        return page


class _OnItsParent:
    """Lines of an object are for those who reach the object; to write one changes it."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_view_permission(request, obj)  # type: ignore[misc]
        return allowed and self._reaches(request, "view", obj)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_add_permission(request, obj)  # type: ignore[misc]
        return allowed and self._reaches(request, "change", obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_change_permission(request, obj)  # type: ignore[misc]
        return allowed and self._reaches(request, "change", obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)  # type: ignore[misc]
        return allowed and self._reaches(request, "change", obj)

    @staticmethod
    def _reaches(request: HttpRequest, action: str, obj: Any) -> bool:
        return obj is None or obj._state.adding or reaches(request.user, action, obj)


class BaseTabularInline(_OnItsParent, TabularInline):  # type: ignore[misc]
    extra = 0
    show_change_link = False


class BaseStackedInline(_OnItsParent, StackedInline):  # type: ignore[misc]
    extra = 0
