"""Forms of the wizard's steps, in our own look."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from apps.connectors.errors import LockstepError
from apps.connectors.types import NeutralType
from apps.console.wizard.draft import RULE_FIELDS, SCHEDULE_FIELDS
from apps.core.admin import explain
from apps.engine.spec import CheckKind, CheckSpec, FieldPolicy, FieldPolicySpec
from apps.rules.admin.checks import parameter_text, parse_parameter
from apps.rules.admin.form import LABELS
from apps.rules.models import Check, Policy, Rule
from apps.rules.schedule import validate_schedule
from apps.rules.selectors import TWO_WAY_COLUMNS
from apps.rules.validation import fitting_policies
from apps.rules.validation.policies import require_policy_expression


def own_look(form: forms.BaseForm) -> None:
    for name, field in form.fields.items():
        if not isinstance(field.widget, forms.CheckboxInput | forms.HiddenInput):
            field.widget.attrs["class"] = "ls-input"
        if form.is_bound and name in form.errors:
            field.widget.attrs["aria-invalid"] = "true"


LEFT_FIELDS = ("cursor_field", "left_mark_field", "left_modified")
RIGHT_FIELDS = ("mark_field", "right_modified", "right_cursor_field")


class PolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """Name, delta, filter, deletes, guards, approval and conflicts of the rule to be."""

    class Meta:
        model = Rule
        fields = ("name", *RULE_FIELDS)
        labels = LABELS
        widgets = {"filter": forms.Textarea(attrs={"rows": 2, "spellcheck": "false"})}

    def __init__(self, *args: Any, left_fields: list[str], right_fields: list[str], **kw: Any):
        super().__init__(*args, **kw)
        if self.instance.direction != Rule.Direction.TWO_WAY:
            for name in TWO_WAY_COLUMNS:
                del self.fields[name]
        options_of = dict.fromkeys(LEFT_FIELDS, left_fields)
        options_of |= dict.fromkeys(RIGHT_FIELDS, right_fields)
        for name in [name for name in options_of if name in self.fields]:
            choices = [("", "none"), *((option, option) for option in options_of[name])]
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
        if self.instance.direction == Rule.Direction.TWO_WAY:
            self._clean_two_way(cleaned)
        return cleaned

    def _clean_two_way(self, cleaned: dict[str, Any]) -> None:
        if cleaned.get("delta") == Rule.Delta.CURSOR and not cleaned.get("right_cursor_field"):
            self.add_error("right_cursor_field", "The cursor method needs a field on each side.")
        marks = cleaned.get("on_right_delete") == Rule.OnRightDelete.MARK
        if marks and not cleaned.get("left_mark_field"):
            self.add_error("left_mark_field", "A policy says mark: name the field that it sets.")

    def values(self) -> dict[str, Any]:
        return {name: self.cleaned_data[name] for name in RULE_FIELDS if name in self.fields}


class PolicyLine(forms.Form):
    """The conflict policy of one right field; empty: as the rule says for all."""

    field = forms.CharField(widget=forms.HiddenInput)
    policy = forms.ChoiceField(required=False)
    parameter = forms.CharField(required=False, strip=False)

    def __init__(self, *args: Any, types: dict[str, NeutralType], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.right = str(self["field"].value() or "")
        self.neutral = types.get(self.right)
        fitting = fitting_policies(self.neutral) if self.neutral else []
        self.fields["policy"].choices = [  # type: ignore[attr-defined]
            ("", "as for all fields"),
            *((policy.value, Policy(policy.value).label) for policy in fitting),
        ]
        own_look(self)
        self.fields["policy"].widget.attrs["aria-label"] = f"Policy of {self.right}"
        self.fields["parameter"].widget.attrs["aria-label"] = f"Parameter of {self.right}"

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        name = cleaned.get("policy")
        if not name or self.neutral is None:
            return cleaned
        text = cleaned.get("parameter") or ""
        policy = FieldPolicy(name)
        if policy is FieldPolicy.EXPRESSION and not text.strip():
            raise ValidationError("Write the expression, over left_value and right_value.")
        separator = text if policy is FieldPolicy.SET and text else ","
        expression = text.strip() if policy is FieldPolicy.EXPRESSION else ""
        spec = FieldPolicySpec(
            field=self.right, policy=policy, expression=expression, separator=separator
        )
        if policy is FieldPolicy.EXPRESSION:
            try:
                require_policy_expression(spec, self.neutral)
            except LockstepError as error:
                raise ValidationError(explain(error)) from None
        cleaned["spec"] = spec
        return cleaned


PolicyLines = forms.formset_factory(PolicyLine, extra=0, max_num=500)


def policy_lines(
    data: Any, types: dict[str, NeutralType], policies: Sequence[FieldPolicySpec]
) -> Any:
    """A line for each field that can have conflicts. types: by right field."""
    known = {policy.field: policy for policy in policies}
    initial = []
    for name in types:
        policy = known.get(name)
        parameter = ""
        if policy is not None and policy.policy is FieldPolicy.EXPRESSION:
            parameter = policy.expression
        elif policy is not None and policy.policy is FieldPolicy.SET:
            parameter = policy.separator
        initial.append(
            {"field": name, "policy": policy.policy if policy else "", "parameter": parameter}
        )
    return PolicyLines(data, initial=initial, prefix="policies", form_kwargs={"types": types})


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
