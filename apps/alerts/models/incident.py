"""A problem that people are told about, and what was done about it."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel
from apps.rules.models import Rule
from apps.runs.models import Run
from apps.sources.models import Source


class Kind(models.TextChoices):
    RUN_FAILED = "run_failed", "Run failed"
    RUN_STOPPED = "run_stopped", "Stopped by a guard"
    NOT_STARTED = "not_started", "Did not start when due"
    STALE = "stale", "Not fresh"
    REJECTIONS = "rejections", "Records kept out"
    CONFLICTS = "conflicts", "Conflicts wait"
    PLAN_WAITS = "plan_waits", "Plan waits for approval"
    SOURCE_FAILING = "source_failing", "Source cannot be reached"
    DRIFT = "drift", "Schema has changed"
    AUDIT_BROKEN = "audit_broken", "Audit log altered"
    SIGN_INS = "sign_ins", "Sign-ins fail"
    CHANNEL_SILENT = "channel_silent", "Messages do not arrive"


class Severity(models.IntegerChoices):
    NOTICE = 1, "Notice"
    WARNING = 2, "Warning"
    CRITICAL = 3, "Critical"


class IncidentState(models.TextChoices):
    OPEN = "open", "Open"
    ACKNOWLEDGED = "acknowledged", "Acknowledged"
    SNOOZED = "snoozed", "Snoozed until worse"
    REGRESSED = "regressed", "Back again"
    RESOLVED = "resolved", "Resolved"


class Incident(BaseModel):
    """One problem of one object, from its beginning to its end, however often it is seen.

    fingerprint: what it is known by; at most one incident of it is not resolved. evidence: what it
    was last seen by. over_at: since when the problem is not seen any more; one that a person has
    resolved before that counts as new with other evidence only (where there is none: twice as much
    of it). size: how much of it there is. next_step, next_step_at: of the escalation.
    """

    LIVE = (
        IncidentState.OPEN,
        IncidentState.ACKNOWLEDGED,
        IncidentState.SNOOZED,
        IncidentState.REGRESSED,
    )
    LOUD = (IncidentState.OPEN, IncidentState.REGRESSED)

    fingerprint = models.CharField(max_length=200, editable=False)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    state = models.CharField(
        max_length=12, choices=IncidentState.choices, default=IncidentState.OPEN
    )
    severity = models.PositiveSmallIntegerField(choices=Severity.choices)
    title = models.CharField(max_length=300)
    cause_code = models.CharField(max_length=60, blank=True)
    text = models.TextField(blank=True)
    remedy = models.TextField(blank=True)
    rule = models.ForeignKey(Rule, null=True, on_delete=models.CASCADE, related_name="incidents")
    source = models.ForeignKey(
        Source, null=True, on_delete=models.CASCADE, related_name="incidents"
    )
    run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")
    evidence = models.CharField(max_length=100, blank=True)
    size = models.BigIntegerField(default=1)
    times_seen = models.PositiveIntegerField(default=1)
    last_seen_at = models.DateTimeField()
    acknowledged_at = models.DateTimeField(null=True)
    acknowledged_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    snoozed_until = models.DateTimeField(null=True)  # at the latest
    snoozed_size = models.BigIntegerField(null=True)
    resolved_at = models.DateTimeField(null=True)
    resolved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )  # NULL: it was over by itself
    over_at = models.DateTimeField(null=True)
    found_cause = models.CharField(max_length=500, blank=True)
    fix = models.CharField(max_length=500, blank=True)
    next_step = models.PositiveSmallIntegerField(default=0)
    next_step_at = models.DateTimeField(null=True)
    rounds = models.PositiveIntegerField(default=0)  # how often the last step was repeated

    class Meta:
        ordering = ["-created_at"]
        permissions = [("handle_incident", "Can acknowledge, snooze and resolve incidents")]
        default_permissions = ("view",)
        constraints = [
            models.UniqueConstraint(
                fields=["fingerprint"],
                condition=~Q(state="resolved"),
                name="one_live_incident_of_a_problem",
            )
        ]
        indexes = [
            models.Index(fields=["fingerprint", "-created_at"], name="incident_by_fingerprint"),
            models.Index(fields=["state", "-created_at"], name="incident_by_state"),
            models.Index(
                fields=["created_at"], condition=Q(over_at__isnull=True), name="incident_not_over"
            ),
            models.Index(
                fields=["next_step_at"],
                condition=Q(next_step_at__isnull=False),
                name="incident_by_next_step",
            ),
        ]

    def __str__(self) -> str:
        return self.title

    @property
    def error_code(self) -> str:
        """The code of an error that has a page; some causes are only what tells problems apart."""
        return "" if self.kind == Kind.CHANNEL_SILENT else self.cause_code

    @property
    def is_live(self) -> bool:
        return self.state != IncidentState.RESOLVED

    @property
    def is_loud(self) -> bool:
        """Whether nobody has taken it up yet."""
        return self.state in self.LOUD


class IncidentEvent(models.Model):
    """One line of an incident's timeline."""

    class Kind(models.TextChoices):
        OPENED = "opened", "Opened"
        SEEN = "seen", "Seen again"
        WORSE = "worse", "Got worse"
        ACKNOWLEDGED = "acknowledged", "Acknowledged"
        SNOOZED = "snoozed", "Snoozed"
        WOKEN = "woken", "Snooze ended"
        COMMENT = "comment", "Comment"
        ESCALATED = "escalated", "Told"
        RESOLVED = "resolved", "Resolved"
        REGRESSED = "regressed", "Back again"

    incident = models.ForeignKey(Incident, on_delete=models.CASCADE, related_name="timeline")
    kind = models.CharField(max_length=12, choices=Kind.choices)
    text = models.CharField(max_length=500, blank=True)
    actor = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    at = models.DateTimeField()

    class Meta:
        ordering = ["id"]
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.get_kind_display()}, {self.at:%Y-%m-%d %H:%M:%S}"
