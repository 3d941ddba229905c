"""Reads about runs; the scoped queryset of each model of this room."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import OuterRef, QuerySet, Subquery, Sum

from apps.core.clock import now
from apps.core.selectors import narrows, scoped
from apps.rules.models import Rule
from apps.rules.selectors import reached_rule_ids
from apps.runs.models import (
    COUNTER_NAMES,
    Checkpoint,
    DueRun,
    Partition,
    RestoreRequest,
    Run,
    RunLog,
    RunStatus,
)


@narrows(Run, RestoreRequest, Checkpoint, DueRun)
def _granted(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    """With their rule."""
    return rows.filter(rule__in=reached_rule_ids(actor, action))


@narrows(Partition, RunLog)
def _granted_parts(rows: QuerySet[Any], actor: Any, action: str) -> QuerySet[Any]:
    """With the rule of their run."""
    return rows.filter(run__rule__in=reached_rule_ids(actor, action))


def runs(actor: Any, action: str = "view") -> QuerySet[Run]:
    return scoped(Run.objects.select_related("rule", "version", "requested_by"), actor, action)


def first_eyes(run: Run) -> frozenset[Any]:
    """Ids of those who may not approve the plan of a run, because its rule asks for four eyes.

    Whoever asked for the run. Where no person did (a schedule, a dependency, a service account),
    whoever made the version of the rule or of its mapping that it follows: nobody's change is
    applied unseen by a second person. What the system itself has made, by the command line, has no
    such first person.
    """
    version = run.version
    if not version.spec().four_eyes:
        return frozenset()
    if run.requested_by is not None and not run.requested_by.is_service:
        return frozenset({run.requested_by_id})
    authors = {version.created_by_id, version.mapping_version.created_by_id}
    return frozenset(authors - {None})


def partitions(actor: Any, action: str = "view") -> QuerySet[Partition]:
    return scoped(Partition.objects.select_related("run"), actor, action)


def restore_requests(actor: Any, action: str = "view") -> QuerySet[RestoreRequest]:
    return scoped(RestoreRequest.objects.select_related("rule", "requested_by"), actor, action)


def log_lines(run: Run, after_id: int = 0, limit: int = 500) -> list[RunLog]:
    """Lines of a run's log in order, beginning after `after_id`."""
    return list(run.log.filter(id__gt=after_id).order_by("id")[:limit])


def counter_sums(run: Run) -> dict[str, int]:
    """The run's counters as the sums of its partitions'."""
    sums = run.partitions.aggregate(**{f"s_{name}": Sum(name) for name in COUNTER_NAMES})
    return {name: sums[f"s_{name}"] or 0 for name in COUNTER_NAMES}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is. percent 0..100 or None when it cannot be told; rates in rows/s."""

    percent: int | None
    phase: str
    rows_per_second: float | None
    eta_seconds: int | None


def run_progress(run: Run) -> Progress:
    """Half of the bar is reading and comparing, half is writing; a dry run has the first only."""
    counters = counter_sums(run) if run.is_active else {n: getattr(run, n) for n in COUNTER_NAMES}
    if not run.is_active:
        return Progress(100, run.get_status_display(), _overall_rate(run, counters), None)
    planning = _share(counters["read"], run.read_estimate)
    planned = sum(counters[f"planned_{op}"] for op in ("inserts", "updates", "deletes"))
    done = sum(counters[name] for name in ("inserted", "updated", "deleted", "stale"))
    applying = run.status in (RunStatus.APPLYING, RunStatus.VERIFYING)
    if applying:
        share = 0.5 + 0.5 * (_share(done, planned) or 0.0)
        started, rows = run.decided_at or run.planned_at, done
    else:
        share = planning * (1.0 if run.is_dry else 0.5) if planning is not None else None
        started, rows = run.started_at, counters["read"]
    seconds = (now() - started).total_seconds() if started else 0.0
    rate = rows / seconds if seconds > 0 and rows else None
    eta = _remaining_seconds(applying, rate, done, planned, counters["read"], run.read_estimate)
    percent = None if share is None else min(99, int(share * 100))
    return Progress(percent, run.get_status_display(), rate, eta)


def _share(done: int, total: int | None) -> float | None:
    return min(1.0, done / total) if total else None


def _remaining_seconds(
    applying: bool, rate: float | None, done: int, planned: int, read: int, estimate: int | None
) -> int | None:
    if not rate:
        return None
    if applying:
        return int(max(0, planned - done) / rate)
    # Once all is read, what is left is comparing: nothing tells how long that takes.
    return int((estimate - read) / rate * 2) if estimate and read < estimate else None


def _overall_rate(run: Run, counters: dict[str, int]) -> float | None:
    if run.started_at is None or run.finished_at is None:
        return None
    seconds = (run.finished_at - run.started_at).total_seconds()
    return counters["read"] / seconds if seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a run: state is done, current, todo or failed."""

    name: str
    state: str
    seconds: float | None


def run_phases(run: Run) -> Sequence[Phase]:
    """Plan, Review, Apply, Verify with what each took."""
    order = ("Plan",) if run.is_dry else ("Plan", "Review", "Apply", "Verify")
    reviewed = run.decided_at or run.planned_at
    in_review = run.status in (RunStatus.REVIEWING, RunStatus.WAITING)
    marks = {
        "Plan": (run.started_at, run.planned_at),
        "Review": (run.planned_at, None if in_review else reviewed),
        "Apply": (reviewed, run.applied_at),
        "Verify": (run.applied_at, run.finished_at),
    }
    return [Phase(name, *_phase_state(run, name, *marks[name])) for name in order]


_CURRENT = {
    RunStatus.QUEUED: "Plan",
    RunStatus.PLANNING: "Plan",
    RunStatus.REVIEWING: "Review",
    RunStatus.WAITING: "Review",
    RunStatus.APPLYING: "Apply",
    RunStatus.VERIFYING: "Verify",
}


_NOT_APPLIED = (RunStatus.REFUSED, RunStatus.REJECTED, RunStatus.EXPIRED)


def _phase_state(run: Run, name: str, begun: Any, ended: Any) -> tuple[str, float | None]:
    if run.status in _NOT_APPLIED and name in ("Review", "Apply", "Verify"):
        return ("failed", None) if name == "Review" else ("todo", None)
    if begun is None:
        return ("todo", None)
    if _CURRENT.get(RunStatus(run.status)) == name:
        return ("current", (now() - begun).total_seconds())
    if ended is not None:
        return ("done", (ended - begun).total_seconds())
    unfinished = run.status in (RunStatus.FAILED, RunStatus.CANCELLED)
    return ("failed" if unfinished else "todo", None)


def last_checkpoint(run: Run) -> Checkpoint | None:
    return Checkpoint.objects.filter(rule_id=run.rule_id).select_related("version").first()


@dataclass(frozen=True, slots=True)
class MissedStart:
    """A rule that was due and did not start, and why."""

    rule: Rule
    due_at: datetime
    reason: str


def missed_starts(rules: QuerySet[Rule]) -> list[MissedStart]:
    """Those of the rules that could not start when they were due last, and have not run since.

    Looks at the last ones only, by their indexes: a join would read all due times and all runs.
    """
    due = DueRun.objects.filter(rule=OuterRef("pk")).order_by("-due_at")
    last = Run.objects.filter(rule=OuterRef("pk")).order_by("-created_at")
    found = rules.annotate(
        due_at=Subquery(due.values("due_at")[:1]),
        skipped=Subquery(due.values("skipped")[:1]),
        last_run=Subquery(last.values("pk")[:1]),
        last_end=Subquery(last.values("finished_at")[:1]),
    )
    return [
        MissedStart(rule, rule.due_at, rule.skipped)
        for rule in found
        if rule.skipped
        and not (rule.last_run and (rule.last_end is None or rule.last_end >= rule.due_at))
    ]
