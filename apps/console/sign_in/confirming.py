"""Asking who is signed in to prove it once more, before something dangerous."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from apps.accounts import services
from apps.accounts.models import User
from apps.accounts.selectors import identities
from apps.console.sign_in.forms import ProofForm
from apps.console.sign_in.frame import asked_for_passkey, page, way_on


def confirm(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Then lead back to where the person was."""
    user = cast("User", request.user)
    if services.is_locked(request, user):
        request.axes_locked_out = True  # type: ignore[attr-defined]
        return HttpResponse(status=429)
    form = ProofForm(request, user, request.POST or None)
    if request.method == "POST" and form.is_valid():
        services.verify_session(request, form.factor)
        if request.GET.get("act"):
            messages.info(request, "Confirmed. Now do it again: nothing has happened yet.")
        return redirect(way_on(request))
    return page(
        site,
        request,
        "confirm",
        title="Is it you?",
        form=form,
        passkey_options=asked_for_passkey(request, user),
        linked=bool(identities(user)),
    )
