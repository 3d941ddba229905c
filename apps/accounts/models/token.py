"""Tokens by which programs act as a person, or as a service account."""

from __future__ import annotations

from datetime import datetime

from django.conf import settings
from django.db import models

from apps.core.clock import now
from apps.core.models import BaseModel


class Token(BaseModel):
    """One token. Its text is shown once and not kept: only its digest is."""

    class State(models.TextChoices):
        ACTIVE = "active", "Active"
        EXPIRED = "expired", "Expired"
        REVOKED = "revoked", "Revoked"

    owner = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="tokens"
    )
    name = models.CharField(max_length=100)
    digest = models.CharField(max_length=64, unique=True, editable=False)  # SHA-256 of the text
    hint = models.CharField(max_length=8, editable=False)  # how the text begins
    scopes = models.JSONField(default=list)
    networks = models.JSONField(default=list)  # CIDR; empty: from everywhere
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField(null=True)  # to the minute
    last_used_address = models.CharField(max_length=45, blank=True)
    last_refused_at = models.DateTimeField(null=True)  # to the minute
    revoked_at = models.DateTimeField(null=True)
    replaces = models.OneToOneField(
        "self", null=True, on_delete=models.SET_NULL, related_name="replaced_by"
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, on_delete=models.SET_NULL, related_name="+"
    )

    class Meta:
        default_permissions = ()
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return self.name

    @property
    def void_since(self) -> datetime | None:
        """Since when it opens nothing; None while it does."""
        ended = [self.revoked_at, self.expires_at if self.expires_at <= now() else None]
        until = self.owner.tokens_void_until
        if until is not None and self.created_at <= until:
            ended.append(until)
        return min((moment for moment in ended if moment is not None), default=None)

    @property
    def state(self) -> Token.State:
        if self.void_since is None:
            return self.State.ACTIVE
        is_expired = self.void_since == self.expires_at
        return self.State.EXPIRED if is_expired else self.State.REVOKED
