"""The rule that people edit: when and how a mapping is kept in step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from simple_history.models import HistoricalRecords

from apps.core.models import BaseModel, Tag
from apps.mappings.models import Mapping
from apps.rules.models.approval import ApprovalSettings
from apps.rules.models.two_way import TwoWaySettings

if TYPE_CHECKING:
    from apps.rules.models.version import RuleVersion


class Rule(TwoWaySettings, ApprovalSettings, BaseModel):
    """The rule that people edit; `services.publish` turns it into a version."""

    class Direction(models.TextChoices):
        LEFT_TO_RIGHT = "left_to_right", "Left → right"
        TWO_WAY = "two_way", "Left ↔ right"

    class Delta(models.TextChoices):
        FULL = "full", "Full: compare everything"
        CURSOR = "cursor", "Cursor: read what changed since"
        CHECKSUM = "checksum", "Checksum: compare inside the databases, where that is faster"

    class OnDelete(models.TextChoices):
        PROPAGATE = "propagate", "Delete the right record"
        MARK = "mark", "Mark the right record"
        IGNORE = "ignore", "Leave the right record"
        APPROVE = "approve", "Ask before the right record is deleted"

    class OnLeave(models.TextChoices):
        KEEP = "keep", "Leave the right record"
        MARK = "mark", "Mark the right record"
        DELETE = "delete", "Delete the right record"

    class ScheduleKind(models.TextChoices):
        MANUAL = "manual", "Only when started"
        EVERY = "every", "Every so many minutes"
        DAILY = "daily", "Daily at"
        CRON = "cron", "Cron expression"

    name = models.CharField(max_length=150, unique=True)
    mapping = models.ForeignKey(Mapping, on_delete=models.PROTECT, related_name="rules")
    description = models.TextField(blank=True)
    direction = models.CharField(
        max_length=20, choices=Direction.choices, default=Direction.LEFT_TO_RIGHT
    )
    enabled = models.BooleanField(default=False, help_text="Scheduled runs start only when set.")
    paused = models.BooleanField(default=False)

    delta = models.CharField("delta method", max_length=10, choices=Delta.choices, default="full")
    cursor_field = models.CharField(max_length=255, blank=True, help_text="A left field.")
    cursor_lag_seconds = models.PositiveIntegerField(
        default=0, help_text="How late a change may become visible after its cursor value."
    )
    sweep_minutes = models.PositiveIntegerField(
        "key sweep every (minutes)",
        default=1440,
        validators=[MinValueValidator(1)],
        help_text="Cursor rules find deletes by comparing all keys this often.",
    )

    filter = models.TextField(
        blank=True, help_text="SQL condition over left fields: which records take part."
    )
    on_leave = models.CharField(
        "when a record leaves the filter", max_length=10, choices=OnLeave.choices, default="keep"
    )
    on_delete = models.CharField(
        "when a left record is deleted",
        max_length=10,
        choices=OnDelete.choices,
        default="propagate",
        help_text="Linked records only: what Lockstep never owned it never deletes.",
    )
    mark_field = models.CharField(max_length=255, blank=True, help_text="Right field to set.")
    mark_value = models.CharField(max_length=255, default="true", blank=True)

    max_rejections = models.PositiveIntegerField(null=True, blank=True)
    max_rejections_percent = models.FloatField(
        null=True, blank=True, validators=[MinValueValidator(0), MaxValueValidator(100)]
    )
    max_deletes = models.PositiveIntegerField("most deletes", null=True, blank=True)
    max_deletes_percent = models.FloatField(
        "most deletes (%)",
        null=True,
        blank=True,
        default=50,
        validators=[MinValueValidator(0), MaxValueValidator(100)],
    )
    max_changes = models.PositiveIntegerField("most changes", null=True, blank=True)
    max_changes_percent = models.FloatField(
        "most changes (%)", null=True, blank=True, validators=[MinValueValidator(0)]
    )
    refuse_empty_source = models.BooleanField(default=True)

    schedule_kind = models.CharField(
        "schedule", max_length=10, choices=ScheduleKind.choices, default=ScheduleKind.MANUAL
    )
    every_minutes = models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)]
    )
    daily_at = models.TimeField(null=True, blank=True)
    cron = models.CharField(max_length=100, blank=True, help_text="Five fields, such as 0 6 * * 1.")
    time_zone = models.CharField(max_length=60, default="UTC")
    verify_hours = models.PositiveIntegerField(
        "verify every (hours)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Whole datasets are compared this often, and nothing is written. Empty: by hand.",
    )
    schedule_since = models.DateTimeField(null=True, editable=False)

    depends_on = models.ManyToManyField(
        "self",
        symmetrical=False,
        blank=True,
        related_name="dependents",
        help_text="Rules that run before this one when they start together.",
    )
    is_demo = models.BooleanField(default=False, editable=False)
    tags = models.ManyToManyField(Tag, blank=True, editable=False, related_name="rules")
    history = HistoricalRecords(m2m_fields=[depends_on])

    class Meta:
        ordering = ["name"]
        permissions = [
            ("run_rule", "Can start runs of a rule"),
            ("pause_rule", "Can pause and resume a rule"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def current_version(self) -> RuleVersion | None:
        return self.versions.order_by("-number").first()
