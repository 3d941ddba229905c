"""What the API remembers: unsafe calls by their idempotency keys; clients of OAuth."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.db import models
from django.db.models import Q
from oauth2_provider.models import AbstractApplication

from apps.core.fields import SealedField
from apps.core.models import BaseModel


class IdempotentCall(BaseModel):
    """An unsafe call that is being done, or was done: its answer is given again for the same key.

    It is stored in the transaction of the act, so that there is an answer if and only if the act
    was done. `lapses_at`: until then a call without an answer counts as being done.
    """

    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    credential = models.CharField(max_length=60)
    key = models.CharField(max_length=255)
    request_digest = models.CharField(max_length=64)  # of method, address and body
    lapses_at = models.DateTimeField()
    expires_at = models.DateTimeField(db_index=True)
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    sealed_body = SealedField(null=True, place="idempotent call|{id}")

    class Meta:
        default_permissions = ()
        constraints = [
            models.UniqueConstraint(
                fields=["owner", "credential", "key"], name="one_call_per_idempotency_key"
            ),
            models.CheckConstraint(
                condition=Q(status=None, sealed_body=None) | Q(status__isnull=False),
                name="idempotent_call_is_answered_whole",
            ),
        ]

    def __str__(self) -> str:
        return f"call {self.pk}"

    @property
    def place(self) -> str:
        """What the stored body is bound to."""
        return f"idempotent call|{self.pk}"


class OAuthClient(AbstractApplication):
    """A program of somebody else. Its secret is kept as a hash.

    user: the service account that it acts as, where it acts by itself (client credentials); with
    the authorization code, it acts as the person who consents. Narrowing scopes or networks counts
    at once, for tokens that are out as well.
    """

    allowed_scopes = models.JSONField(default=list)
    networks = models.JSONField(default=list)  # CIDR; empty: from everywhere
    is_active = models.BooleanField(default=True)

    class Meta:
        verbose_name = "OAuth client"
        ordering = ["name"]
        constraints = [
            models.CheckConstraint(
                condition=Q(authorization_grant_type="authorization-code", user=None)
                | Q(authorization_grant_type="client-credentials", user__isnull=False),
                name="oauth_client_has_a_safe_grant",
            ),
            models.CheckConstraint(
                condition=Q(skip_authorization=False, hash_client_secret=True, algorithm=""),
                name="oauth_client_is_asked_for",
            ),
        ]

    def redirect_uri_allowed(self, uri: str) -> bool:
        """Exactly one of those that are registered (RFC 9700, section 4.1.3)."""
        return uri in self.redirect_uris.split()

    def is_usable(self, request: Any) -> bool:
        return bool(self.is_active)


class UsedCode(models.Model):
    """An authorization code that was used, and what came of it: a second use voids that.

    family: of the refresh tokens that it brought.
    """

    digest = models.CharField(max_length=64, primary_key=True)
    used_at = models.DateTimeField(db_index=True)
    family = models.UUIDField(null=True)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"used {self.used_at:%Y-%m-%d %H:%M:%S}"
