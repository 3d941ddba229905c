"""Forms of the wizard's steps, in our own look."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from apps.connectors.errors import LockstepError
from apps.console.wizard.draft import POLICY_FIELDS, SCHEDULE_FIELDS
from apps.core.admin import explain
from apps.engine.spec import CheckKind, CheckSpec
from apps.rules.admin.checks import parameter_text, parse_parameter
from apps.rules.models import Check, Rule
from apps.rules.schedule import validate_schedule


def own_look(form: forms.BaseForm) -> None:
    for name, field in form.fields.items():
        if not isinstance(field.widget, forms.CheckboxInput | forms.HiddenInput):
            field.widget.attrs["class"] = "ls-input"
        if form.is_bound and name in form.errors:
            field.widget.attrs["aria-invalid"] = "true"


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Name, delta, filter, deletes and guards of the rule to be."""

    class Meta:
        model = Rule
        fields = ("name", *POLICY_FIELDS)
        widgets = {"filter": forms.Textarea(attrs={"rows": 2, "spellcheck": "false"})}

    def __init__(self, *args: Any, left_fields: list[str], right_fields: list[str], **kw: Any):
        super().__init__(*args, **kw)
        for name, options in (("cursor_field", left_fields), ("mark_field", right_fields)):
            choices = [("", "none"), *((option, option) for option in options)]
            self.fields[name] = forms.ChoiceField(
                choices=choices,
                required=False,
                label=self.fields[name].label,
                help_text=self.fields[name].help_text,
            )
        own_look(self)

    def validate_unique(self) -> None:
        """Names are compared when the mapping and the rule are stored."""

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("delta") == Rule.Delta.CURSOR and not cleaned.get("cursor_field"):
            self.add_error("cursor_field", "The cursor method needs a field.")
        marks = "mark" in (cleaned.get("on_delete"), cleaned.get("on_leave"))
        if marks and not cleaned.get("mark_field"):
            self.add_error("mark_field", "A policy says mark: name the field that it sets.")
        return cleaned

    def values(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in POLICY_FIELDS}


class CheckLine(forms.Form):
    """One check; a line without a name is none."""

    name = forms.CharField(required=False, max_length=100)
    kind = forms.ChoiceField(choices=[("", "kind"), *Check.Kind.choices], required=False)
    field = forms.CharField(required=False, max_length=255)
    parameter = forms.CharField(required=False)
    severity = forms.ChoiceField(choices=Check.Severity.choices, required=False)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own_look(self)
        for name, field in self.fields.items():
            field.widget.attrs["aria-label"] = f"Check: {name}"

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        if cleaned.get("name"):
            if not cleaned.get("kind"):
                raise ValidationError("Choose what kind of check this is.")
            kind = CheckKind(cleaned["kind"])
            cleaned["spec"] = CheckSpec(
                name=cleaned["name"],
                kind=kind,
                field=cleaned.get("field", ""),
                severity=cleaned.get("severity") or "reject",
                **parse_parameter(kind, cleaned.get("parameter") or ""),
            )
        return cleaned


CheckLines = forms.formset_factory(CheckLine, extra=2, max_num=50)


def check_lines(data: Any, checks: list[CheckSpec]) -> Any:
    initial = [
        {
            "name": check.name,
            "kind": check.kind.value,
            "field": check.field,
            "parameter": parameter_text(check),
            "severity": check.severity.value,
        }
        for check in checks
    ]
    return CheckLines(data, initial=initial, prefix="checks")


class ScheduleForm(forms.ModelForm):  # type: ignore[type-arg]
    """When the rule runs."""

    class Meta:
        model = Rule
        fields = SCHEDULE_FIELDS
        widgets = {"daily_at": forms.TimeInput(attrs={"type": "time"}, format="%H:%M")}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        own_look(self)

    def validate_unique(self) -> None:
        """A schedule has nothing that must be unique."""

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        try:
            validate_schedule(self.instance)
        except LockstepError as error:
            self.add_error(None, explain(error))

    def values(self) -> dict[str, Any]:
        data = {name: self.cleaned_data[name] for name in SCHEDULE_FIELDS}
        data["daily_at"] = data["daily_at"].isoformat() if data["daily_at"] else None
        return data
