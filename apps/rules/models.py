"""When and how a mapping is kept in step. Versions are immutable; runs are pinned to one."""

from __future__ import annotations

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from simple_history.models import HistoricalRecords

from apps.core.models import BaseModel
from apps.engine.spec import RuleSpec
from apps.mappings.models import Mapping, MappingVersion


class Rule(BaseModel):
    """The rule that people edit; `services.publish` turns it into a version."""

    class Direction(models.TextChoices):
        LEFT_TO_RIGHT = "left_to_right", "Left → right"

    class Delta(models.TextChoices):
        FULL = "full", "Full: compare everything"
        CURSOR = "cursor", "Cursor: read what changed since"

    class OnDelete(models.TextChoices):
        PROPAGATE = "propagate", "Delete the right record"
        MARK = "mark", "Mark the right record"
        IGNORE = "ignore", "Leave the right record"

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
    schedule_since = models.DateTimeField(null=True, editable=False)

    depends_on = models.ManyToManyField(
        "self",
        symmetrical=False,
        blank=True,
        related_name="dependents",
        help_text="Rules that run before this one when they start together.",
    )
    is_demo = models.BooleanField(default=False, editable=False)
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


class Check(BaseModel):
    """A condition on the record as it would be written."""

    class Kind(models.TextChoices):
        TYPE = "type", "Has a type"
        REQUIRED = "required", "Is there"
        PATTERN = "pattern", "Matches a pattern"
        RANGE = "range", "Lies in a range"
        SET = "set", "Is one of"
        UNIQUE = "unique", "Is unique"
        REFERENCE = "reference", "Is known to a lookup"
        EXPRESSION = "expression", "Expression holds"

    class Severity(models.TextChoices):
        REJECT = "reject", "Reject the record"
        WARN = "warn", "Warn"
        STOP = "stop", "Stop the run"

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="checks")
    position = models.PositiveIntegerField(default=0)
    name = models.CharField(max_length=100)
    kind = models.CharField(max_length=12, choices=Kind.choices)
    field = models.CharField("right field", max_length=255, blank=True)
    severity = models.CharField(max_length=8, choices=Severity.choices, default=Severity.REJECT)
    type = models.CharField(max_length=60, blank=True)
    pattern = models.CharField(max_length=500, blank=True)
    minimum = models.CharField(max_length=100, blank=True)
    maximum = models.CharField(max_length=100, blank=True)
    values = models.JSONField(default=list, blank=True)
    lookup = models.CharField(max_length=160, blank=True)
    expression = models.TextField(blank=True)
    history = HistoricalRecords()

    class Meta:
        ordering = ["position", "name"]
        constraints = [models.UniqueConstraint(fields=["rule", "name"], name="one_check_per_name")]

    def __str__(self) -> str:
        return self.name


class RuleVersion(BaseModel):
    """What a rule and its mapping said at one moment. Never changed."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    mapping_version = models.ForeignKey(
        MappingVersion, on_delete=models.PROTECT, related_name="rule_versions"
    )
    spec_data = models.JSONField()
    digest = models.CharField(max_length=64)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        ordering = ["rule", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "number"], name="rule_version_number")
        ]

    def __str__(self) -> str:
        return f"{self.rule.name} v{self.number}"

    def spec(self) -> RuleSpec:
        return RuleSpec.model_validate(self.spec_data)


class SyncDraft(BaseModel):
    """A sync that somebody is still setting up: it can be left and resumed."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="sync_drafts"
    )
    name = models.CharField(max_length=150, default="New sync")
    step = models.CharField(max_length=20, default="sources")
    data = models.JSONField(default=dict)
    rule = models.ForeignKey(Rule, null=True, blank=True, on_delete=models.SET_NULL)

    class Meta:
        ordering = ["-updated_at"]

    def __str__(self) -> str:
        return self.name
