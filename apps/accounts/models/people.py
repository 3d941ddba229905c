"""People who sign in."""

from __future__ import annotations

from django.contrib.auth.models import AbstractUser
from django.db import models


class User(AbstractUser):
    """A person. With `must_change_password`, nothing opens but the page that changes it."""

    must_change_password = models.BooleanField(
        default=False, help_text="Set for a one-time password: the person chooses an own one first."
    )
    # A first second factor is taken on trust; nobody trusts a password alone for ever.
    enrolment_ends_at = models.DateTimeField(null=True, blank=True, editable=False)
    time_zone = models.CharField(
        max_length=60, blank=True, help_text="Times are shown in this zone; empty: the platform's."
    )

    class Meta(AbstractUser.Meta):
        permissions = [("assign_rights", "Can give people roles, and roles permissions")]
