"""Syncs that are still being set up."""

from __future__ import annotations

from django.conf import settings
from django.db import models

from apps.core.models import BaseModel
from apps.rules.models.rule import Rule


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
