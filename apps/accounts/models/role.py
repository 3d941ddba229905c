"""Which group each role that Lockstep brings has become."""

from __future__ import annotations

from django.contrib.auth.models import Group
from django.db import models


class StandardRole(models.Model):
    """One of `roles.ROLES`: its group, and the permissions that were handed to it.

    Each permission is handed out once, so that what an administrator takes away stays away. A
    group that was deleted leaves its row behind and is not made again.
    """

    key = models.CharField(max_length=20, primary_key=True)
    group = models.OneToOneField(
        Group, null=True, on_delete=models.SET_NULL, related_name="standard_role"
    )
    handed_out = models.JSONField(default=list)  # names such as rules.run_rule

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.key
