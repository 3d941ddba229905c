"""Pairs of measurements: the limit and ours in turn, so that both meet the same machine."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Timed:
    """One run of ours: seconds from request to done, peak MB of the worker, phases."""

    seconds: float
    peak_mb: float
    phases: dict[str, float]


@dataclass(frozen=True)
class Job:
    """One thing to measure.

    prepare: brings the scene where both measurements begin, before each pair; limit: seconds of
    the physical limit; ours: one run; peers: seconds by name, each in turn with the others; goal:
    the ratio to reach.
    """

    name: str
    goal: float
    limit: Callable[[], float]
    ours: Callable[[], Timed]
    prepare: Callable[[], None] = lambda: None
    peers: dict[str, Callable[[], float]] = field(default_factory=dict)


@dataclass
class Result:
    """The medians of a job's pairs."""

    job: str
    rows: int
    goal: float
    limits: list[float] = field(default_factory=list)
    runs: list[Timed] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        limit = statistics.median(self.limits)
        ours = statistics.median(run.seconds for run in self.runs)
        middle = sorted(self.runs, key=lambda run: run.seconds)[len(self.runs) // 2]
        return {
            "job": self.job,
            "rows": self.rows,
            "ours_s": round(ours, 2),
            "limit_s": round(limit, 2),
            "ratio": round(statistics.median(self._ratios()), 2),
            "goal": self.goal,
            "peak_mb": round(max(run.peak_mb for run in self.runs)),
            "peers": {n: round(statistics.median(s), 2) for n, s in self.peers.items() if s},
            "phases_s": middle.phases,
            "pairs": [
                [round(limit, 2), round(run.seconds, 2)]
                for limit, run in zip(self.limits, self.runs, strict=True)
            ],
        }

    def _ratios(self) -> list[float]:
        """Ours by the limit of the same pair: the machine's moods cancel out."""
        return [r.seconds / limit for limit, r in zip(self.limits, self.runs, strict=True)]


def measure(job: Job, rows: int, pairs: int, say: Callable[[str], None]) -> Result:
    """Measure a job in pairs; peers take their turn in each."""
    result = Result(job.name, rows, job.goal)
    for number in range(pairs):
        job.prepare()
        limit = job.limit()
        run = job.ours()
        result.limits.append(limit)
        result.runs.append(run)
        for name, peer in job.peers.items():
            result.peers.setdefault(name, []).append(peer())
        say(
            f"{job.name}, pair {number + 1}: limit {limit:.2f} s, ours {run.seconds:.2f} s, "
            f"ratio {run.seconds / limit:.2f}"
        )
    return result
