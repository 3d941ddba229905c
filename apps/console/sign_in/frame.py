"""What the sign-in pages share: their frame, the way back, the passkey ceremony of a page."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from apps.accounts import services
from apps.accounts.models import User
from apps.accounts.services import Place

STEPS = ((1, "Own password"), (2, "Second factor"), (3, "Recovery codes"))
CHALLENGE = "passkey_challenge"  # key of the session


def page(site: AdminSite, request: HttpRequest, template: str, **context: Any) -> TemplateResponse:
    """One of the pages in `templates/lockstep/sign_in`; with `step`, one of those that enrol."""
    request.current_app = site.name
    common = {**site.each_context(request), "next": request.GET.get("next", "")}
    common |= {"door_steps": STEPS, "single_sign_on": services.provider_name()}
    return TemplateResponse(request, f"lockstep/sign_in/{template}.html", {**common, **context})


def way_on(request: HttpRequest) -> str:
    """Where the person was heading; the overview where that is nowhere of ours."""
    target = request.POST.get("next") or request.GET.get("next", "")
    if url_has_allowed_host_and_scheme(target, {request.get_host()}, request.is_secure()):
        return target
    return reverse("admin:index")


def asked_for_passkey(request: HttpRequest, user: User) -> dict[str, Any] | None:
    """What the browser is to ask the person's passkeys for; None when there is none to ask."""
    place = services.place_of(request)
    options = services.request_options(user, place) if place else None
    if options is None or not options["allowCredentials"]:
        return None
    request.session[CHALLENGE] = options["challenge"]
    return options


def challenge_and_place(request: HttpRequest) -> tuple[str, Place]:
    """The challenge of the page that was just answered, for this one time."""
    challenge, place = request.session.pop(CHALLENGE, ""), services.place_of(request)
    if not challenge or place is None:
        raise services.PasskeyRefused("nobody has asked for a passkey here")
    return challenge, place
