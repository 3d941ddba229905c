"""Waiting for a run: workers do it; where none takes it, this process does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from django.db import connections

from apps.console.command_line.output import Output
from apps.core.clock import now
from apps.runs.models import COUNTER_NAMES, Run
from apps.runs.selectors import counter_sums, run_progress
from apps.runs.services import work_until_finished

GRACE_SECONDS = 3.0  # how long a run may lie there before this process takes it
POLL_SECONDS = 0.3


class Follower:
    """Waits for runs, one after the other; where no worker took one, it waits for none again."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.grace = GRACE_SECONDS

    def follow(self, run: Run) -> Run:
        """Wait until the run is finished, showing how far it is."""
        on_terminal = self.output.is_terminal
        bar: AbstractContextManager[None] = _bar(run) if on_terminal else nullcontext()
        with bar:
            return self._wait(run, _nothing if on_terminal else _Phases(self.output).show)

    def _wait(self, run: Run, show: Callable[[Run], None]) -> Run:
        idle_since = time.monotonic()
        while True:
            run.refresh_from_db()
            show(run)
            if not run.is_active or run.is_waiting:
                return run
            if run.partitions.filter(lease_until__gt=now()).exists():
                idle_since = time.monotonic()
            elif time.monotonic() - idle_since >= self.grace:
                self.grace = 0.0
                return work_until_finished(run, on_progress=show)
            time.sleep(POLL_SECONDS)


def _nothing(run: Run) -> None:
    pass


class _Phases:
    """A plain line whenever a run has come a phase further."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.last = ""

    def show(self, run: Run) -> None:
        phase = run.get_status_display()
        if phase != self.last and run.is_active:
            self.last = phase
            self.output.line(f"{run.rule.name}: {phase.lower()}")


@contextmanager
def _bar(run: Run) -> Iterator[None]:
    """A bar that a thread keeps up to date, whoever does the work."""
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[facts]}"),
    )
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task(run.rule.name, total=100, facts="")
        finished = threading.Event()

        def watch() -> None:
            try:
                while not finished.wait(POLL_SECONDS):
                    _update(progress, task, run)
            finally:
                connections.close_all()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join(timeout=5)


def _update(progress: Any, task: Any, run: Run) -> None:
    current = Run.objects.select_related("rule").filter(pk=run.pk).first()
    if current is None:
        return
    state = run_progress(current)
    parts = [state.phase.lower()]
    if state.percent is not None:
        parts.append(f"{state.percent} %")
    if state.rows_per_second:
        parts.append(f"{state.rows_per_second:,.0f} rows/s")
    if state.eta_seconds is not None:
        parts.append(f"about {_duration(state.eta_seconds)} left")
    total = None if state.percent is None else 100
    progress.update(task, total=total, completed=state.percent or 0, facts=", ".join(parts))


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def counters(run: Run) -> dict[str, int]:
    if run.is_active:
        return counter_sums(run)
    return {name: getattr(run, name) for name in COUNTER_NAMES}


def run_facts(run: Run) -> dict[str, Any]:
    """A run as JSON shows it."""
    seconds = None
    if run.started_at and run.finished_at:
        seconds = round((run.finished_at - run.started_at).total_seconds(), 3)
    return {
        "id": str(run.pk),
        "rule": run.rule.name,
        "mode": run.mode,
        "status": run.status,
        "lane": run.lane,
        "started_at": run.started_at.isoformat() if run.started_at else None,
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
        "seconds": seconds,
        "counters": counters(run),
        "cause": (
            {"code": run.cause_code, "message": run.cause, "remedy": run.remedy}
            if run.cause_code
            else None
        ),
    }


def run_line(run: Run) -> str:
    """A finished run in one line."""
    if run.is_dry:
        counts = (
            f"{run.planned_inserts:,} inserts, {run.planned_updates:,} updates, "
            f"{run.planned_deletes:,} deletes planned"
        )
    else:
        counts = f"{run.inserted:,} inserted, {run.updated:,} updated, {run.deleted:,} deleted"
    counts += f", {run.unchanged:,} unchanged, {run.rejected:,} rejected"
    if run.stale:
        counts += f", {run.stale:,} moved meanwhile"
    seconds = ""
    if run.started_at and run.finished_at:
        seconds = f" in {(run.finished_at - run.started_at).total_seconds():.1f} s"
    return f"{run.rule.name}: {run.get_status_display().lower()}: {counts}{seconds}"
