"""A one-time password opens one page: the one where it is replaced."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone


class PasswordChangeMiddleware:
    """Sends people with a one-time password to the password page; sets each person's time zone."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if user.is_authenticated and user.must_change_password:
            allowed = {reverse("admin:password_change"), reverse("admin:logout")}
            static = request.path.startswith("/static/")
            if request.path not in allowed and not static:
                return redirect("admin:password_change")
        zone = getattr(user, "time_zone", "")
        with timezone.override(zone or timezone.get_default_timezone()):
            return self.get_response(request)
