"""Base models, the platform's own switch and the outbox."""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models

from apps.core.clock import new_id


class BaseModel(models.Model):
    """A row with a time-ordered identity that exists before the row does."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


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
        permissions = [("pause_platform", "Can pause and resume everything")]

    def __str__(self) -> str:
        return "paused" if self.paused else "running"


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
