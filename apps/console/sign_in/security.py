"""Each person's own second factors, recovery codes and sessions."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect

from apps.accounts import services
from apps.accounts.models import User
from apps.accounts.selectors import identities, live_sessions, own_factors, recovery_codes_left
from apps.accounts.sessions import digest_of
from apps.connectors.errors import LockstepError
from apps.console.sign_in.agents import named
from apps.console.sign_in.frame import page
from apps.core.admin import explain
from apps.core.reauthentication import require_recent_sign_in

MOST_SESSIONS = 100


def overview(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """What the person signs in with, and where."""
    user = cast("User", request.user)
    current = digest_of(request.session.session_key)
    sessions = live_sessions(user)[:MOST_SESSIONS]
    return page(
        site,
        request,
        "security",
        title="Sign-in security",
        crumbs=[("Sign-in security", None)],
        factors=[(f, f._meta.verbose_name) for f in (*own_factors(user), *identities(user))],
        codes_left=recovery_codes_left(user),
        sessions=[(row, named(row.agent), row.session_key == current) for row in sessions],
        passkeys=services.place_of(request) is not None,
    )


def recovery_codes(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Ten new codes, shown once; the old ones are void."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    require_recent_sign_in(request)
    codes = services.new_recovery_codes(cast("User", request.user))
    return page(site, request, "codes", title="Recovery codes", codes=codes)


def remove(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Remove one factor; every other session ends."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    require_recent_sign_in(request)
    user, kept = cast("User", request.user), request.session.session_key
    try:
        name = services.remove_factor(user, request.POST.get("factor", ""), kept_session=kept)
    except LockstepError as error:
        messages.error(request, explain(error))
    else:
        if name:
            messages.success(request, f"{name} is removed; all your other sessions have ended.")
    return redirect("admin:security")


def end(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """End one session of the person's own, or all but this one."""
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    user, only = cast("User", request.user), request.POST.get("session")
    number = services.end_sessions(user, but=request.session.session_key, only=only or None)
    messages.success(request, "1 session has ended." if number == 1 else f"{number} have ended.")
    return redirect("admin:security")
