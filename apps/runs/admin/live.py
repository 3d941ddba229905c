"""What the run page shows and refreshes: phases, progress, counters, log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.urls import reverse

from apps.ledger.admin.sides import side_names
from apps.ledger.models import Change
from apps.rules.models import Rule
from apps.runs.models import Run, RunStatus
from apps.runs.selectors import counter_sums, log_lines, run_phases, run_progress

LOG_LINES = 300
MOST_PARTITIONS = 200
NOT_WRITTEN = (RunStatus.WAITING, RunStatus.REJECTED, RunStatus.EXPIRED, RunStatus.REFUSED)


@dataclass(frozen=True, slots=True)
class Share:
    """The part of a counter that is written to one side of a two-way rule."""

    side: str
    value: int


@dataclass(frozen=True, slots=True)
class Counter:
    """One number of a run and the list of what it counts."""

    label: str
    value: int
    url: str = ""
    tone: str = ""
    permission: str = "ledger.view_change"  # to see that list
    shares: tuple[Share, ...] = ()


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
        "partitions": run.partitions.all()[:MOST_PARTITIONS],
        "log": lines,
        "log_after": lines[-1].pk if lines else after,
    }


def _last_lines(run: Run) -> list[Any]:
    return list(run.log.order_by("-id")[:LOG_LINES])[::-1]


def counters(run: Run) -> list[Counter]:
    """What a run did; of one that writes nothing, or not yet, what would be written."""
    is_plan = run.is_dry or run.status in NOT_WRITTEN
    return [
        *(_planned(run) if is_plan else _written(run)),
        Counter("Unchanged", run.unchanged),
        _rejected(run),
        *_conflicts(run),
        _of_outcome(run, "Moved meanwhile", run.stale, Change.Outcome.STALE, "warn"),
        *_rare(run),
    ]


def _planned(run: Run) -> list[Counter]:
    shares: tuple[Share, ...] = ()
    found = [
        Counter("To insert", run.planned_inserts, _changes_url(run, operation="insert")),
        Counter("To update", run.planned_updates, _changes_url(run, operation="update")),
        Counter("To delete", run.planned_deletes, _changes_url(run, operation="delete")),
    ]
    if _is_two_way(run) and run.planned:
        names = side_names(run.rule)
        shares = (
            Share(names.right, run.planned - run.planned_left),
            Share(names.left, run.planned_left),
        )
        url = _changes_url(run)
        found.insert(0, Counter("To write", run.planned, url, shares=shares))
    return found


def _written(run: Run) -> list[Counter]:
    return [
        Counter(
            label,
            getattr(run, name),
            _changes_url(run, operation=operation),
            shares=_shares(run, getattr(run, name), getattr(run, f"{name}_left")),
        )
        for label, name, operation in (
            ("Inserted", "inserted", "insert"),
            ("Updated", "updated", "update"),
            ("Deleted", "deleted", "delete"),
        )
    ]


def _shares(run: Run, both: int, left: int) -> tuple[Share, ...]:
    if not (_is_two_way(run) and both):
        return ()
    names = side_names(run.rule)
    return (Share(names.right, both - left), Share(names.left, left))


def _is_two_way(run: Run) -> bool:
    return run.rule.direction == Rule.Direction.TWO_WAY


def _changes_url(run: Run, **filters: str) -> str:
    address = reverse("admin:runs_run_changes", args=(run.pk,))
    return f"{address}?{urlencode(filters)}" if filters else address


def _rejected(run: Run) -> Counter:
    return Counter(
        "Rejected",
        run.rejected,
        f"{reverse('admin:ledger_rejection_changelist')}?run_id__exact={run.pk}",
        "bad" if run.rejected else "",
        "ledger.view_rejection",
    )


def _conflicts(run: Run) -> list[Counter]:
    if not (run.conflicts or _is_two_way(run)):
        return []
    return [
        Counter(
            "Conflicts",
            run.conflicts,
            f"{reverse('admin:ledger_conflict_changelist')}?run={run.pk}",
            "warn" if run.conflicts else "",
            "ledger.view_conflict",
        )
    ]


def _rare(run: Run) -> list[Counter]:
    """What is shown only where it happened."""
    found = [
        _of_outcome(run, "Not approved", run.skipped, Change.Outcome.SKIPPED, ""),
        _of_outcome(run, "In doubt", run.in_doubt, Change.Outcome.IN_DOUBT, "bad"),
    ]
    return [counter for counter in found if counter.value]


def _of_outcome(run: Run, label: str, value: int, outcome: str, tone: str) -> Counter:
    return Counter(label, value, _changes_url(run, outcome=outcome), tone if value else "")
