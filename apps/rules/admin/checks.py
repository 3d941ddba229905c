"""Checks as lines of a table: what each kind needs is written in one `parameter` cell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from unfold.widgets import UnfoldAdminTextInputWidget

from apps.core.admin import BaseTabularInline
from apps.engine.spec import CheckKind, CheckSpec
from apps.rules.admin.parts import RulePartMixin
from apps.rules.models import Check

_TEXT_FIELDS = {
    CheckKind.TYPE: "type",
    CheckKind.PATTERN: "pattern",
    CheckKind.REFERENCE: "lookup",
    CheckKind.EXPRESSION: "expression",
}


def parameter_text(check: Check | CheckSpec) -> str:
    """What the parameter cell shows for a check."""
    kind = CheckKind(check.kind)
    if kind in _TEXT_FIELDS:
        return str(getattr(check, _TEXT_FIELDS[kind]))
    if kind is CheckKind.RANGE:
        return f"{check.minimum or ''}..{check.maximum or ''}"
    return ", ".join(check.values) if kind is CheckKind.SET else ""


def parse_parameter(kind: CheckKind, text: str) -> dict[str, Any]:
    """The values of a check from its parameter cell. Raises ValidationError."""
    text = text.strip()
    if kind in (CheckKind.REQUIRED, CheckKind.UNIQUE):
        return {}
    if not text:
        raise ValidationError("This kind of check needs a parameter.")
    if kind in _TEXT_FIELDS:
        return {_TEXT_FIELDS[kind]: text}
    if kind is CheckKind.SET:
        return {"values": tuple(part.strip() for part in text.split(",") if part.strip())}
    lower, dots, upper = text.partition("..")
    if not dots or not (lower.strip() or upper.strip()):
        raise ValidationError("Write a range as 0..100, 0.. or ..100.")
    return {"minimum": lower.strip() or None, "maximum": upper.strip() or None}


class CheckForm(forms.ModelForm):  # type: ignore[type-arg]
    parameter = forms.CharField(required=False, widget=UnfoldAdminTextInputWidget)

    class Meta:
        model = Check
        fields = ("name", "kind", "field", "severity")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.instance.kind:
            self.initial["parameter"] = parameter_text(self.instance)

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean() or {}
        kind = cleaned.get("kind")
        if kind:
            try:
                cleaned["values_of_kind"] = parse_parameter(
                    CheckKind(kind), cleaned.get("parameter") or ""
                )
            except ValidationError as error:
                self.add_error("parameter", error)
            if kind != CheckKind.EXPRESSION and not cleaned.get("field"):
                self.add_error("field", "Name the right field that is checked.")
        return cleaned


class CheckInline(RulePartMixin, BaseTabularInline):
    model = Check
    form = CheckForm
    fields = ("name", "kind", "field", "parameter", "severity")
    extra = 0


def check_specs(forms_of_checks: Iterable[Any]) -> list[CheckSpec]:
    """What the valid lines of the table say, in their order, without deleted ones."""
    specs = []
    for form in forms_of_checks:
        data = form.cleaned_data
        if data and not data.get("DELETE") and data.get("kind"):
            specs.append(
                CheckSpec(
                    name=data["name"],
                    kind=CheckKind(data["kind"]),
                    field=data.get("field", ""),
                    severity=data["severity"],
                    **data["values_of_kind"],
                )
            )
    return specs
