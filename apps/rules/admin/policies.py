"""Conflict policies of single fields as lines of a table, offered by what suits their types."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django import forms
from django.http import HttpRequest
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from apps.connectors.errors import LockstepError
from apps.connectors.types import NeutralType
from apps.core.admin import BaseTabularInline, explain
from apps.core.selectors import by_id
from apps.engine.spec import FieldPolicy as Policy
from apps.engine.spec import FieldPolicySpec
from apps.mappings.models import Mapping
from apps.mappings.selectors import mappings
from apps.rules.admin.form import ONLY_TWO_WAY
from apps.rules.admin.parts import RulePartMixin
from apps.rules.models import FieldPolicy, Rule
from apps.rules.models.two_way import Policy as PolicyChoices
from apps.rules.validation import FIELD_POLICY_WORDS, fitting_policies
from apps.rules.validation.policies import require_policy_expression, suits

Types = dict[str, NeutralType]


def mapped_types(mapping: Mapping | None) -> Types:
    """Types of the right fields that a mapping gives values to, in the dataset's order."""
    if mapping is None:
        return {}
    mapped = set(mapping.fields.values_list("right", flat=True))
    return {f.name: f.type for f in mapping.right.schema().fields if f.name in mapped}


def policy_help(types: Types) -> dict[str, Any]:
    """What the page's script needs: the policies that suit each field, and their meaning."""
    return {
        "fitting": {
            name: [policy.value for policy in fitting_policies(neutral)]
            for name, neutral in types.items()
        },
        "words": {policy.value: words for policy, words in FIELD_POLICY_WORDS.items()},
    }


def policy_words() -> list[tuple[str, str]]:
    """Label and meaning of each policy, in the order in which they are offered."""
    return [(PolicyChoices(policy.value).label, words) for policy, words in
            FIELD_POLICY_WORDS.items()]  # fmt: skip


class FieldPolicyForm(forms.ModelForm):  # type: ignore[type-arg]
    """One line; `types` are those of the fields that the rule's mapping gives values to."""

    types: Types = {}
    proposed: Proposed | None = None

    class Meta:
        model = FieldPolicy
        fields = ("field", "policy", "expression", "separator")
        widgets = {"expression": UnfoldAdminTextInputWidget(attrs={"spellcheck": "false"})}

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.proposed and self.instance.pk and self.instance.field == self.proposed.field:
            self.initial["policy"] = self.proposed.policy
        if "field" not in self.fields or not self.types:
            return
        names = list(dict.fromkeys([*self.types, *filter(None, [self.instance.field])]))
        self.fields["field"] = forms.ChoiceField(
            choices=[("", "---------"), *((name, name) for name in names)],
            widget=UnfoldAdminSelectWidget(attrs={"class": "ls-policy-field"}),
            label="Right field",
        )
        neutral = self.types.get(self.instance.field)
        if neutral is not None:
            self.fields["policy"].choices = [  # type: ignore[attr-defined]
                (value, label)
                for value, label in PolicyChoices.choices
                if suits(Policy(value), neutral) or value == self.instance.policy
            ]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        name, policy = cleaned.get("field"), cleaned.get("policy")
        neutral = self.types.get(name or "")
        if neutral is not None and policy and not suits(Policy(policy), neutral):
            label = PolicyChoices(policy).label
            self.add_error("policy", f"“{label}” does not suit a field of type {neutral}.")
        if policy == Policy.EXPRESSION:
            self._clean_expression(cleaned, neutral)
        return cleaned

    def _clean_expression(self, cleaned: dict[str, Any], neutral: NeutralType | None) -> None:
        text = (cleaned.get("expression") or "").strip()
        if not text:
            self.add_error("expression", "Write an expression over left_value and right_value.")
        elif neutral is not None:
            spec = FieldPolicySpec(
                field=cleaned["field"], policy=Policy.EXPRESSION, expression=text
            )
            try:
                require_policy_expression(spec, neutral)
            except LockstepError as error:
                self.add_error("expression", explain(error))


class FieldPolicyInline(RulePartMixin, BaseTabularInline):
    model = FieldPolicy
    form = FieldPolicyForm
    fields = ("field", "policy", "expression", "separator")
    extra = 0
    classes = (ONLY_TWO_WAY,)
    verbose_name_plural = "Conflict policies of single fields"

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        mapping = chosen_mapping(request, obj)
        bound = {
            "types": mapped_types(mapping),
            "proposed": proposed_policy(request, obj),
        }
        form = type("FieldPolicyForm", (self.form,), bound)
        return super().get_formset(request, obj, form=form, **kwargs)

    def get_extra(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> int:
        """A line more for a proposed policy of a field that has none."""
        proposed = proposed_policy(request, obj)
        return int(proposed is not None and not proposed.is_known)


@dataclass(frozen=True, slots=True)
class Proposed:
    """A policy that another page proposes for a field (`?propose_field=…&propose_policy=…`)."""

    field: str
    policy: str
    is_known: bool  # the rule has a policy for this field

    @property
    def line(self) -> dict[str, str]:
        """As an empty line of the table is filled with it."""
        return {"field": self.field, "policy": self.policy}

    @property
    def sentence(self) -> str:
        label = PolicyChoices(self.policy).label
        return f"Proposed for “{self.field}”: {label}. Nothing changes before you save the rule."


def proposed_policy(request: HttpRequest, rule: Rule | None) -> Proposed | None:
    """What the address proposes, where that makes sense for this rule; only to be looked at."""
    name, policy = request.GET.get("propose_field", ""), request.GET.get("propose_policy", "")
    is_two_way = rule is not None and rule.direction == Rule.Direction.TWO_WAY
    if request.method != "GET" or rule is None or not is_two_way or not name:
        return None
    neutral = mapped_types(rule.mapping).get(name)
    if neutral is None or policy not in PolicyChoices.values or not suits(Policy(policy), neutral):
        return None
    return Proposed(name, policy, rule.field_policies.filter(field=name).exists())


def chosen_mapping(request: HttpRequest, rule: Rule | None) -> Mapping | None:
    """The mapping that the form is about: as it is chosen there, else the stored rule's."""
    chosen = request.POST.get("mapping") or request.GET.get("mapping")
    if not chosen:
        return rule.mapping if rule is not None else None
    return by_id(mappings(request.user), chosen)


def field_policy_specs(lines: Iterable[Any]) -> list[FieldPolicySpec]:
    """What the valid lines of the table say, without deleted ones."""
    return [
        FieldPolicySpec(
            field=line.cleaned_data["field"],
            policy=line.cleaned_data["policy"],
            expression=line.cleaned_data.get("expression", "").strip(),
            separator=line.cleaned_data.get("separator") or ",",
        )
        for line in lines
        if line.cleaned_data
        and not line.cleaned_data.get("DELETE")
        and line.cleaned_data.get("field")
    ]
