"""What a verification of whole datasets found."""

from __future__ import annotations

from collections import Counter
from typing import Any

from apps.ledger.selectors import ChangeFilter, run_changes
from apps.runs.models import Run

PAGE = 5_000


def accuracy_of(run: Run) -> dict[str, Any]:
    """What a verification found, in records; `fields`: in how many records each field differs.

    sampled: records compared; equal: in step; different: on both sides; missing, extra: on one
    side only (to be inserted and deleted); conflicts, rejected: nobody can tell yet.
    """
    fields: Counter[str] = Counter()
    wanted, last = ChangeFilter(operations=("update",)), 0
    while page := run_changes(run.pk, wanted, after_id=last, limit=PAGE):
        last = page[-1].pk
        for change in page:
            fields.update((change.images()[1] or {}).keys())
    return {
        "sampled": run.unchanged + run.planned + run.conflicts + run.rejected,
        "equal": run.unchanged,
        "different": run.planned_updates,
        "missing": run.planned_inserts,
        "extra": run.planned_deletes,
        "conflicts": run.conflicts,
        "rejected": run.rejected,
        "fields": dict(fields.most_common()),
    }
