"""A full load of PostgreSQL → PostgreSQL beside `psql COPY | psql COPY` on the same table.

`python -m bench.full_load --rows 1000000` prints both throughputs, their ratio and the peak
memory of the worker with all its children.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import psycopg

from bench.memory import PeakMemory
from bench.scene import Scene, build_rule, database_url, digest, enter_platform, finish, scene


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--broker", choices=("embedded", "redis"), default="embedded")
    parser.add_argument("--platform", choices=("sqlite", "postgresql"), default="postgresql")
    options = parser.parse_args()
    with scene(
        broker=options.broker, platform=options.platform, rows=options.rows, tick_seconds="1"
    ) as made:
        enter_platform(made)
        limit = copy_seconds(made)
        with psycopg.connect(database_url(made.right), autocommit=True) as right:
            right.execute("TRUNCATE customers")
        ours, peak, phases = load(made)
        equal = digest(made.left) == digest(made.right)
    result = {
        "rows": options.rows,
        "limit_s": round(limit, 2),
        "limit_rows_s": round(options.rows / limit),
        "ours_s": round(ours, 2),
        "ours_rows_s": round(options.rows / ours),
        "ratio": round(ours / limit, 1),
        "peak_mb": round(peak),
        "phases_s": phases,
        "equal": equal,
    }
    print(json.dumps(result))
    return 0 if equal else 1


def copy_seconds(made: Scene) -> float:
    """The limit: binary COPY out, binary COPY in, two psql processes."""
    began = time.monotonic()
    out = subprocess.Popen(
        ["psql", "-qX", database_url(made.left), "-c", "COPY customers TO STDOUT (FORMAT binary)"],
        stdout=subprocess.PIPE,
    )
    copy_in = "COPY customers FROM STDIN (FORMAT binary)"
    subprocess.run(
        ["psql", "-qX", database_url(made.right), "-c", copy_in], stdin=out.stdout, check=True
    )
    out.wait()
    return time.monotonic() - began


def load(made: Scene) -> tuple[float, float, dict[str, float]]:
    """Seconds from request to done, peak MB of the worker group, seconds by phase."""
    from apps.runs.selectors import run_phases
    from apps.runs.services import request_run

    rule = build_rule(made)
    worker = made.start_worker()
    time.sleep(5)  # a warm worker
    made.start_beat()
    began = time.monotonic()
    with PeakMemory(worker.pid) as memory:
        run = finish(request_run(rule, actor=None))
    seconds = time.monotonic() - began
    if run.status != "succeeded":
        raise SystemExit(f"{run.status}: {run.cause} {run.remedy}")
    return seconds, memory.peak_mb, {p.name: round(p.seconds or 0, 2) for p in run_phases(run)}


if __name__ == "__main__":
    sys.exit(main())
