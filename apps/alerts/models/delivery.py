"""The ways by which people are told, and each message with what became of it."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from simple_history.models import HistoricalRecords

from apps.alerts.models.incident import Incident
from apps.core.fields import SealedField
from apps.core.models import BaseModel


class Channel(BaseModel):
    """One way out. Mail goes to the people of a step, a webhook to its address."""

    class Kind(models.TextChoices):
        MAIL = "mail", "Mail"
        WEBHOOK = "webhook", "Signed webhook"

    name = models.CharField(max_length=100, unique=True)
    kind = models.CharField(max_length=10, choices=Kind.choices, default=Kind.MAIL)
    url = models.CharField(
        "address",
        max_length=500,
        blank=True,
        help_text="Of a webhook: https://…. It gets a POST with JSON, signed by the secret.",
    )
    sealed_secret = SealedField(null=True, editable=False, place="channel|{id}|secret")
    enabled = models.BooleanField(default=True)
    history = HistoricalRecords(excluded_fields=["sealed_secret"])

    class Meta:
        ordering = ["name"]
        permissions = [("test_channel", "Can send a test message")]
        constraints = [
            models.CheckConstraint(
                condition=~Q(kind="webhook") | ~Q(url=""), name="webhook_has_an_address"
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def place(self) -> str:
        """What the secret is bound to."""
        return f"channel|{self.pk}|secret"


class Delivery(BaseModel):
    """One message to one recipient.

    occasion: what it tells, such as `step 2`; the same is told to the same recipient once.
    """

    class State(models.TextChoices):
        PENDING = "pending", "On its way"
        SENT = "sent", "Sent"
        FAILED = "failed", "Given up"
        DROPPED = "dropped", "Not needed any more"

    incident = models.ForeignKey(
        Incident, null=True, on_delete=models.CASCADE, related_name="deliveries"
    )  # NULL: a test
    channel = models.ForeignKey(Channel, on_delete=models.CASCADE, related_name="deliveries")
    recipient = models.CharField(max_length=254, blank=True)  # of a mail
    occasion = models.CharField(max_length=60)
    state = models.CharField(max_length=7, choices=State.choices, default=State.PENDING)
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(null=True)
    sent_at = models.DateTimeField(null=True)
    error = models.CharField(max_length=300, blank=True)

    class Meta:
        ordering = ["-created_at"]
        default_permissions = ("view",)
        verbose_name_plural = "deliveries"
        constraints = [
            models.UniqueConstraint(
                fields=["incident", "channel", "recipient", "occasion"],
                name="told_once_on_each_occasion",
            )
        ]
        indexes = [
            models.Index(
                fields=["next_attempt_at"],
                condition=Q(state="pending"),
                name="delivery_by_next_attempt",
            ),
            models.Index(fields=["channel", "-updated_at"], name="delivery_by_channel"),
        ]

    def __str__(self) -> str:
        return f"{self.what} by {self.channel}"

    @property
    def what(self) -> str:
        """What it tells, without the moment that keeps occasions apart."""
        return self.occasion.rpartition(" ")[0] or self.occasion
