"""Base models, the platform's own switch, the outbox and the data keys."""

from __future__ import annotations

import secrets
import uuid

from django.conf import settings
from django.db import models
from django.db.models import Q

from apps.core.clock import new_id, now
from apps.core.fields import SealedField


class BaseModel(models.Model):
    """A row with a time-ordered identity that exists before the row does."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class Tag(BaseModel):
    """A word on sources, datasets and rules: whoever is granted it reaches all that carry it."""

    name = models.CharField(max_length=60, unique=True)

    class Meta:
        ordering = ["name"]
        default_permissions = ()

    def __str__(self) -> str:
        return self.name


class Criticality(models.TextChoices):
    LOW = "low", "Low"
    NORMAL = "normal", "Normal"
    HIGH = "high", "High"
    CRITICAL = "critical", "Critical"


class PlatformState(models.Model):
    """The one row that says whether anything may start at all."""

    SINGLETON: int = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=SINGLETON, editable=False)
    paused = models.BooleanField(default=False)
    pause_reason = models.CharField(max_length=200, blank=True)
    changed_at = models.DateTimeField(auto_now=True)
    changed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        permissions = [
            ("pause_platform", "Can pause and resume everything"),
            ("reach_all_objects", "Reaches all sources, datasets and rules without a grant"),
        ]

    def __str__(self) -> str:
        return "paused" if self.paused else "running"


class RateBucket(models.Model):
    """How often somebody has asked for something lately (`apps.core.rate_limits`)."""

    digest = models.CharField(max_length=64, primary_key=True, editable=False)  # keyed
    full_at = models.FloatField(db_index=True, editable=False)  # seconds since the epoch

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.digest[:8]


class OutboxEvent(models.Model):
    """News of a lower room for upper ones, written in the transaction that it tells of."""

    topic = models.CharField(max_length=60)
    subject = models.UUIDField(default=uuid.uuid4)
    payload = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)
    delivered_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [models.Index(fields=["delivered_at", "id"])]

    def __str__(self) -> str:
        return f"{self.topic} {self.subject}"


def new_key_id() -> int:
    return secrets.randbelow(2**63 - 1) + 1


def context_of_key(key_id: int, purpose: str) -> str:
    """What the wrapping of a data key is bound to."""
    return f"lockstep data key {key_id:016x} {purpose}"


class DataKey(models.Model):
    """What stored values are encrypted with: 32 bytes, wrapped by a key that no database holds.

    Ids are random, so that a key made after a restore never takes the id of one made before it.
    """

    class Purpose(models.TextChoices):
        VALUES = "values", "Stored values"
        HASHES = "hashes", "Keyed hashes"
        INDEX = "index", "Blind index"  # never renewed: what it has indexed is not stored

    class State(models.TextChoices):
        ACTIVE = "active", "In use"
        RETIRED = "retired", "Decrypts only"
        DESTROYED = "destroyed", "Destroyed"

    id = models.BigIntegerField(primary_key=True, default=new_key_id, editable=False)
    purpose = models.CharField(max_length=10, choices=Purpose.choices, editable=False)
    state = models.CharField(
        max_length=10, choices=State.choices, default=State.ACTIVE, editable=False
    )
    wrapped = models.BinaryField(null=True, editable=False)  # NULL: destroyed
    wrapped_by = models.CharField(max_length=255, editable=False)  # `provider:key`
    created_at = models.DateTimeField(default=now, editable=False)
    retired_at = models.DateTimeField(null=True, editable=False)
    destroyed_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        default_permissions = ("view",)
        permissions = [
            ("rotate_datakey", "Can rotate encryption keys"),
            ("prove_datakey", "Can prove what is encrypted"),
        ]
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["purpose"], condition=Q(state="active"), name="one_active_data_key"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """How people and records call it: 16 hexadecimal digits."""
        return f"{self.id:016x}"

    @property
    def context(self) -> str:
        """What its wrapping is bound to."""
        return context_of_key(self.id, self.purpose)

    @property
    def is_active(self) -> bool:
        return self.state == self.State.ACTIVE


class SubjectKey(models.Model):
    """What is kept of one person is encrypted with this key: 32 bytes, sealed.

    The person is known by a blind index (`keys.subjects`) alone. Erased, the row stays without
    its key, so that what it had encrypted is told from what cannot be read by accident.
    """

    id = models.BigIntegerField(primary_key=True, default=new_key_id, editable=False)
    dataset_id = models.UUIDField(editable=False)
    index = models.BinaryField(max_length=32, editable=False)
    sealed_key = SealedField(null=True, place="subject key|{id}")  # NULL: erased
    created_at = models.DateTimeField(default=now, editable=False)
    erased_at = models.DateTimeField(null=True, editable=False)

    class Meta:
        default_permissions = ()
        permissions = [("erase_subjectkey", "Can erase a person's values for good")]
        constraints = [
            models.UniqueConstraint(
                fields=["index"], condition=Q(erased_at=None), name="one_key_per_subject"
            )
        ]
        indexes = [models.Index(fields=["index"], name="subject_key_by_index")]

    def __str__(self) -> str:
        return f"subject key {self.id:016x}"
