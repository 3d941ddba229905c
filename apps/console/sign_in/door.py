"""The two steps of signing in."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.http import urlencode

from apps.accounts import services
from apps.accounts.models import RecoveryCodes
from apps.accounts.selectors import own_factors, recovery_codes_left
from apps.console.sign_in.forms import ProofForm, SignInForm
from apps.console.sign_in.frame import asked_for_passkey, page, way_on


def password(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Step one: name and password. A session begins here only for those who have to enrol."""
    if request.method == "GET" and site.has_permission(request):
        return redirect(way_on(request))
    form = SignInForm(request, data=request.POST or None)
    if request.method == "POST" and form.is_valid():
        user = form.get_user()
        if own_factors(user):
            services.begin_sign_in(request, user)
            query = urlencode({"next": way_on(request)})
            return redirect(f"{reverse('admin:login_code')}?{query}")
        services.start_session(request, user)
        return redirect(way_on(request))
    context = {"title": "Sign in", "form": form, "app_path": request.get_full_path()}
    return page(site, request, "password", **context)


def code(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Step two: a code, or a passkey."""
    user = services.pending_person(request)
    if user is None:
        messages.info(request, "That took too long. Sign in again.")
        return redirect("admin:login")
    if services.is_locked(request, user):
        request.axes_locked_out = True  # type: ignore[attr-defined]  # its middleware says so
        return HttpResponse(status=429)
    form = ProofForm(request, user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        services.complete_sign_in(request, user, form.factor)
        if isinstance(form.factor, RecoveryCodes):
            left = recovery_codes_left(user)
            messages.warning(request, f"You used a recovery code; {left} are left.")
        return redirect(way_on(request))
    options = asked_for_passkey(request, user)
    return page(site, request, "code", title="Second step", form=form, passkey_options=options)
