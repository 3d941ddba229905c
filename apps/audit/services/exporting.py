"""Starting an export: put on record before the first line leaves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.core.exceptions import PermissionDenied

from apps.audit.actions import Act
from apps.audit.models import AuditEvent
from apps.audit.selectors import EventFilter
from apps.audit.services.recording import record

if TYPE_CHECKING:
    from django.contrib.auth.models import AbstractUser


def begin_export(wanted: EventFilter, format_name: str, *, actor: AbstractUser) -> AuditEvent:
    """The event of an export; what is exported is what is older. Raises PermissionDenied."""
    allowed = actor.has_perm("audit.export_auditevent") and actor.has_perm("audit.view_auditevent")
    if not allowed:
        raise PermissionDenied("you may not export the audit log")
    details = {"format": format_name, "filter": dict(wanted.words())}
    return record(Act.AUDIT_EXPORTED, actor=actor, details=details)
