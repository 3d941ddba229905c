"""Changes, records, conflicts and rejections: personal values are masked in all of them."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.api.serializers.common import image, texts
from apps.api.sparse import Shown
from apps.core.protected import ProtectedValueError
from apps.ledger.models import Change, Conflict, Link, Operation, Rejection, Side
from apps.ledger.services.conflicts import RECORD_CHOICES, TAKES

MOST_REPLAYED = 1_000


class ShownChange(Shown):
    """One record's planned or applied difference."""

    id = serializers.CharField(help_text="A whole number, as a text: some exceed 2^53.")
    run = serializers.UUIDField(source="run_id")
    rule = serializers.UUIDField(source="rule_id")
    side = serializers.ChoiceField(choices=Side.choices, help_text="Where it is written.")
    operation = serializers.ChoiceField(choices=Operation.choices)
    cause = serializers.ChoiceField(choices=Change.Cause.choices)
    outcome = serializers.ChoiceField(choices=Change.Outcome.choices)
    left_key = serializers.CharField()
    right_key = serializers.CharField()
    fields_written = texts(source="field_names")
    before = serializers.SerializerMethodField()
    after = serializers.SerializerMethodField()
    code = serializers.CharField(help_text="Why it was not applied; see the error codes.")
    message = serializers.SerializerMethodField()
    planned_at = serializers.DateTimeField()
    settled_at = serializers.DateTimeField(allow_null=True)

    def get_before(self, change: Change) -> dict[str, str | None] | None:
        return _opened(lambda: change.images()[0])

    def get_after(self, change: Change) -> dict[str, str | None] | None:
        return _opened(lambda: change.images()[1])

    def get_message(self, change: Change) -> str:
        return _opened(lambda: change.message) or ""


def _opened(read: Any) -> Any:
    """A value; None where it was erased, or its key is gone."""
    try:
        return read()
    except ProtectedValueError:
        return None


class ShownAddress(Shown):
    """Where a record is: dataset and canonical key text."""

    dataset = serializers.UUIDField(source="dataset_id")
    key = serializers.CharField()


class ShownMembership(Shown):
    """How one rule knows the record."""

    rule = serializers.UUIDField(source="rule.pk")
    rule_name = serializers.CharField(source="rule.name")
    left_key = serializers.CharField()
    right_key = serializers.CharField()
    link = serializers.ChoiceField(
        source="state", choices=[*Link.State.choices, ("", "There is none")]
    )


class ShownRecord(Shown):
    """One record across all systems, and what became of it, newest first."""

    addresses = ShownAddress(many=True)
    rules = ShownMembership(many=True)
    changes = ShownChange(many=True)


class ShownConflict(Shown):
    """A record that waits for a person. Values are texts by right field."""

    id = serializers.UUIDField()
    rule = serializers.UUIDField(source="rule_id")
    run = serializers.UUIDField(source="run_id")
    kind = serializers.ChoiceField(choices=Conflict.Kind.choices)
    state = serializers.ChoiceField(choices=Conflict.State.choices)
    can_be_decided = serializers.BooleanField()
    left_key = serializers.CharField()
    right_key = serializers.CharField()
    open_fields = texts(source="field_names")
    seen = serializers.CharField(help_text="Send it with a decision: it holds for these values.")
    left = serializers.SerializerMethodField()
    right = serializers.SerializerMethodField()
    candidates = serializers.SerializerMethodField()
    note = serializers.CharField()
    created_at = serializers.DateTimeField()
    decided_at = serializers.DateTimeField(allow_null=True)
    resolved_at = serializers.DateTimeField(allow_null=True)

    def get_left(self, conflict: Conflict) -> dict[str, str | None] | None:
        return _opened(lambda: conflict.left)

    def get_right(self, conflict: Conflict) -> dict[str, str | None] | None:
        return _opened(lambda: conflict.right)

    def get_candidates(self, conflict: Conflict) -> list[str]:
        return _opened(lambda: conflict.candidates) or []


class GivenChoice(serializers.Serializer):
    """What one field becomes."""

    take = serializers.ChoiceField(choices=[(take, take) for take in sorted(TAKES)])
    value = serializers.CharField(required=False, allow_null=True, allow_blank=True)


class GivenDecision(serializers.Serializer):
    """What becomes of a conflict: a side for the whole record, choices by field, or a match."""

    seen = serializers.CharField(max_length=32, help_text="Of the conflict as you have read it.")
    record = serializers.ChoiceField(
        choices=[(choice, choice) for choice in RECORD_CHOICES], required=False
    )
    choices = serializers.DictField(
        child=GivenChoice(), required=False, help_text="By right field."
    )
    match = serializers.CharField(required=False, max_length=2_000)
    note = serializers.CharField(required=False, default="", allow_blank=True, max_length=255)


class ShownDecided(Shown):
    """The conflict as it is now, and the run that writes it; without one, the next run does."""

    conflict = ShownConflict()
    run = serializers.UUIDField(allow_null=True)
    written_later = serializers.CharField(help_text="Why no run could start now; empty: one has.")


class ShownRejection(Shown):
    """A record kept out of a run."""

    id = serializers.UUIDField()
    rule = serializers.UUIDField(source="rule_id")
    run = serializers.UUIDField(source="run_id")
    state = serializers.ChoiceField(choices=Rejection.State.choices)
    stage = serializers.ChoiceField(choices=Rejection.Stage.choices)
    code = serializers.CharField()
    field = serializers.CharField()
    check = serializers.CharField(source="check_name")
    message = serializers.CharField()
    position = serializers.CharField(help_text="Where it was read, such as orders.csv line 17.")
    times = serializers.IntegerField(help_text="How many runs have rejected it.")
    left_key = serializers.CharField()
    right_key = serializers.CharField()
    record = image(allow_null=True)
    edit = image(allow_null=True, help_text="As a person has corrected it.")
    note = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()
    resolved_at = serializers.DateTimeField(allow_null=True)


class Replay(serializers.Serializer):
    """Rejections to run again."""

    rejections = serializers.ListField(
        child=serializers.UUIDField(), min_length=1, max_length=MOST_REPLAYED
    )
