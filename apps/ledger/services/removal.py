"""Removing what the ledger holds."""

from __future__ import annotations

from uuid import UUID

from apps.ledger.models import Change, Conflict, Link, Rejection

DELETE_CHUNK = 20_000


def forget_rule(rule_id: UUID) -> None:
    """Remove everything the ledger holds about a rule that is being removed itself."""
    for model in (Change, Link, Rejection, Conflict):
        rows = model.objects.filter(rule_id=rule_id)
        while ids := list(rows.values_list("pk", flat=True)[:DELETE_CHUNK]):
            model.objects.filter(pk__in=ids).delete()
