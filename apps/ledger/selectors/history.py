"""What was planned and written, for people."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db.models import Count

from apps.ledger.models import Change
from apps.ledger.selectors.keys import key_candidates, key_hash


def change_page(
    run_id: UUID,
    *,
    operation: str = "",
    outcome: str = "",
    search_key: str = "",
    after_id: int | None = None,
    limit: int = 50,
) -> list[Change]:
    """One page of a run's changes, oldest first; `after_id` is the last id of the page before.

    search_key: a canonical key text, or the plain value of a key of one field.
    """
    found = Change.objects.filter(run_id=run_id)
    if operation:
        found = found.filter(operation=operation)
    if outcome:
        found = found.filter(outcome=outcome)
    if search_key:
        texts = key_candidates(search_key)
        found = found.filter(right_hash__in=[key_hash(text) for text in texts])
    if after_id is not None:
        found = found.filter(id__gt=after_id)
    return list(found.order_by("id")[:limit])


def change_counts(run_id: UUID) -> dict[tuple[str, str], int]:
    """Number of a run's changes by operation and outcome."""
    rows = Change.objects.filter(run_id=run_id).values_list("operation", "outcome")
    return {(op, outcome): n for op, outcome, n in rows.annotate(n=Count("id")).order_by()}


def stale_left_keys(run_ids: Sequence[UUID], limit: int = 50_000) -> list[str]:
    """Left keys of these runs' changes that had moved when they were to be applied."""
    rows = Change.objects.filter(run_id__in=run_ids, outcome=Change.Outcome.STALE)
    return list(rows.exclude(left_key="").values_list("left_key", flat=True)[:limit])
