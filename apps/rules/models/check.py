"""Checks: conditions on the record as it would be written."""

from __future__ import annotations

from django.db import models
from simple_history.models import HistoricalRecords

from apps.core.models import BaseModel
from apps.rules.models.rule import Rule


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
