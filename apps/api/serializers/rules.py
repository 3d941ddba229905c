"""Rules with their checks and field policies."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.api.serializers.common import Reached, specs_of, texts
from apps.api.sparse import Shown
from apps.engine.spec import CheckSpec, FieldPolicySpec
from apps.mappings.models import Mapping
from apps.rules.models import Check, FieldPolicy, Policy, Rule

SCHEDULE = ("schedule_kind", "every_minutes", "daily_at", "cron", "time_zone", "verify_hours")
GUARDS = (
    "max_rejections",
    "max_rejections_percent",
    "max_deletes",
    "max_deletes_percent",
    "max_changes",
    "max_changes_percent",
    "refuse_empty_source",
)
TWO_WAY = (
    "policy",
    "first_contact",
    "edit_delete",
    "on_right_delete",
    "left_mark_field",
    "left_mark_value",
    "left_modified",
    "right_modified",
    "minimum_gap_seconds",
    "tie",
    "right_cursor_field",
)
COLUMNS = (
    "name",
    "description",
    "direction",
    "delta",
    "cursor_field",
    "cursor_lag_seconds",
    "sweep_minutes",
    "filter",
    "on_leave",
    "on_delete",
    "mark_field",
    "mark_value",
    *GUARDS,
    *SCHEDULE,
    *TWO_WAY,
    "approval",
    "approval_hours",
    "four_eyes",
)


class ShownCheck(Shown):
    """A condition on the record as it would be written."""

    name = serializers.CharField()
    kind = serializers.ChoiceField(choices=Check.Kind.choices)
    field = serializers.CharField()
    severity = serializers.ChoiceField(choices=Check.Severity.choices)
    type = serializers.CharField()
    pattern = serializers.CharField()
    minimum = serializers.CharField()
    maximum = serializers.CharField()
    values = texts()
    lookup = serializers.CharField()
    expression = serializers.CharField()


class ShownFieldPolicy(Shown):
    """The conflict policy of one right field."""

    field = serializers.CharField()
    policy = serializers.ChoiceField(choices=Policy.choices)
    expression = serializers.CharField()
    separator = serializers.CharField()


class _Columns(serializers.ModelSerializer):
    """The plain columns of a rule, as the model has them."""

    class Meta:
        model = Rule
        fields = COLUMNS


class RuleConfiguration(Shown):
    """What the ETag of a rule stands for."""

    mapping = serializers.UUIDField(source="mapping_id")
    enabled = serializers.BooleanField()
    paused = serializers.BooleanField()
    checks = ShownCheck(many=True, source="checks.all")
    field_policies = ShownFieldPolicy(many=True, source="field_policies.all")

    def every_field(self) -> dict[str, Any]:
        return {**_Columns().get_fields(), **super().every_field()}


class ShownRule(RuleConfiguration):
    """When and how a mapping is kept in step."""

    id = serializers.UUIDField()
    version = serializers.SerializerMethodField(help_text="Runs are pinned to one.")
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()

    def get_version(self, rule: Rule) -> int | None:
        if hasattr(rule, "latest_version"):
            return rule.latest_version
        return rule.current_version.number if rule.current_version else None


class GivenCheck(serializers.ModelSerializer):
    """A condition; which of the other fields count follows from `kind`."""

    values = texts(required=False, default=list)

    class Meta:
        model = Check
        fields = tuple(name for name in ShownCheck._declared_fields)


class GivenFieldPolicy(serializers.ModelSerializer):
    """The policy of one right field of a two-way rule."""

    class Meta:
        model = FieldPolicy
        fields = ("field", "policy", "expression", "separator")


class RuleChanges(serializers.ModelSerializer):
    """What can be changed of a rule; `checks` and `field_policies` are replaced as wholes."""

    mapping = Reached(Mapping, required=False)
    checks = GivenCheck(many=True, required=False)
    field_policies = GivenFieldPolicy(many=True, required=False)

    class Meta:
        model = Rule
        fields = (*COLUMNS, "mapping", "checks", "field_policies")
        extra_kwargs = {"name": {"required": False}}


class NewRule(RuleChanges):
    """A new rule; its schedule starts nothing before it is enabled."""

    mapping = Reached(Mapping)

    class Meta(RuleChanges.Meta):
        extra_kwargs = {"name": {"required": True}}


def check_specs(given: list[dict[str, Any]]) -> list[CheckSpec]:
    bounds = ("minimum", "maximum")
    rows = [{**row, **{name: row.get(name) or None for name in bounds}} for row in given]
    return specs_of(CheckSpec, rows, "checks")


def policy_specs(given: list[dict[str, Any]]) -> list[FieldPolicySpec]:
    return specs_of(FieldPolicySpec, given, "field_policies")
