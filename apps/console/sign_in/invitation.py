"""Where an invitation leads: choosing a password, then enrolling."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.admin import AdminSite
from django.contrib.auth.forms import SetPasswordForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from apps.accounts import services
from apps.accounts.selectors import own_factors
from apps.connectors.errors import LockstepError
from apps.console.sign_in.frame import page
from apps.core.admin import explain


def accept(site: AdminSite, request: HttpRequest, token: str) -> HttpResponse:
    """Looking at the link does not use it up; choosing a password does."""
    try:
        user = services.find(token).user
        form = SetPasswordForm(user, request.POST or None)
        for field in form.fields.values():
            field.widget.attrs["class"] = "ls-input"
        if request.method == "POST" and form.is_valid():
            user = services.accept(token, form.cleaned_data["new_password1"])
            if own_factors(user):
                messages.success(request, "Your password is set. Sign in with it.")
                return redirect("admin:login")
            services.start_session(request, user)
            return redirect("admin:enrol")
    except LockstepError as error:
        context = {"title": "Invitation", "problem": explain(error)}
        return page(site, request, "invitation_invalid", **context)
    return page(
        site, request, "invitation", title="Welcome", form=form, person=user, token=token, step=1
    )
