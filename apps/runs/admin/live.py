"""What the run page shows and refreshes: phases, progress, counters, log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from apps.runs.models import Run
from apps.runs.selectors import counter_sums, log_lines, run_phases, run_progress

LOG_LINES = 300


@dataclass(frozen=True, slots=True)
class Counter:
    """One number of a run and the list of what it counts."""

    label: str
    value: int
    url: str = ""
    tone: str = ""
    permission: str = "ledger.view_change"  # to see that list


def live_context(run: Run, after: int = 0) -> dict[str, Any]:
    """For the page (`after` 0) and for each refresh (log lines after that id)."""
    if run.is_active:
        for name, value in counter_sums(run).items():
            setattr(run, name, value)
    lines = _last_lines(run) if not after else log_lines(run, after, LOG_LINES)
    return {
        "phases": run_phases(run),
        "progress": run_progress(run),
        "counters": counters(run),
        "log": lines,
        "log_after": lines[-1].pk if lines else after,
    }


def _last_lines(run: Run) -> list[Any]:
    return list(run.log.order_by("-id")[:LOG_LINES])[::-1]


def counters(run: Run) -> list[Counter]:
    """The six counters; a dry run's say what would be written."""
    changes = reverse("admin:runs_run_changes", args=(run.pk,))
    rejections = reverse("admin:ledger_rejection_changelist")
    names = (
        ("planned_inserts", "planned_updates", "planned_deletes")
        if run.is_dry
        else ("inserted", "updated", "deleted")
    )
    words = (
        ("To insert", "To update", "To delete")
        if run.is_dry
        else ("Inserted", "Updated", "Deleted")
    )
    operations = ("insert", "update", "delete")
    written = [
        Counter(word, getattr(run, name), f"{changes}?operation={operation}")
        for word, name, operation in zip(words, names, operations, strict=True)
    ]
    return [
        *written,
        Counter("Unchanged", run.unchanged),
        Counter(
            "Rejected",
            run.rejected,
            f"{rejections}?run_id__exact={run.pk}",
            "bad" if run.rejected else "",
            "ledger.view_rejection",
        ),
        Counter(
            "Moved meanwhile",
            run.stale,
            f"{changes}?outcome=stale",
            "warn" if run.stale else "",
        ),
    ]
