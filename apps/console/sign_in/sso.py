"""Single sign-on: to the identity provider and back, to sign in, to link, to confirm."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from apps.accounts import services
from apps.accounts.models import User
from apps.accounts.selectors import may_enrol, own_factors
from apps.accounts.services import Claims
from apps.connectors.errors import LockstepError
from apps.console.sign_in.frame import way_on
from apps.core.admin import explain
from apps.core.reauthentication import require_recent_sign_in

ERRAND = "single_sign_on"  # key of the session: what the person went to the provider for
ERRANDS = ("sign_in", "link", "confirm", "invitation")


def begin(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Off to the provider.

    Not by a redirect: forms may lead to ourselves only, and browsers count what a form is
    redirected to.
    """
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    what = request.POST.get("what", "")
    errand = {"what": what, "next": way_on(request), "token": request.POST.get("token", "")}
    if what not in ERRANDS or (what in ("link", "confirm") and not site.has_permission(request)):
        return redirect("admin:login")
    if what == "link":
        require_recent_sign_in(request)
    try:
        back = request.build_absolute_uri(reverse("admin:sso_return"))
        address = services.ask_provider(request, back, again=what == "confirm")
    except LockstepError as error:
        messages.error(request, explain(error))
        return redirect("admin:login")
    request.session[ERRAND] = errand
    return HttpResponse(headers={"Refresh": f"0; url={address}"})


def come_back(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Back from the provider: do what the person went for."""
    errand = request.session.pop(ERRAND, None)
    if errand is None:
        return redirect("admin:login")
    try:
        claims = services.claims_of(request)
        if errand["what"] == "sign_in":
            return _sign_in(request, claims, errand["next"])
        if errand["what"] == "invitation":
            return _accept(request, claims, errand["token"])
        if not site.has_permission(request):
            return redirect("admin:login")
        if errand["what"] == "link":
            return _link(request, claims)
        return _confirm(request, claims, errand["next"])
    except LockstepError as error:
        messages.error(request, explain(error))
        return redirect("admin:security" if site.has_permission(request) else "admin:login")


def _sign_in(request: HttpRequest, claims: Claims, target: str) -> HttpResponse:
    """Where the provider asked for a second factor, that is it; else ours comes next."""
    identity = services.linked(claims)
    user = identity.user if identity else None
    if identity is None or user is None or not (user.is_active and user.is_staff):
        raise services.SingleSignOnRefused(
            f"nobody here is linked with {claims.name}",
            remedy="Sign in with your password and link it under Sign-in security, or ask for an "
            "invitation.",
        )
    if claims.strong:
        services.complete_sign_in(request, user, identity)
        return redirect(target)
    if own_factors(user):
        services.begin_sign_in(request, user)
        return redirect(f"{reverse('admin:login_code')}?{urlencode({'next': target})}")
    if may_enrol(user):
        services.start_session(request, user)
        return redirect("admin:enrol")
    raise services.SingleSignOnRefused(
        "the identity provider did not ask you for a second factor, and you have none here",
        remedy="Ask an administrator for an invitation.",
    )


def _accept(request: HttpRequest, claims: Claims, token: str) -> HttpResponse:
    identity = services.accept_by_identity(token, claims)
    if claims.strong:
        services.complete_sign_in(request, identity.user, identity)
        return redirect("admin:index")
    return _sign_in(request, claims, reverse("admin:index"))


def _link(request: HttpRequest, claims: Claims) -> HttpResponse:
    identity = services.link(cast("User", request.user), claims, verified=True)
    messages.success(request, f"{identity.name} lets you in from now on.")
    return redirect("admin:security")


def _confirm(request: HttpRequest, claims: Claims, target: str) -> HttpResponse:
    identity = services.linked(claims)
    if identity is None or identity.user_id != request.user.pk:
        raise services.SingleSignOnRefused("this is the identity of somebody else")
    if not (claims.strong and claims.fresh):
        raise services.SingleSignOnRefused(
            "the identity provider did not ask you for a second factor just now",
            remedy="Use a second factor of your own.",
        )
    services.verify_session(request, identity)
    return redirect(target)
