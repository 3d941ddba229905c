"""The admin site: Unfold's look; sign-in and password pages of our own."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver
from unfold.sites import UnfoldAdminSite


class LockstepAdminSite(UnfoldAdminSite):
    """Every page of the admin hangs here."""

    def get_urls(self) -> list[URLPattern | URLResolver]:
        from apps.console.urls import urlpatterns

        return [*urlpatterns(self), *super().get_urls()]

    def password_change(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Django's page; afterwards a one-time password counts as replaced."""
        from apps.accounts.services import password_was_changed

        before = request.user.password
        response = super().password_change(request, extra_context)
        if request.method == "POST" and response.status_code == 302:
            request.user.refresh_from_db()
            if request.user.password != before:
                password_was_changed(request.user)
        return response
