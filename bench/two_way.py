"""A two-way rule over two equal tables of which a part was edited on each side.

`python -m bench.two_way --rows 1000000` links both tables, edits 1 % of the records on each side
(0.1 % on both, in the same field), runs the rule, and prints how long that took beside reading both
tables once with COPY, the peak memory of the worker, and whether both sides are equal.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import psycopg

from bench.memory import PeakMemory, cpu_seconds
from bench.scene import Scene, build_rule, database_url, digest, enter_platform, finish, scene

LEFT_EDIT = "UPDATE customers SET name = name || ' L', balance = balance + 1 WHERE id % 1000 < 10"
RIGHT_EDIT = """
    UPDATE customers SET name = name || ' R', email = 'r' || id || '@example.org'
    WHERE id % 1000 BETWEEN 9 AND 18
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--broker", choices=("embedded", "redis"), default="embedded")
    parser.add_argument("--platform", choices=("sqlite", "postgresql"), default="postgresql")
    options = parser.parse_args()
    with scene(
        broker=options.broker,
        platform=options.platform,
        rows=options.rows,
        both=True,
        tick_seconds="1",
    ) as made:
        enter_platform(made)
        result = {"rows": options.rows} | measure(made)
    print(json.dumps(result))
    return 0 if result["equal"] and result["linked"] == options.rows else 1


def measure(made: Scene) -> dict[str, Any]:
    """First contact of equal tables, edits on both sides, and the run that merges them."""
    from apps.ledger.selectors import link_count

    rule = build_rule(made, direction="two_way", policy="left", first_contact="left")
    worker = made.start_worker()
    made.start_beat()
    linking = timed_run(rule, worker.pid)
    linked = link_count(rule.pk)
    reading = read_seconds(made)
    edit(made)
    merging = timed_run(rule, worker.pid)
    settled = timed_run(rule, worker.pid)
    return {
        "linked": linked,
        "read_both_s": round(reading, 2),
        "first_contact": linking,
        "merge": merging,
        "nothing_to_do": settled,
        "equal": digest(made.left) == digest(made.right) and not settled["planned"],
    }


def timed_run(rule: Any, worker: int) -> dict[str, Any]:
    """One run: seconds, processor seconds and peak memory of the worker's processes, changes."""
    from apps.runs.selectors import run_phases
    from apps.runs.services import request_run

    began, used = time.monotonic(), cpu_seconds(worker)
    with PeakMemory(worker) as memory:
        run = finish(request_run(rule, actor=None))
    if run.status != "succeeded":
        raise SystemExit(f"{run.status}: {run.cause} {run.remedy}")
    return {
        "seconds": round(time.monotonic() - began, 1),
        "worker_cpu_s": round(cpu_seconds(worker) - used, 1),
        "phases_s": {phase.name: round(phase.seconds or 0, 1) for phase in run_phases(run)},
        "peak_mb": round(memory.peak_mb),
        "planned": run.planned,
        "to_left": run.updated_left,
        "written": run.written,
    }


def read_seconds(made: Scene) -> float:
    """The limit: both tables read once, by two psql processes in turn."""
    began = time.monotonic()
    for name in (made.left, made.right):
        subprocess.run(
            ["psql", "-qX", database_url(name), "-c", "COPY customers TO STDOUT"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
    return time.monotonic() - began


def edit(made: Scene) -> None:
    """1 % on each side; the last tenth of them is the same records, and their names."""
    for name, statement in ((made.left, LEFT_EDIT), (made.right, RIGHT_EDIT)):
        with psycopg.connect(database_url(name), autocommit=True) as connection:
            connection.execute(statement)


if __name__ == "__main__":
    sys.exit(main())
