"""Enrolling an authenticator app or a passkey; the first one, or one more."""

from __future__ import annotations

import base64
from typing import Any, cast
from urllib.parse import quote, urlencode

import segno
from django.contrib import messages
from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django_otp.models import Device

from apps.accounts import services
from apps.accounts.models import AuthenticatorApp, User
from apps.accounts.selectors import is_enrolling_app, recovery_codes_left
from apps.connectors.errors import LockstepError
from apps.console.sign_in.forms import AppForm, PasskeyForm, parsed
from apps.console.sign_in.frame import CHALLENGE, challenge_and_place, page
from apps.core.admin import explain
from apps.core.reauthentication import require_recent_sign_in

ISSUER = "Lockstep"
QUIET_ZONE = 3  # modules of white around a QR code, so that cameras find it


def app(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Scan the QR code, type the first code. Then the recovery codes, shown once."""
    user = _enrolling_person(request)
    form = AppForm(request.POST or None)
    if request.method == "POST" and not is_enrolling_app(user):
        return redirect("admin:security" if _is_verified(request) else "admin:enrol")  # a reload
    if request.method == "POST" and form.is_valid():
        try:
            device = services.confirm_authenticator(
                user,
                form.cleaned_data["code"],
                verified=_is_verified(request),
                name=form.cleaned_data["name"],
            )
        except LockstepError as error:
            form.add_error("code", explain(error))
        else:
            if device is not None:
                return _enrolled(site, request, user, device)
            form.add_error("code", "This is not the code that the app shows now. Try the next one.")
    pending = services.begin_authenticator(user)
    return page(
        site,
        request,
        "enrol_app",
        title="Second factor",
        form=form,
        qr=_qr(_address_of(pending)),
        secret=_spaced(_secret_of(pending)),
        passkeys=services.place_of(request) is not None,
        step=None if _is_verified(request) else 2,
    )


def passkey(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Let the browser make a passkey for this address."""
    user = _enrolling_person(request)
    place = services.place_of(request)
    if place is None:
        messages.error(request, "Passkeys need HTTPS and a host name, or http://localhost.")
        return redirect("admin:enrol")
    form = PasskeyForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            device = _added_passkey(request, user, form.cleaned_data)
            return _enrolled(site, request, user, device)
        except LockstepError as error:
            form.add_error(None, explain(error))
    options = services.registration_options(user, place)
    request.session[CHALLENGE] = options["challenge"]
    step = None if _is_verified(request) else 2
    context = {"title": "Passkey", "form": form, "passkey_options": options, "step": step}
    return page(site, request, "enrol_passkey", **context)


def _enrolling_person(request: HttpRequest) -> User:
    if _is_verified(request):
        require_recent_sign_in(request, form=True)
    return cast("User", request.user)


def _is_verified(request: HttpRequest) -> bool:
    return bool(request.user.is_verified())  # type: ignore[union-attr]


def _added_passkey(request: HttpRequest, user: User, typed: dict[str, Any]) -> Device:
    challenge, place = challenge_and_place(request)
    answer, name = parsed(typed["passkey"]), typed["name"]
    verified = _is_verified(request)
    return services.add_passkey(user, answer, challenge, place, name=name, verified=verified)


def _enrolled(site: AdminSite, request: HttpRequest, user: User, device: Device) -> HttpResponse:
    """The session counts as verified from now on; whoever has no recovery codes gets some."""
    step = None if _is_verified(request) else 3
    services.verify_session(request, device)
    if recovery_codes_left(user):
        messages.success(request, f"{device.name} is enrolled.")
        return redirect("admin:security")
    codes = services.new_recovery_codes(user)
    return page(site, request, "codes", title="Recovery codes", codes=codes, step=step)


def _secret_of(device: AuthenticatorApp) -> str:
    return base64.b32encode(device.seed).decode().rstrip("=")


def _spaced(secret: str) -> str:
    return " ".join(secret[i : i + 4] for i in range(0, len(secret), 4))


def _address_of(device: AuthenticatorApp) -> str:
    """The key URI that authenticator apps read from QR codes."""
    label = quote(f"{ISSUER}:{device.user.get_username()}")
    query = urlencode({"secret": _secret_of(device), "issuer": ISSUER}, quote_via=quote)
    return f"otpauth://totp/{label}?{query}"


def _qr(text: str) -> dict[str, object]:
    """Side length and SVG path of a QR code: one line per run of dark modules."""
    rows = list(segno.make(text, error="m", micro=False).matrix_iter(border=QUIET_ZONE))
    dark = [(x, y) for y, row in enumerate(rows) for x, module in enumerate(row) if module]
    return {"size": len(rows), "path": "".join(f"M{x} {y}h1v1h-1z" for x, y in dark)}
