"""Every door asks for both steps: whatever made the session, it opens nothing until verified."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib.auth import logout
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, resolve_url
from django.urls import reverse
from django.utils import timezone
from django.utils.http import url_has_allowed_host_and_scheme, urlencode

from apps.accounts.selectors import may_enrol
from apps.core.reauthentication import RecentSignInNeeded

ENROLLING = ("password_change", "enrol", "enrol_passkey")


class SignInMiddleware:
    """Holds sessions at the step that is still missing; sets each person's time zone.

    With a one-time password nothing opens but the page that replaces it; without a second factor
    nothing but the pages that enrol one, for those who may; all other unverified sessions end.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        user = request.user
        if user.is_authenticated:
            held = self._held(request)
            if held is not None:
                return _for_htmx(request, held)
            if request.method != "GET" or "HX-Request" not in request.headers:
                request.session.touch()  # type: ignore[attr-defined]  # pages that refresh do not count
        zone = getattr(user, "time_zone", "")
        with timezone.override(zone or timezone.get_default_timezone()):
            return self.get_response(request)

    def _held(self, request: HttpRequest) -> HttpResponse | None:
        """Where the person has to go first, None when the way is free."""
        user = request.user
        if _asks_for(request, ("logout",)) or request.path.startswith("/static/"):
            return None
        if user.must_change_password and (user.is_verified() or may_enrol(user)):
            if _asks_for(request, ("password_change",)):
                return None
            return redirect("admin:password_change")
        if user.is_verified():
            return None
        if may_enrol(user):
            return None if _asks_for(request, ENROLLING) else redirect("admin:enrol")
        logout(request)
        return redirect_to_login(request.get_full_path(), resolve_url("admin:login"))

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Ask for a recent sign-in, then lead back to the page that the act started from."""
        if not isinstance(error, RecentSignInNeeded):
            return None
        back = request.get_full_path()
        if request.method != "GET":
            back = request.headers.get("Referer", "")
            if not url_has_allowed_host_and_scheme(back, {request.get_host()}):
                back = reverse("admin:index")
        query = urlencode({"next": back, "act": "" if request.method == "GET" else "yes"})
        return _for_htmx(request, redirect(f"{reverse('admin:confirm')}?{query}"))


def _asks_for(request: HttpRequest, names: tuple[str, ...]) -> bool:
    return request.path in {reverse(f"admin:{name}") for name in names}


def _for_htmx(request: HttpRequest, answer: HttpResponse) -> HttpResponse:
    """A part of a page that is asked for in the background leads the whole page away."""
    if "HX-Request" not in request.headers:
        return answer
    return HttpResponse(status=204, headers={"HX-Redirect": answer["Location"]})
