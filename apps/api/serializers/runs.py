"""Runs, their progress and their log."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.api.serializers.common import Reached
from apps.api.sparse import Shown
from apps.ledger.models import Change, Operation, Side
from apps.rules.models import Rule
from apps.runs.models import COUNTER_NAMES, Run, RunLog, RunStatus
from apps.runs.selectors import run_progress

MOST_RECORDS = 1_000
UNDO_MODES = [(Run.Mode.DRY_RUN.value, "Preview"), (Run.Mode.APPLY.value, "Apply")]
MOST_CHOSEN = 10_000


class ShownProgress(Shown):
    """How far a run is; `percent` is null where it cannot be told."""

    percent = serializers.IntegerField(allow_null=True)
    phase = serializers.CharField()
    rows_per_second = serializers.FloatField(allow_null=True)
    eta_seconds = serializers.IntegerField(allow_null=True)


class ShownRun(Shown):
    """One execution of a rule, pinned to one version of it."""

    id = serializers.UUIDField()
    rule = serializers.UUIDField(source="rule_id")
    rule_name = serializers.CharField(source="rule.name")
    version = serializers.IntegerField(source="version.number")
    kind = serializers.ChoiceField(choices=Run.Kind.choices)
    mode = serializers.ChoiceField(choices=Run.Mode.choices)
    trigger = serializers.ChoiceField(choices=Run.Trigger.choices)
    status = serializers.ChoiceField(choices=RunStatus.choices)
    is_active = serializers.BooleanField(help_text="Whether it goes on, or waits for approval.")
    lane = serializers.ChoiceField(choices=Run.Lane.choices)
    lane_reason = serializers.CharField()
    requested_by = serializers.CharField(source="requested_by.username", allow_null=True)
    reason = serializers.CharField()
    undoes = serializers.UUIDField(source="undoes_id", allow_null=True)
    waits_for = serializers.CharField(help_text="Why a person has to approve the plan.")
    expires_at = serializers.DateTimeField(allow_null=True, help_text="Of a plan that waits.")
    decision_note = serializers.CharField()
    cause_code = serializers.CharField(help_text="Why it ended as it did; see the error codes.")
    cause = serializers.CharField()
    remedy = serializers.CharField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    planned_at = serializers.DateTimeField(allow_null=True)
    applied_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    counters = serializers.SerializerMethodField()

    def get_counters(self, run: Run) -> dict[str, int]:
        return {name: getattr(run, name) for name in COUNTER_NAMES}


class ShownRunWhole(ShownRun):
    """A run with its progress."""

    progress = serializers.SerializerMethodField()

    def get_progress(self, run: Run) -> Any:
        return ShownProgress(run_progress(run)).data


class ShownLogLine(Shown):
    """One line of a run's log."""

    id = serializers.IntegerField()
    at = serializers.DateTimeField()
    level = serializers.ChoiceField(choices=RunLog.Level.choices)
    partition = serializers.IntegerField(source="partition_number", allow_null=True)
    message = serializers.CharField()


class RecordKeys(serializers.Serializer):
    """One record: its canonical key texts, one of which may be left out."""

    left_key = serializers.CharField(required=False, default="", allow_blank=True)
    right_key = serializers.CharField(required=False, default="", allow_blank=True)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not (attrs["left_key"] or attrs["right_key"]):
            raise serializers.ValidationError("a record has a left key or a right key")
        return attrs


class NewRun(serializers.Serializer):
    """A run to start."""

    rule = Reached(Rule, "run")
    mode = serializers.ChoiceField(
        choices=Run.Mode.choices,
        default=Run.Mode.APPLY,
        help_text="dry_run: only the plan; verify: both sides are compared, nothing is written.",
    )
    sweep = serializers.BooleanField(default=False, help_text="A cursor rule compares all keys.")
    asks_approval = serializers.BooleanField(
        default=False, help_text="The plan waits for a person, whatever the rule says."
    )
    records = RecordKeys(many=True, required=False, help_text="Only these; none: all.")
    reason = serializers.CharField(required=False, default="", allow_blank=True, max_length=500)

    def validate_records(self, value: list[Any]) -> list[Any]:
        if len(value) > MOST_RECORDS:
            raise serializers.ValidationError(f"at most {MOST_RECORDS} records at a time")
        return value


class Selection(serializers.Serializer):
    """Some of a plan's changes: those that fit every condition which is given."""

    changes = serializers.ListField(
        child=serializers.IntegerField(min_value=-(2**63), max_value=2**63 - 1),
        required=False,
        max_length=MOST_CHOSEN,
        help_text="Ids of changes.",
    )
    operations = serializers.ListField(
        child=serializers.ChoiceField(choices=Operation.choices), required=False
    )
    sides = serializers.ListField(
        child=serializers.ChoiceField(choices=Side.choices), required=False
    )
    causes = serializers.ListField(
        child=serializers.ChoiceField(choices=Change.Cause.choices), required=False
    )
    field = serializers.CharField(
        required=False, max_length=255, help_text="Changes that write it."
    )


class Approval(serializers.Serializer):
    """Lets a plan that waits be applied: exactly what is stored, or what is selected of it."""

    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=500)
    selection = Selection(required=False, help_text="Nothing: the whole plan.")


class NewUndo(serializers.Serializer):
    """Takes back what a run has written, except where somebody has edited since."""

    reason = serializers.CharField(max_length=500)
    mode = serializers.ChoiceField(
        choices=UNDO_MODES,
        default=Run.Mode.DRY_RUN.value,
        help_text="dry_run shows what would be put back.",
    )
