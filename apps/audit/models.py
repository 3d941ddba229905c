"""The stream of events, the seals over it, and what was found when it was verified."""

from __future__ import annotations

from typing import Any, NoReturn

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.audit.actions import Act
from apps.audit.origin import Channel
from apps.core.models import BaseModel


class Outcome(models.TextChoices):
    SUCCESS = "success", "Done"
    REFUSED = "refused", "Refused"
    FAILED = "failed", "Failed"


class ActorKind(models.TextChoices):
    PERSON = "person", "Person"
    SERVICE = "service", "Service account"
    SYSTEM = "system", "Lockstep itself"
    STRANGER = "stranger", "Nobody who is signed in"


class AppendOnlyError(TypeError):
    """Code tries to change or delete what is only ever added to."""


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """Rows that are added and read. The database refuses the rest too, where it can."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError(f"rows of {self.model.__name__} are never changed")

    def delete(self) -> NoReturn:
        raise AppendOnlyError(f"rows of {self.model.__name__} are never deleted")


class AppendOnly(models.Model):
    """Base of rows that stay as they were written."""

    objects = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise AppendOnlyError(f"rows of {type(self).__name__} are never changed")
        super().save(*args, **{**kwargs, "force_insert": True})

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise AppendOnlyError(f"rows of {type(self).__name__} are never deleted")


class AuditEvent(AppendOnly):
    """One act: who, what, to which object, from where, with what outcome, why, when.

    The id sorts by time (`clock.id_at`), so that every index which ends with it reads newest
    first. Actor and object are named by id, with the label that they had. `mac` is a keyed hash
    over all of the other columns.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    at = models.DateTimeField()
    action = models.CharField(max_length=60)
    outcome = models.CharField(max_length=10, choices=Outcome.choices)
    actor_kind = models.CharField(max_length=10, choices=ActorKind.choices)
    actor_id = models.CharField(max_length=40, blank=True)
    actor_label = models.CharField(max_length=150, blank=True)
    object_type = models.CharField(max_length=60, blank=True)
    object_id = models.CharField(max_length=60, blank=True)
    object_label = models.CharField(max_length=200, blank=True)
    channel = models.CharField(max_length=10, choices=Channel.choices)
    address = models.CharField(max_length=45, blank=True)
    request_id = models.CharField(max_length=32, blank=True)
    user_agent = models.CharField(max_length=200, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    details = models.JSONField(default=dict)
    key_id = models.CharField(max_length=255)
    mac = models.BinaryField()

    class Meta:
        default_permissions = ("view",)
        permissions = [
            ("export_auditevent", "Can export the audit log"),
            ("verify_auditevent", "Can verify the audit log"),
        ]
        verbose_name = "audit event"
        verbose_name_plural = "audit log"
        ordering = ["-id"]
        indexes = [
            models.Index(fields=["action", "id"], name="audit_by_action"),
            models.Index(fields=["actor_label", "id"], name="audit_by_actor"),
            models.Index(fields=["actor_id", "id"], name="audit_by_actor_id"),
            models.Index(fields=["object_type", "id"], name="audit_by_object_type"),
            models.Index(fields=["object_id", "id"], name="audit_by_object"),
            models.Index(fields=["address", "id"], name="audit_by_address"),
            models.Index(fields=["request_id", "id"], name="audit_by_request"),
            models.Index(
                fields=["outcome", "id"], condition=~Q(outcome="success"), name="audit_by_outcome"
            ),
        ]

    def __str__(self) -> str:
        what = f" {self.object_label}" if self.object_label else ""
        return f"{self.actor_label}: {self.action_label.lower()}{what}"

    @property
    def action_label(self) -> str:
        """The action in words; its dotted name where this version does not know it."""
        return str(Act(self.action).label) if self.action in Act.values else self.action


class AuditPending(models.Model):
    """An event that no seal covers yet. Written with it, removed by the seal's transaction.

    This is how the sealer finds events whose transactions committed late: ids are given before
    the commit, so neither ids nor times say what is new.
    """

    event_id = models.UUIDField(primary_key=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return str(self.event_id)


class AuditSeal(AppendOnly):
    """A batch of events, fixed: their ids, the root over their contents, the seal before.

    `event_ids` are 16 bytes each, in order; `root` is the Merkle root over the events; `mac` is a
    keyed hash over all of this and `previous_mac`.
    """

    number = models.PositiveBigIntegerField(primary_key=True)
    sealed_at = models.DateTimeField()
    count = models.PositiveIntegerField()
    first_event_id = models.UUIDField()
    last_event_id = models.UUIDField()
    event_ids = models.BinaryField()
    root = models.BinaryField()
    previous_mac = models.BinaryField()
    key_id = models.CharField(max_length=255)
    mac = models.BinaryField()

    class Meta:
        default_permissions = ()
        ordering = ["number"]
        indexes = [
            models.Index(fields=["first_event_id", "last_event_id"], name="audit_seal_span"),
        ]

    def __str__(self) -> str:
        return f"seal {self.number}"


class AuditVerification(models.Model):
    """What was found when the whole stream was verified."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    events = models.PositiveBigIntegerField()
    seals = models.PositiveBigIntegerField()
    waiting = models.PositiveBigIntegerField()
    is_sound = models.BooleanField()
    counts = models.JSONField(default=dict)  # kind of finding -> how many
    findings = models.JSONField(default=list)  # the first ones

    class Meta:
        default_permissions = ()
        get_latest_by = "id"

    def __str__(self) -> str:
        return "sound" if self.is_sound else "altered"


class SavedFilter(BaseModel):
    """A filter of the audit browser that a person has given a name."""

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="audit_filters"
    )
    name = models.CharField(max_length=60)
    query = models.CharField(max_length=1000)

    class Meta:
        default_permissions = ()
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(fields=["owner", "name"], name="one_audit_filter_per_name")
        ]

    def __str__(self) -> str:
        return self.name
