"""The forms of the sign-in pages."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django_otp.models import Device
from unfold.forms import AuthenticationForm

from apps.accounts import services
from apps.accounts.models import User
from apps.accounts.selectors import may_enrol, own_factors
from apps.connectors.errors import LockstepError
from apps.console.sign_in.frame import challenge_and_place
from apps.core.admin import explain


class SignInForm(AuthenticationForm):  # type: ignore[misc]
    """Name and password; says what is missing to those who gave the right ones."""

    def confirm_login_allowed(self, user: User) -> None:
        super().confirm_login_allowed(user)
        if own_factors(user) or may_enrol(user):
            return
        if user.must_change_password:
            raise ValidationError(
                "This one-time password has expired. Ask an administrator for a new one.",
                code="expired",
            )
        raise ValidationError(
            "You have no second factor, and the time to enrol one has passed. Ask an "
            "administrator for an invitation.",
            code="no_factor",
        )


class CodeForm(forms.Form):
    """What was typed for a code."""

    code = forms.CharField(
        max_length=40,
        required=False,
        widget=forms.TextInput(
            attrs={
                "class": "ls-input ls-input-code",
                "autocomplete": "one-time-code",
                "autofocus": "",
                "autocapitalize": "none",
                "spellcheck": "false",
            }
        ),
    )


class AppForm(CodeForm):
    """The first code of an app; a name to tell it from others."""

    name = forms.CharField(
        max_length=64,
        required=False,
        widget=forms.TextInput(attrs={"class": "ls-input", "placeholder": "Authenticator app"}),
    )


class ProofForm(CodeForm):
    """Proves that `user` holds a second factor: by a code or by a passkey's answer."""

    passkey = forms.CharField(max_length=20_000, required=False, widget=forms.HiddenInput)
    factor: Device

    def __init__(self, request: HttpRequest, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.request, self.user = request, user

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        try:
            self.factor = self._proved(self.cleaned_data)
        except LockstepError as error:
            raise ValidationError(explain(error)) from error
        return cleaned

    def _proved(self, typed: dict[str, Any]) -> Device:
        if typed.get("passkey"):
            challenge, place = challenge_and_place(self.request)
            return services.passkey_for(self.user, parsed(typed["passkey"]), challenge, place)
        if not typed.get("code"):
            raise ValidationError("Enter a code.")
        factor = services.factor_for(self.user, typed["code"])
        if factor is None:
            services.remember_failure(self.request, self.user)
            raise ValidationError("This code is not right, or it has been used already.")
        return factor


class PasskeyForm(forms.Form):
    """A name for a new passkey, and what the browser made."""

    name = forms.CharField(
        max_length=64,
        required=False,
        widget=forms.TextInput(attrs={"class": "ls-input", "placeholder": "Passkey"}),
    )
    passkey = forms.CharField(max_length=20_000, widget=forms.HiddenInput)


def parsed(text: str) -> Any:
    """The browser's answer. Raises PasskeyRefused where it is no JSON object."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise services.PasskeyRefused("the browser's answer cannot be read")
    return answer
