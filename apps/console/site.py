"""The admin site: Unfold's look; sign-in and password pages of our own."""

from __future__ import annotations

from itertools import chain
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import URLPattern, URLResolver
from unfold.sites import UnfoldAdminSite


class LockstepAdminSite(UnfoldAdminSite):
    """Every page of the admin hangs here."""

    def get_urls(self) -> list[URLPattern | URLResolver]:
        from apps.console.urls import urlpatterns

        return [*urlpatterns(self), *super().get_urls()]

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        """The theme's; its palette stands in a file, because no page may carry a style."""
        return {**super().each_context(request), "colors": None}

    def get_sidebar_list(self, request: HttpRequest) -> list[dict[str, Any]]:
        """The theme's list; an entry whose badge says nothing gets none, not an empty one."""
        groups = super().get_sidebar_list(request)
        for item in chain.from_iterable(group["items"] for group in groups):
            if "badge" in item and not str(item.get("badge_callback", "")):
                del item["badge"]
        return groups

    def has_permission(self, request: HttpRequest) -> bool:
        """Staff whose session a second factor has verified; a password alone opens nothing."""
        is_verified = getattr(request.user, "is_verified", None)
        return bool(super().has_permission(request) and is_verified and is_verified())

    def login(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """The first of two steps."""
        from apps.console.sign_in import door

        return door.password(self, request)

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django's page; afterwards a one-time password counts as replaced."""
        from apps.accounts.services import password_was_changed
        from apps.console.sign_in.frame import STEPS

        before = request.user.password
        response = super().password_change(request, extra_context)
        if request.user.must_change_password and isinstance(response, TemplateResponse):
            response.template_name = "lockstep/sign_in/own_password.html"
            more = {"step": 1, "door_steps": STEPS, "title": "Your own password"}
            response.context_data = {**(response.context_data or {}), **more}
        if request.method == "POST" and response.status_code == 302:
            request.user.refresh_from_db()
            if request.user.password != before:
                password_was_changed(request.user, kept_session=request.session.session_key)
        return response
