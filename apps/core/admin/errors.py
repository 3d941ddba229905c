"""Errors of services, shown in the form that caused them.

A service raises deep inside Django's save; by then the form counted as valid. The transaction is
rolled back, and the same request is handled again with the error on the form, so that nothing
that was typed is lost.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from apps.audit.services import record_refusal
from apps.connectors.errors import LockstepError


def explain(error: Exception) -> str:
    """What happened and what to do about it, as one text."""
    if isinstance(error, LockstepError):
        sentence = str(error).rstrip(".")
        return f"{sentence[:1].upper()}{sentence[1:]}. {error.remedy}"
    if isinstance(error, PermissionDenied) and error.args:
        return f"Not saved: {error.args[0]}. Ask an administrator for it."
    return "You may not do this. Ask an administrator for the permission."


class ServiceForm(forms.ModelForm):  # type: ignore[type-arg]
    """A form that can be handed the error of the service that its first attempt met."""

    service_error: Exception | None = None
    error_fields: dict[str, str] = {}  # word in the error's `where` -> form field

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        if self.service_error is not None:
            self.add_error(self._place(self.service_error), explain(self.service_error))
        return cleaned

    def _place(self, error: Exception) -> str | None:
        where = getattr(error, "where", "").lower()
        for word, field in self.error_fields.items():
            if word in where and field in self.fields:
                return field
        return None


class ServiceErrorsMixin:
    """Model admins whose saving goes through a service that may refuse."""

    def get_form(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, **kwargs)  # type: ignore[misc]
        form.service_error = getattr(request, "service_error", None)
        return form

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        try:
            return super().changeform_view(request, *args, **kwargs)  # type: ignore[misc, no-any-return]
        except LockstepError as error:
            request.service_error = error  # type: ignore[attr-defined]
        except PermissionDenied as error:
            if not error.args:
                raise
            record_refusal(request, error)
            request.service_error = error  # type: ignore[attr-defined]
        return super().changeform_view(request, *args, **kwargs)  # type: ignore[misc, no-any-return]
