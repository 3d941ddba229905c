"""Rotations of the data keys with their progress, and what was found in the stored bytes."""

from __future__ import annotations

from typing import Any

from django.db import models

from apps.core.models import BaseModel, DataKey


class Rotation(BaseModel):
    """Everything stored is encrypted anew with a new key, column by column, in passes.

    A pass walks each column once. The rotation is done when a pass that began after every process
    knew the new key has found nothing left to do.
    """

    class State(models.TextChoices):
        RUNNING = "running", "Running"
        DONE = "done", "Done"

    key = models.ForeignKey(DataKey, on_delete=models.PROTECT, related_name="+", editable=False)
    state = models.CharField(
        max_length=7, choices=State.choices, default=State.RUNNING, editable=False
    )
    asked_by = models.CharField(max_length=150, editable=False)
    known_at = models.DateTimeField(editable=False)  # from then on every process uses the key
    passes = models.PositiveIntegerField(default=1, editable=False)
    pass_started_at = models.DateTimeField(editable=False)
    finished_at = models.DateTimeField(null=True, editable=False)
    worker = models.UUIDField(null=True, editable=False)
    lease_until = models.DateTimeField(null=True, editable=False)

    class Meta:
        default_permissions = ()
        ordering = ["-created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["state"],
                condition=models.Q(state="running"),
                name="one_rotation_at_a_time",
            )
        ]

    def __str__(self) -> str:
        return f"to key {self.key.name}"

    @property
    def is_running(self) -> bool:
        return self.state == self.State.RUNNING


class RotationColumn(models.Model):
    """How far a rotation is with one column of protected values."""

    rotation = models.ForeignKey(Rotation, on_delete=models.CASCADE, related_name="columns")
    label = models.CharField(max_length=200)  # `app.model.column`
    total = models.PositiveBigIntegerField(default=0)  # values to encrypt anew, once counted
    rewritten = models.PositiveBigIntegerField(default=0)
    unreadable = models.PositiveBigIntegerField(default=0)  # in this pass
    moved = models.PositiveBigIntegerField(default=0)  # in this pass: rewritten, or held by others
    position = models.TextField(blank=True)  # primary key of the last row that was looked at
    walked = models.BooleanField(default=False)  # to the end, in this pass

    class Meta:
        default_permissions = ()
        ordering = ["label"]
        constraints = [
            models.UniqueConstraint(fields=["rotation", "label"], name="one_line_per_column")
        ]

    def __str__(self) -> str:
        return self.label


class Proof(models.Model):
    """What was found when all stored bytes were looked at."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()
    is_sound = models.BooleanField()
    content = models.JSONField(default=dict)  # as `services.proving.Proven.as_json` has it

    class Meta:
        default_permissions = ()
        get_latest_by = "id"

    def __str__(self) -> str:
        return "sound" if self.is_sound else "not sound"

    @property
    def columns(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.content.get("columns", [])
        return found
