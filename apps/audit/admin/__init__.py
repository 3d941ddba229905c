"""The audit browser: one filterable stream, and each of its events."""

from apps.audit.admin.browser import AuditEventAdmin

__all__ = ["AuditEventAdmin"]
