"""The accounts that programs act as."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin
from django.contrib.auth.forms import UsernameField
from django.contrib.auth.models import Group
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST
from unfold.decorators import display

from apps.accounts.admin.holding import HoldingPages
from apps.accounts.admin.people import ChangedAfterSignIn, RightsOnRecord
from apps.accounts.admin.token_pages import TokenDesk, TokenForm
from apps.accounts.models import ServiceAccount, User
from apps.accounts.selectors import has_no_more_rights
from apps.core.admin import BaseAdmin, NextStep, ObjectLink
from apps.core.templatetags.lockstep import status


class ServiceAccountForm(forms.ModelForm):  # type: ignore[type-arg]
    """A name, whether it is in use, and its roles."""

    class Meta:
        model = ServiceAccount
        fields = ("username", "is_active", "groups")
        field_classes = {"username": UsernameField}
        labels = {"username": "Name", "groups": "Roles"}


@admin.register(ServiceAccount)
class ServiceAccountAdmin(RightsOnRecord, HoldingPages, ChangedAfterSignIn, BaseAdmin):
    """Programs' accounts: roles and grants as people have them, tokens instead of a sign-in."""

    audited_as = "service"
    form = ServiceAccountForm
    list_display = ("username", "state", "roles")
    search_fields = ("username",)
    filter_horizontal = ("groups",)
    nothing_yet = NextStep(
        "No service accounts yet. A program acts as one by its token, with roles and grants.",
        "Add a service account",
        "admin:accounts_serviceaccount_add",
        "smart_toy",
        "accounts.add_serviceaccount",
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever makes a token of an account can do what the account may."""
        allowed = super().has_change_permission(request, obj)
        return allowed and (obj is None or has_no_more_rights(obj, cast("User", request.user)))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed = super().has_delete_permission(request, obj)
        return allowed and (obj is None or has_no_more_rights(obj, cast("User", request.user)))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Likewise where many are chosen in the list."""
        if not all(has_no_more_rights(row, cast("User", request.user)) for row in queryset):
            raise PermissionDenied
        super().delete_queryset(request, queryset)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        roles = Group.objects.filter(standard_role__key="api_client")
        return {
            "groups": [role.pk for role in roles],
            **super().get_changeform_initial_data(request),
        }

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        obj.is_service = True
        if not change:
            obj.set_unusable_password()
        super().save_model(request, obj, form, change)

    # Tokens

    def own_urls(self) -> list[URLPattern]:
        wrap, name = self.admin_site.admin_view, self.url_name
        return [
            path("<int:pk>/tokens/", wrap(self.tokens_view), name=name("tokens")),
            path(
                "<int:pk>/tokens/replace/",
                wrap(require_POST(self.replace_token_view)),
                name=name("replace_token"),
            ),
            path(
                "<int:pk>/tokens/revoke/",
                wrap(require_POST(self.revoke_token_view)),
                name=name("revoke_token"),
            ),
        ]

    def object_links(self, request: HttpRequest, obj: Any) -> list[ObjectLink]:
        links = super().object_links(request, obj)
        return [*links, ObjectLink("Tokens", self.url("tokens", obj.pk), "vpn_key")]

    def tokens_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The account's tokens, and the form that makes one."""
        desk = self._desk(request, pk, change=request.method == "POST")
        form = TokenForm(request.POST) if request.method == "POST" else None
        made = desk.make(request, form) if form else None
        if made:
            return self._shown_once(request, desk, made)
        return self._page(request, "tokens", **desk.context(request, form))

    def replace_token_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        desk = self._desk(request, pk, change=True)
        made = desk.replaced(request)
        return self._shown_once(request, desk, made) if made else redirect(desk.page)

    def revoke_token_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        desk = self._desk(request, pk, change=True)
        desk.revoked(request)
        return redirect(desk.page)

    def _desk(self, request: HttpRequest, pk: int, *, change: bool) -> TokenDesk:
        account = self.object_or_404(request, str(pk))
        may = self.has_change_permission if change else self.has_view_permission
        if not may(request, account):
            raise PermissionDenied
        names = ("tokens", "replace_token", "revoke_token")
        return TokenDesk(account, *(self.url(name, account.pk) for name in names))

    def _shown_once(self, request: HttpRequest, desk: TokenDesk, made: Any) -> HttpResponse:
        return self._page(request, "token_made", desk=desk, token=made[0], text=made[1])

    def _page(
        self, request: HttpRequest, name: str, *, desk: TokenDesk, **context: Any
    ) -> HttpResponse:
        title = f"Tokens of {desk.owner}"
        crumbs = [
            ("Service accounts", self.url("changelist")),
            (str(desk.owner), self.url("change", desk.owner.pk)),
            ("Tokens", None),
        ]
        page = self.render_page(
            request,
            f"lockstep/accounts/{name}.html",
            title=title,
            crumbs=crumbs,
            desk=desk,
            **context,
        )
        page.headers["Cache-Control"] = "no-store"
        return page

    @display(description="State", ordering="is_active")
    def state(self, account: ServiceAccount) -> str:
        return status("ok", "Active") if account.is_active else status("disabled", "Inactive")

    @display(description="Roles")
    def roles(self, account: ServiceAccount) -> str:
        return ", ".join(group.name for group in account.groups.all()) or "–"
