"""People and their roles."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from apps.accounts.models import User
from apps.accounts.selectors import has_no_more_rights
from apps.core.admin import BaseAdmin, NextStep
from apps.core.templatetags.lockstep import ago, status

admin.site.unregister(Group)


@admin.register(User)
class PersonAdmin(UserAdmin, BaseAdmin):  # type: ignore[type-arg]
    """People who sign in."""

    form = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "full_name", "email", "state", "roles", "signed_in")
    list_filter = ("is_active", "is_staff", "is_superuser", "groups")
    search_fields = ("username", "first_name", "last_name", "email")
    fieldsets = (
        (None, {"fields": ("username", "password", "must_change_password")}),
        ("Person", {"fields": ("first_name", "last_name", "email", "time_zone")}),
        ("May", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Single permissions", {"fields": ("user_permissions",), "classes": ["collapse"]}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "password1", "password2", "must_change_password")}),
        ("May", {"fields": ("is_staff", "groups")}),
    )

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).prefetch_related("groups")

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, **kwargs)
        if obj is None and "must_change_password" in form.base_fields:
            form.base_fields["must_change_password"].initial = True
        return form

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only an administrator hands out rights: nobody gives oneself more than one has."""
        if request.user.is_superuser:
            return ()
        return ("is_superuser", "is_staff", "groups", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever sets a person's password can sign in as that person, with all of its rights."""
        allowed: bool = super().has_change_permission(request, obj)
        return allowed and (obj is None or has_no_more_rights(obj, request.user))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)
        return allowed and (obj is None or has_no_more_rights(obj, request.user))

    @display(description="Name")
    def full_name(self, user: User) -> str:
        return user.get_full_name() or "–"

    @display(description="State", ordering="is_active")
    def state(self, user: User) -> str:
        if not user.is_active:
            return status("disabled", "Inactive")
        if user.must_change_password:
            return status("skipped", "One-time password")
        return status("ok", "Active")

    @display(description="Roles")
    def roles(self, user: User) -> str:
        if user.is_superuser:
            return "Administrator"
        return ", ".join(group.name for group in user.groups.all()) or "–"

    @display(description="Signed in", ordering="last_login")
    def signed_in(self, user: User) -> str:
        return ago(user.last_login)


@admin.register(Group)
class RoleAdmin(GroupAdmin, BaseAdmin):  # type: ignore[type-arg]
    """Roles: named sets of permissions."""

    list_display = ("name",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Only an administrator says what a role may do: people would widen their own."""
        return () if request.user.is_superuser else ("permissions",)

    nothing_yet = NextStep(
        "No roles yet. A role gathers permissions, such as running rules without changing them.",
        "Add a role",
        "admin:auth_group_add",
        "badge",
        "auth.add_group",
    )
