"""What more workers gain where the databases are far away: one run in many partitions.

`python -m bench.partitions` puts a delay in front of both databases (a proxy on loopback), compares
and corrects two tables in partitions with 1, 2, 4 and 8 workers in turn, several times over, and
prints medians and ratios. What waits for the network is shared among workers; what needs a
processor is shared among the machine's processors only, so the gain ends there.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import psycopg

from bench.scene import SERVER, Scene, build_rule, database_url, enter_platform, finish, scene
from tests.slow_link import slow_link

CHANGED = 100  # every so many records differ


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=160_000)
    parser.add_argument("--partitions", type=int, default=16)
    parser.add_argument("--round-trip-ms", type=float, default=60.0)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    settings = {
        "partition_rows": str(-(-options.rows // options.partitions)),
        "run_window": str(max(options.workers)),
    }
    place = {"broker": "redis", "platform": "postgresql", "rows": options.rows, "both": True}
    with scene(**place, **settings) as made:
        enter_platform(made)
        with _far_away(made, options.round_trip_ms / 1_000) as rule:
            seconds = _measure(made, rule, options.workers, options.repeats)
    print(_report(options, seconds))
    return 0


@contextmanager
def _far_away(made: Scene, round_trip: float) -> Iterator[Any]:
    """A rule between the scene's databases, whose sources are reached through the delay."""
    from apps.runs.services import request_run, work_until_finished
    from apps.sources.models import Source
    from apps.sources.services import save_source

    rule = build_rule(made, max_deletes_percent=None)
    work_until_finished(request_run(rule, actor=None))  # makes the links
    server = urlsplit(SERVER)
    address = server.hostname or "127.0.0.1", server.port or 5432
    with slow_link(*address, round_trip=round_trip) as link:
        for source in Source.objects.all():
            values = {**source.settings, **source.secrets()}
            values |= {"host": "127.0.0.1", "port": link.local_port}
            save_source(source, {**values, "password": server.password or ""}, actor=None)
        yield rule


def _measure(
    made: Scene, rule: Any, workers: Sequence[int], repeats: int
) -> dict[int, list[float]]:
    """Seconds of each run, by its number of workers, which take turns."""
    seconds: dict[int, list[float]] = {number: [] for number in workers}
    for turn in range(repeats):
        for number in workers:
            _edit(made, turn)
            seconds[number].append(_run(made, rule, number))
    return seconds


def _edit(made: Scene, turn: int) -> None:
    with psycopg.connect(database_url(made.left), autocommit=True) as left:
        statement = "UPDATE customers SET name = name || '.' WHERE id %% %s = %s"
        left.execute(statement, (CHANGED, turn))


def _run(made: Scene, rule: Any, workers: int) -> float:
    """One run by so many worker processes; from its first step to its end."""
    from apps.runs.services import request_run

    worker = made.start_worker(processes=workers)
    try:
        run = finish(request_run(rule, actor=None), poll_seconds=0.05)
    finally:
        made.kill(worker)
    if run.status != "succeeded" or not run.updated:
        raise SystemExit(f"the run {run.status}: {run.cause}")
    return float((run.finished_at - run.started_at).total_seconds())


def _report(options: argparse.Namespace, seconds: dict[int, list[float]]) -> str:
    medians = {number: statistics.median(found) for number, found in seconds.items()}
    alone = medians[options.workers[0]]
    lines = [
        f"{options.rows:,} records on each side in {options.partitions} partitions, 1 in {CHANGED} "
        f"changed; {options.round_trip_ms:g} ms to either database; {os.cpu_count()} processors; "
        f"medians of {options.repeats}",
        "",
        f"| workers | seconds | times as fast as {options.workers[0]} |",
        "|---|---|---|",
        *(f"| {number} | {took:.1f} | {alone / took:.2f} |" for number, took in medians.items()),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
