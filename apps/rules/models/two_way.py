"""What a two-way rule says beside what every rule says."""

from __future__ import annotations

from django.db import models
from simple_history.models import HistoricalRecords

from apps.core.models import BaseModel


class Policy(models.TextChoices):
    """Who wins where both sides changed one field to different values."""

    ASK = "ask", "Ask a person"
    LEFT = "left", "Left wins"
    RIGHT = "right", "Right wins"
    NEWEST = "newest", "Newest edit wins"
    HIGHEST = "highest", "Highest value wins"
    LOWEST = "lowest", "Lowest value wins"
    COUNTER = "counter", "Counter: add both changes"
    SET = "set", "Set: keep what either side added"
    TEXT = "text", "Text: merge line by line"
    EXPRESSION = "expression", "Expression"


class Winner(models.TextChoices):
    ASK = "ask", "Ask a person"
    LEFT = "left", "Left wins"
    RIGHT = "right", "Right wins"
    NEWEST = "newest", "Newest edit wins"


WHOLE_RULE_POLICIES = [
    (policy.value, policy.label)
    for policy in Policy
    if policy not in (Policy.COUNTER, Policy.SET, Policy.EXPRESSION)
]
TIE_WINNERS = [(winner.value, winner.label) for winner in Winner if winner is not Winner.NEWEST]


class TwoWaySettings(models.Model):
    """The columns of a rule that count where its direction is two-way."""

    class EditDelete(models.TextChoices):
        EDIT = "edit", "The edit wins: the record comes back"
        DELETE = "delete", "The delete wins"
        ASK = "ask", "Ask a person"

    class OnRightDelete(models.TextChoices):
        PROPAGATE = "propagate", "Delete the left record"
        MARK = "mark", "Mark the left record"
        IGNORE = "ignore", "Leave the left record"
        APPROVE = "approve", "Ask before the left record is deleted"

    policy = models.CharField(
        "when both sides changed a field",
        max_length=10,
        choices=WHOLE_RULE_POLICIES,
        default=Policy.ASK,
        help_text="For fields without a policy of their own.",
    )
    first_contact = models.CharField(
        max_length=10,
        choices=Winner.choices,
        default=Winner.ASK,
        help_text="Who wins where two records meet for the first time and differ.",
    )
    edit_delete = models.CharField(
        "edited here, deleted there",
        max_length=10,
        choices=EditDelete.choices,
        default=EditDelete.EDIT,
    )
    on_right_delete = models.CharField(
        "when a right record is deleted",
        max_length=10,
        choices=OnRightDelete.choices,
        default=OnRightDelete.PROPAGATE,
        help_text="Linked records only: what Lockstep never owned it never deletes.",
    )
    left_mark_field = models.CharField(max_length=255, blank=True, help_text="Left field to set.")
    left_mark_value = models.CharField(max_length=255, default="true", blank=True)
    left_modified = models.CharField(
        "left modification time",
        max_length=255,
        blank=True,
        help_text="Left timestamp field that says when a record was edited.",
    )
    right_modified = models.CharField(
        "right modification time", max_length=255, blank=True, help_text="Likewise, on the right."
    )
    minimum_gap_seconds = models.PositiveIntegerField(
        default=1, help_text="Edits that are nearer to each other count as simultaneous."
    )
    tie = models.CharField(
        "simultaneous edits",
        max_length=10,
        choices=TIE_WINNERS,
        default=Winner.ASK,
        help_text="Where the newest edit wins, but neither is newer.",
    )
    right_cursor_field = models.CharField(
        max_length=255, blank=True, help_text="A right field; needed for delta method cursor."
    )

    class Meta:
        abstract = True


class FieldPolicy(BaseModel):
    """The conflict policy of one right field of a two-way rule."""

    rule = models.ForeignKey("rules.Rule", on_delete=models.CASCADE, related_name="field_policies")
    field = models.CharField("right field", max_length=255)
    policy = models.CharField(max_length=10, choices=Policy.choices)
    expression = models.TextField(
        blank=True,
        help_text="For expressions: SQL over left_value, right_value and base_value.",
    )
    separator = models.CharField(
        max_length=5,
        default=",",
        blank=True,
        help_text="For sets in a text field: what stands between the members.",
    )
    history = HistoricalRecords()

    class Meta:
        ordering = ["field"]
        verbose_name_plural = "field policies"
        constraints = [
            models.UniqueConstraint(fields=["rule", "field"], name="one_policy_per_field")
        ]

    def __str__(self) -> str:
        return f"{self.field}: {self.get_policy_display()}"
