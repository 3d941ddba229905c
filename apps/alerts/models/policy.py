"""When a rule's state is a problem, and who is told of it, step by step."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth.models import Group
from django.core.validators import MinValueValidator, RegexValidator
from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from apps.alerts.models.delivery import Channel
from apps.alerts.models.incident import Severity
from apps.core.models import BaseModel, Tag
from apps.rules.models import Rule

EVERY_DAY = "1234567"


class EscalationPolicy(BaseModel):
    """For rules named here, for those with one of the tags, or (the default) for all others.

    Numbers that are empty are no problem. work_days: digits, 1 for Monday. Outside working hours
    only what is critical is told; the rest waits for the next working hour.
    """

    name = models.CharField(max_length=100, unique=True)
    is_default = models.BooleanField(
        "for everything else",
        default=False,
        help_text="For rules and sources that no other policy is for, and for Lockstep itself.",
    )
    rules = models.ManyToManyField(Rule, blank=True, related_name="escalation_policies")
    tags = models.ManyToManyField(
        Tag, blank=True, related_name="+", help_text="For all rules and sources with one of these."
    )
    least_severity = models.PositiveSmallIntegerField(
        "tell from",
        choices=Severity.choices,
        default=Severity.WARNING,
        help_text="Milder problems are incidents as well, but nobody is told.",
    )
    fresh_minutes = models.PositiveIntegerField(
        "fresh within (minutes)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="The last success of an enabled rule is never older than this.",
    )
    most_rejections = models.PositiveIntegerField(
        "most records kept out", null=True, blank=True, default=100
    )
    most_conflicts = models.PositiveIntegerField(null=True, blank=True, default=100)
    conflict_hours = models.PositiveIntegerField(
        "conflicts wait at most (hours)", null=True, blank=True, default=72
    )
    repeat_minutes = models.PositiveIntegerField(
        "repeat the last step every (minutes)",
        null=True,
        blank=True,
        validators=[MinValueValidator(1)],
        help_text="Until somebody acknowledges. Empty: not at all.",
    )
    time_zone = models.CharField(max_length=60, default="UTC")
    work_days = models.CharField(
        max_length=7,
        default=EVERY_DAY,
        validators=[RegexValidator(r"^[1-7]+$", "Digits from 1 (Monday) to 7 (Sunday).")],
        help_text="1 is Monday: 12345 for Monday to Friday.",
    )
    work_from = models.TimeField(null=True, blank=True, help_text="Empty: at any time.")
    work_until = models.TimeField(
        null=True,
        blank=True,
        help_text="Before the beginning: of the next day (22:00 to 06:00).",
    )
    history = HistoricalRecords(m2m_fields=[rules, tags])

    class Meta:
        ordering = ["name"]
        verbose_name = "escalation policy"
        verbose_name_plural = "escalation policies"
        constraints = [
            models.UniqueConstraint(
                fields=["is_default"],
                condition=Q(is_default=True),
                name="one_default_escalation_policy",
            )
        ]

    def __str__(self) -> str:
        return self.name


class EscalationStep(BaseModel):
    """Who is told how, so many minutes after the incident began, if nobody has acknowledged."""

    policy = models.ForeignKey(EscalationPolicy, on_delete=models.CASCADE, related_name="steps")
    after_minutes = models.PositiveIntegerField("after (minutes)", default=0)
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="+")
    people = models.ManyToManyField(
        settings.AUTH_USER_MODEL, blank=True, related_name="+", help_text="For mail: to whom."
    )
    groups = models.ManyToManyField(
        Group, blank=True, related_name="+", help_text="For mail: everybody with this role."
    )

    class Meta:
        ordering = ["after_minutes", "created_at"]

    def __str__(self) -> str:
        return f"after {self.after_minutes} min by {self.channel}"
