"""People and their roles."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.forms import UsernameField
from django.contrib.auth.models import Group, Permission
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from unfold.decorators import display
from unfold.forms import AdminPasswordChangeForm, UserChangeForm

from apps.accounts import services
from apps.accounts.admin.holding import HoldingPages
from apps.accounts.models import User
from apps.accounts.selectors import (
    has_no_more_rights,
    is_within_rights,
    own_factors,
    permissions_within_rights,
    rights_of,
    roles_within_rights,
    with_factor_known,
)
from apps.accounts.services import record_rights
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.admin import BaseAdmin, NextStep, ObjectAction
from apps.core.reauthentication import require_recent_sign_in
from apps.core.templatetags.lockstep import ago, status

ASSIGN = "accounts.assign_rights"

admin.site.unregister(Group)


class RightsOnRecord:
    """For the admins of people and roles: what was given and taken is put on record."""

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        stored = type(obj).objects.filter(pk=obj.pk).first() if change else None
        request.rights_before = rights_of(stored) if stored else frozenset()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)  # type: ignore[misc]

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        super().save_related(request, form, formsets, change)  # type: ignore[misc]
        record_rights(form.instance, request.rights_before, actor=request.user)  # type: ignore[attr-defined, arg-type]

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        """Choices that this person may give: nothing that this person has not."""
        field = super().formfield_for_manytomany(db_field, request, **kwargs)  # type: ignore[misc]
        if field is not None and db_field.related_model is Group:
            field.queryset = roles_within_rights(request.user)  # type: ignore[arg-type]
        elif field is not None and db_field.related_model is Permission:
            field.queryset = permissions_within_rights(request.user)  # type: ignore[arg-type]
        return field


class NewPersonForm(forms.ModelForm):  # type: ignore[type-arg]
    """A person without a password: the invitation lets that person choose one."""

    class Meta:
        model = User
        fields = ("username", "first_name", "last_name", "email")
        field_classes = {"username": UsernameField}


def ask_for_recent_sign_in(model_admin: BaseAdmin, request: HttpRequest, pk: str | None) -> None:
    """Before a page on which this person could change something."""
    obj = model_admin.get_object(request, pk) if pk else None
    allowed = (
        model_admin.has_change_permission(request, obj)
        if pk
        else model_admin.has_add_permission(request)
    )
    if allowed:
        require_recent_sign_in(request, form=True)


class ChangedAfterSignIn:
    """For the admins of people and roles: whoever changes these can make oneself anybody."""

    def changeform_view(
        self: Any,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        ask_for_recent_sign_in(self, request, object_id)
        page: HttpResponse = super().changeform_view(  # type: ignore[misc]
            request, object_id, form_url, extra_context
        )
        return page


@admin.register(User)
class PersonAdmin(RightsOnRecord, HoldingPages, ChangedAfterSignIn, UserAdmin, BaseAdmin):  # type: ignore[type-arg]
    """People who sign in."""

    audited_as = "person"
    form = UserChangeForm
    add_form = NewPersonForm
    add_form_template = None
    change_password_form = AdminPasswordChangeForm
    list_display = (
        "username",
        "full_name",
        "email",
        "state",
        "second_factor",
        "roles",
        "signed_in",
    )
    list_filter = ("is_active", "is_staff", "is_superuser", "groups")
    search_fields = ("username", "first_name", "last_name", "email")
    fieldsets = (
        (None, {"fields": ("username", "password", "must_change_password")}),
        ("Person", {"fields": ("first_name", "last_name", "email", "time_zone")}),
        ("May", {"fields": ("is_active", "is_staff", "is_superuser", "groups")}),
        ("Single permissions", {"fields": ("user_permissions",), "classes": ["collapse"]}),
    )
    add_fieldsets = (
        (None, {"fields": ("username", "first_name", "last_name", "email")}),
        ("May", {"fields": ("is_staff", "groups")}),
    )
    object_actions = (
        ObjectAction(
            "invite",
            "Invite",
            "mail",
            "change",
            "do_invite",
            confirm="Invite {obj}? The password stops working and all sessions end; a link lets "
            "the person choose a new one.",
            dangerous=True,
        ),
        ObjectAction(
            "forget-factors",
            "Forget second factors",
            "phonelink_erase",
            "change",
            "do_forget_factors",
            confirm="Forget the second factors and recovery codes of {obj}, end all sessions, and "
            "invite? A link lets the person choose a new password and enrol anew.",
            variant="danger",
            shown=lambda user: bool(own_factors(user)),
            dangerous=True,
        ),
        ObjectAction(
            "end-sessions",
            "End sessions",
            "logout",
            "change",
            "do_end_sessions",
            confirm="End all sessions of {obj}?",
            shown=lambda user: user.sessions.exists(),
        ),
        ObjectAction(
            "revoke-tokens",
            "Revoke tokens",
            "key_off",
            "change",
            "do_revoke_tokens",
            confirm="Revoke all tokens of {obj}, and what OAuth clients hold? Programs that use "
            "them stop working.",
            shown=lambda user: user.tokens.filter(revoked_at=None).exists(),
            dangerous=True,
        ),
        ObjectAction("lift-locks", "Lift locks", "lock_open", "change", "do_lift_locks"),
    )

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        return {"is_staff": True, **super().get_changeform_initial_data(request)}

    def get_queryset(self, request: HttpRequest) -> Any:
        people = super().get_queryset(request).filter(is_service=False)
        return with_factor_known(people).prefetch_related("groups")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who hands out rights gives no more than one has, so nobody widens one's own."""
        if request.user.is_superuser:
            return ()
        if request.user.has_perm(ASSIGN):
            return ("is_superuser",)
        return ("is_superuser", "is_staff", "groups", "user_permissions")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Whoever sets a person's password can sign in as that person, with all of its rights."""
        allowed: bool = super().has_change_permission(request, obj)
        return allowed and (obj is None or has_no_more_rights(obj, request.user))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)
        return allowed and (obj is None or has_no_more_rights(obj, request.user))

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:  # noqa: A002
        """Django's page; the person's sessions and tokens end with the old password."""
        ask_for_recent_sign_in(self, request, id)
        response = super().user_change_password(request, id, form_url)
        if request.method == "POST" and response.status_code == 302:
            user = self.object_or_404(request, id)
            services.end_sessions(user, but=request.session.session_key)
            actor = cast("User", request.user)
            services.void_tokens(user, actor=actor, reason="a new password was set")
        return response

    def save_model(self, request: HttpRequest, obj: User, form: Any, change: bool) -> None:
        """A new person has no password: an invitation follows. A one-time password has its time."""
        if not change:
            obj.set_unusable_password()
        super().save_model(request, obj, form, change)
        if "must_change_password" in form.changed_data and obj.must_change_password:
            services.open_enrolment(obj)

    def response_add(
        self, request: HttpRequest, obj: User, post_url_continue: str | None = None
    ) -> HttpResponse:
        return self._invited(request, obj)

    def do_invite(self, request: HttpRequest, user: User) -> HttpResponse | None:
        return self._invited(request, user) if self._may_look_after(request, user) else None

    def do_forget_factors(self, request: HttpRequest, user: User) -> HttpResponse | None:
        if not self._may_look_after(request, user):
            return None
        services.remove_all_factors(user)
        record(Act.FACTORS_RESET, user, actor=request.user)
        return self._invited(request, user)

    def do_end_sessions(self, request: HttpRequest, user: User) -> None:
        if self._may_look_after(request, user):
            number = services.end_sessions(user)
            messages.success(request, f"Sessions of {user} that have ended: {number}.")

    def do_revoke_tokens(self, request: HttpRequest, user: User) -> None:
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        services.void_tokens(user, actor=cast("User", request.user))
        messages.success(request, f"Nothing that acts as {user} works any more.")

    def do_lift_locks(self, request: HttpRequest, user: User) -> None:
        if self._may_look_after(request, user):
            services.lift_locks(user)
            messages.success(request, f"{user} may try to sign in again.")

    def _may_look_after(self, request: HttpRequest, user: User) -> bool:
        """Not oneself, for that there are own pages; nobody who may do more, which is refused."""
        if not self.has_change_permission(request, user):
            raise PermissionDenied
        if user.pk == request.user.pk:
            messages.error(request, "For yourself, use “Sign-in security” in the account menu.")
            return False
        return True

    def _invited(self, request: HttpRequest, user: User) -> HttpResponse:
        """The page that shows the link, once."""
        token = services.invite(user, actor=cast("User", request.user))
        link = request.build_absolute_uri(reverse("admin:invitation", args=(token,)))
        return self.render_page(
            request,
            "lockstep/sign_in/invited.html",
            title=f"Invitation for {user}",
            link=link,
            hours=settings.LOCKSTEP["ENROLMENT_HOURS"],
        )

    @display(description="Name")
    def full_name(self, user: User) -> str:
        return user.get_full_name() or "–"

    @display(description="State", ordering="is_active")
    def state(self, user: User) -> str:
        if not user.is_active:
            return status("disabled", "Inactive")
        if user.must_change_password:
            return status("skipped", "One-time password")
        if not user.has_usable_password():
            return status("waiting", "Invited")
        return status("ok", "Active")

    @display(description="Second factor")
    def second_factor(self, user: User) -> str:
        return status("ok", "Enrolled") if user.has_factor else status("skipped", "None")  # type: ignore[attr-defined]

    @display(description="Roles")
    def roles(self, user: User) -> str:
        if user.is_superuser:
            return "Administrator"
        return ", ".join(group.name for group in user.groups.all()) or "–"

    @display(description="Signed in", ordering="last_login")
    def signed_in(self, user: User) -> str:
        return ago(user.last_login)


@admin.register(Group)
class RoleAdmin(RightsOnRecord, HoldingPages, ChangedAfterSignIn, GroupAdmin, BaseAdmin):  # type: ignore[type-arg]
    """Roles: named sets of permissions."""

    audited_as = "role"
    list_display = ("name",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Who hands out rights gives no more than one has, so nobody widens one's own role."""
        return () if request.user.has_perm(ASSIGN) else ("permissions",)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A role that may do more than this person is not for this person to change."""
        allowed: bool = super().has_change_permission(request, obj)
        return allowed and (obj is None or is_within_rights(obj, request.user))

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        allowed: bool = super().has_delete_permission(request, obj)
        return allowed and (obj is None or is_within_rights(obj, request.user))

    def delete_queryset(self, request: HttpRequest, queryset: Any) -> None:
        """Likewise where many are chosen in the list."""
        if not all(is_within_rights(role, request.user) for role in queryset):
            raise PermissionDenied
        super().delete_queryset(request, queryset)

    nothing_yet = NextStep(
        "No roles yet. A role gathers permissions, such as running rules without changing them.",
        "Add a role",
        "admin:auth_group_add",
        "badge",
        "auth.add_group",
    )
