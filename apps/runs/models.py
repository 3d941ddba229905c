"""Runs and their partitions, leases, logs, checkpoints and due times."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.core.models import BaseModel
from apps.rules.models import Rule, RuleVersion
from apps.sources.models import Source


class RunStatus(models.TextChoices):
    QUEUED = "queued", "Queued"
    PLANNING = "planning", "Planning"
    REVIEWING = "reviewing", "In review"
    WAITING = "waiting", "Waiting for approval"
    APPLYING = "applying", "Applying"
    VERIFYING = "verifying", "Verifying"
    PLANNED = "planned", "Planned (dry run)"
    SUCCEEDED = "succeeded", "Succeeded"
    PARTIAL = "partial", "Done with rejections"
    REFUSED = "refused", "Refused by a guard"
    REJECTED = "rejected", "Plan rejected"
    EXPIRED = "expired", "Plan expired"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


ACTIVE_STATUSES = (
    RunStatus.QUEUED,
    RunStatus.PLANNING,
    RunStatus.REVIEWING,
    RunStatus.WAITING,
    RunStatus.APPLYING,
    RunStatus.VERIFYING,
)
ENDED_WELL = (RunStatus.SUCCEEDED, RunStatus.PARTIAL)
ENDED_BADLY = (RunStatus.FAILED, RunStatus.REFUSED)


class Counters(models.Model):
    """What was counted so far; the run's are the sums of its partitions'.

    Changes are counted on both sides; `…_left` are the part of them that is written to the left.
    replanned: changes that had moved, or waited, and were planned again within the run;
    unresolved: records written with a reference that could not be translated yet.
    """

    read = models.BigIntegerField(default=0)
    left_out = models.BigIntegerField(default=0)
    unchanged = models.BigIntegerField(default=0)
    planned_inserts = models.BigIntegerField(default=0)
    planned_updates = models.BigIntegerField(default=0)
    planned_deletes = models.BigIntegerField(default=0)
    inserted = models.BigIntegerField(default=0)
    updated = models.BigIntegerField(default=0)
    deleted = models.BigIntegerField(default=0)
    rejected = models.BigIntegerField(default=0)
    stale = models.BigIntegerField(default=0)
    read_right = models.BigIntegerField(default=0)
    planned_left = models.BigIntegerField(default=0)
    inserted_left = models.BigIntegerField(default=0)
    updated_left = models.BigIntegerField(default=0)
    deleted_left = models.BigIntegerField(default=0)
    conflicts = models.BigIntegerField(default=0)
    replanned = models.BigIntegerField(default=0)
    skipped = models.BigIntegerField(default=0)
    in_doubt = models.BigIntegerField(default=0)
    unresolved = models.BigIntegerField(default=0)
    warnings = models.BigIntegerField(default=0)
    bytes_read = models.BigIntegerField(default=0)
    bytes_written = models.BigIntegerField(default=0)

    class Meta:
        abstract = True

    @property
    def planned(self) -> int:
        return self.planned_inserts + self.planned_updates + self.planned_deletes

    @property
    def written(self) -> int:
        return self.inserted + self.updated + self.deleted


COUNTER_NAMES = tuple(field.name for field in Counters._meta.local_fields)


class Run(BaseModel, Counters):
    """One execution of a rule, pinned to one version of it."""

    class Trigger(models.TextChoices):
        MANUAL = "manual", "Started by hand"
        SCHEDULE = "schedule", "Schedule"
        REPLAY = "replay", "Replay of rejections"
        COMMAND = "command", "Command line"
        DEPENDENCY = "dependency", "After another rule"
        RECORDS = "records", "Sync of single records"
        DECISION = "decision", "A conflict was decided"
        FOLLOW_UP = "follow_up", "References that waited"
        UNDO = "undo", "Undo"
        VERIFY = "verify", "Verification"
        REPAIR = "repair", "Repair after a verification"

    class Kind(models.TextChoices):
        SYNC = "sync", "Sync"
        UNDO = "undo", "Undo"

    class Mode(models.TextChoices):
        APPLY = "apply", "Apply"
        DRY_RUN = "dry_run", "Dry run"
        VERIFY = "verify", "Verify"  # everything is compared, nothing written

    class Lane(models.TextChoices):
        UNDECIDED = "", "Not chosen yet"
        RELAY = "relay", "Relay"
        STREAM = "stream", "Stream"
        RECONCILE = "reconcile", "Reconcile"

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="runs")
    version = models.ForeignKey(RuleVersion, on_delete=models.RESTRICT, related_name="runs")
    kind = models.CharField(max_length=4, choices=Kind.choices, default=Kind.SYNC)
    trigger = models.CharField(max_length=10, choices=Trigger.choices, default=Trigger.MANUAL)
    mode = models.CharField(max_length=8, choices=Mode.choices, default=Mode.APPLY)
    status = models.CharField(max_length=10, choices=RunStatus.choices, default=RunStatus.QUEUED)
    lane = models.CharField(max_length=10, choices=Lane.choices, default="", blank=True)
    lane_reason = models.CharField(max_length=255, blank=True)
    cut_reason = models.CharField(max_length=255, blank=True)  # into how many partitions, and why
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    sweep = models.BooleanField(default=False)  # a cursor rule's run that compares all keys
    cursor_from = models.CharField(max_length=100, blank=True)
    cursor_to = models.CharField(max_length=100, blank=True)
    right_cursor_from = models.CharField(max_length=100, blank=True)
    right_cursor_to = models.CharField(max_length=100, blank=True)
    rejection_ids = models.JSONField(default=list)  # of a replay
    selection = models.JSONField(default=list)  # [left key, right key] of the records; empty: all
    undoes = models.ForeignKey("self", null=True, on_delete=models.SET_NULL, related_name="undos")
    undo_scope = models.JSONField(default=dict)  # which changes an undo takes back
    reason = models.CharField(max_length=500, blank=True)  # why somebody asked for it
    asks_approval = models.BooleanField(default=False)  # whatever the rule says
    waiting_since = models.DateTimeField(null=True)
    waits_for = models.CharField(max_length=255, blank=True)  # why a person has to approve
    expires_at = models.DateTimeField(null=True)  # of a plan that waits
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    decided_at = models.DateTimeField(null=True)  # when it was approved or rejected
    decision_note = models.CharField(max_length=500, blank=True)
    read_estimate = models.BigIntegerField(null=True)
    deletes_held_back = models.CharField(max_length=255, blank=True)
    started_at = models.DateTimeField(null=True)
    planned_at = models.DateTimeField(null=True)
    applied_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    cause_code = models.CharField(max_length=60, blank=True)
    cause = models.TextField(blank=True)
    remedy = models.TextField(blank=True)
    accuracy = models.JSONField(null=True)  # what verification counted
    former_values_kept = models.BooleanField(default=False)  # its old values can be searched
    former_values_after = models.DateTimeField(null=True)  # until then: a lease, or a pause
    former_values_failures = models.PositiveSmallIntegerField(default=0)
    former_values_error = models.CharField(max_length=60, blank=True)  # code of the last failure

    class Meta:
        ordering = ["-created_at"]
        permissions = [
            ("cancel_run", "Can cancel a run"),
            ("approve_run", "Can approve or reject the plan of a run"),
            ("undo_run", "Can undo runs, changes and records"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["rule"], condition=Q(status__in=ACTIVE_STATUSES), name="one_active_run"
            )
        ]
        indexes = [
            models.Index(fields=["-created_at"], name="run_by_time"),
            models.Index(fields=["rule", "-created_at"], name="run_by_rule"),
            models.Index(fields=["status", "-created_at"], name="run_by_status"),
            models.Index(fields=["-finished_at"], name="run_by_end"),
            models.Index(
                fields=["rule", "-created_at"],
                condition=Q(mode="verify"),
                name="run_by_verification",
            ),
            models.Index(
                fields=["rule", "-created_at"],
                condition=Q(mode="apply", status__in=("succeeded", "partial")),
                name="run_by_success",
            ),
            models.Index(
                fields=["expires_at"], condition=Q(status="waiting"), name="run_by_expiry"
            ),
            models.Index(
                fields=["finished_at"],
                condition=Q(former_values_kept=False),
                name="run_by_former_values",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.rule.name}, {self.created_at:%Y-%m-%d %H:%M:%S}"

    @property
    def is_active(self) -> bool:
        return self.status in ACTIVE_STATUSES

    @property
    def is_waiting(self) -> bool:
        """Whether its plan waits for a person (and nobody has cancelled it)."""
        return self.status == RunStatus.WAITING and self.cancel_requested_at is None

    @property
    def is_dry(self) -> bool:
        """Whether nothing is written."""
        return self.mode != self.Mode.APPLY

    @property
    def sees_everything(self) -> bool:
        """Whether it looks at all records, so that what it does not meet is not there."""
        partly = self.cursor_from or self.rejection_ids or self.selection
        return self.kind == self.Kind.SYNC and not partly


class Partition(BaseModel, Counters):
    """A unit of work, of retry and of checkpoint. Work happens only under its lease."""

    class Kind(models.TextChoices):
        PREPARE = "prepare", "Prepare"
        RECORDS = "records", "Records"
        VERIFY = "verify", "Verify"

    class State(models.TextChoices):
        TO_PLAN = "to_plan", "To plan"  # prepare and verify partitions: to do
        PLANNED = "planned", "Planned"
        TO_APPLY = "to_apply", "To apply"
        DONE = "done", "Done"
        FAILED = "failed", "Failed"
        CANCELLED = "cancelled", "Cancelled"

    class Cut(models.TextChoices):
        NONE = "", "All records"
        RANGE = "range", "Key range"
        SHARE = "share", "Share by hash of the key"

    WORKABLE = (State.TO_PLAN, State.TO_APPLY)

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="partitions")
    number = models.PositiveIntegerField()
    kind = models.CharField(max_length=8, choices=Kind.choices)
    round = models.PositiveSmallIntegerField(
        default=0
    )  # 1…: what had moved or waits, planned again
    state = models.CharField(max_length=9, choices=State.choices, default=State.TO_PLAN)
    cut = models.CharField(max_length=5, choices=Cut.choices, default=Cut.NONE, blank=True)
    lower = models.TextField(blank=True)  # right key text; of a key range, empty: open-ended
    upper = models.TextField(blank=True)
    share = models.PositiveIntegerField(default=0)  # 0 to shares - 1
    shares = models.PositiveIntegerField(default=1)
    apply_begun_at = models.DateTimeField(null=True)  # of the first attempt
    applied_sequence = models.PositiveIntegerField(default=0)  # checkpoint within the plan
    estimate = models.BigIntegerField(null=True)

    owner = models.CharField(max_length=120, blank=True)
    token = models.PositiveBigIntegerField(default=0)  # fencing: grows with each owner
    lease_until = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    not_before = models.DateTimeField(null=True)
    dispatched_at = models.DateTimeField(null=True)
    place_wanted_at = models.DateTimeField(null=True)  # since when a limit has kept it waiting
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    error_code = models.CharField(max_length=60, blank=True)
    error = models.TextField(blank=True)

    class Meta:
        ordering = ["run", "number"]
        constraints = [models.UniqueConstraint(fields=["run", "number"], name="partition_number")]
        indexes = [
            models.Index(
                fields=["lease_until"],
                condition=Q(state__in=("to_plan", "to_apply")),
                name="partition_workable",
            ),
            models.Index(
                fields=["place_wanted_at"],
                condition=Q(place_wanted_at__isnull=False, state__in=("to_plan", "to_apply")),
                name="partition_waiting",
            ),
        ]

    def __str__(self) -> str:
        return f"partition {self.number} of {self.run_id}"


class SourcePace(models.Model):
    """Until when a source's rates are used up, by the clock of this database.

    Unix times in seconds; in the past: not used up. All workers move them on (`services.pacing`).
    """

    source = models.OneToOneField(
        Source, on_delete=models.CASCADE, primary_key=True, related_name="pace"
    )
    rows_until = models.FloatField(default=0.0)
    bytes_until = models.FloatField(default=0.0)

    def __str__(self) -> str:
        return f"pace of {self.source_id}"


class RestoreRequest(BaseModel):
    """Somebody who may not write asks for a record, or a run, to be put back."""

    class State(models.TextChoices):
        OPEN = "open", "Open"
        APPROVED = "approved", "Approved"
        DECLINED = "declined", "Declined"
        WITHDRAWN = "withdrawn", "Withdrawn"

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="restore_requests")
    run = models.ForeignKey(Run, null=True, on_delete=models.CASCADE, related_name="+")
    scope = models.JSONField(default=dict)  # as `Run.undo_scope`
    reason = models.CharField(max_length=500)
    state = models.CharField(max_length=9, choices=State.choices, default=State.OPEN)
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    decided_at = models.DateTimeField(null=True)
    note = models.CharField(max_length=500, blank=True)
    undo = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="+")

    class Meta:
        ordering = ["-created_at"]
        permissions = [("decide_restorerequest", "Can approve or decline restore requests")]
        indexes = [models.Index(fields=["state", "-created_at"], name="restore_by_state")]

    def __str__(self) -> str:
        return f"{self.rule.name}: {self.reason[:60]}"


class RunLog(models.Model):
    """One line of a run's log. Appended while the run goes on, never changed."""

    class Level(models.TextChoices):
        INFO = "info", "Info"
        WARNING = "warning", "Warning"
        ERROR = "error", "Error"

    id = models.BigAutoField(primary_key=True)
    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="log")
    partition_number = models.PositiveIntegerField(null=True)
    level = models.CharField(max_length=8, choices=Level.choices, default=Level.INFO)
    message = models.TextField()
    at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["id"]

    def __str__(self) -> str:
        return self.message


class Checkpoint(models.Model):
    """How far a rule has come. The cursor never goes backwards within one rule version line."""

    rule = models.OneToOneField(
        Rule, on_delete=models.CASCADE, primary_key=True, related_name="checkpoint"
    )
    cursor_field = models.CharField(max_length=255, blank=True)
    cursor = models.CharField(max_length=100, blank=True)  # canonical text
    right_cursor = models.CharField(max_length=100, blank=True)  # of two-way rules
    swept_at = models.DateTimeField(null=True)
    succeeded_at = models.DateTimeField(null=True)
    locations = models.JSONField(default=dict)  # side -> where its data was then
    # Side -> fields whose old values are searchable; `subject` -> side and field of the person.
    searched = models.JSONField(default=dict)
    version = models.ForeignKey(RuleVersion, null=True, on_delete=models.SET_NULL)
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return f"{self.rule_id}: {self.cursor}"


class DueRun(BaseModel):
    """A time at which a rule was due. Unique, so that any number of schedulers may tick."""

    rule = models.ForeignKey(Rule, on_delete=models.CASCADE, related_name="due_runs")
    due_at = models.DateTimeField()
    run = models.ForeignKey(Run, null=True, on_delete=models.SET_NULL, related_name="due_runs")
    skipped = models.CharField(max_length=100, blank=True)

    class Meta:
        ordering = ["-due_at"]
        constraints = [
            models.UniqueConstraint(fields=["rule", "due_at"], name="one_run_per_due_time")
        ]

    def __str__(self) -> str:
        return f"{self.rule_id} at {self.due_at}"
