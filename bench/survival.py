"""Kill the worker with SIGKILL in a phase of a run, start another one, and see that all is well.

`python -m bench.survival --rows 20000 --phase apply --broker embedded` prints one line of JSON:
whether both sides are equal, how many changes the history holds, and how long recovery took.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import psycopg

from bench.scene import Scene, build_rule, database_url, digest, enter_platform, scene

PHASES = ("prepare", "plan", "apply", "verify")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--phase", choices=PHASES, default="apply")
    parser.add_argument("--broker", choices=("embedded", "redis", "rabbitmq"), default="embedded")
    parser.add_argument("--platform", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument(
        "--way",
        choices=("load", "records"),
        default="load",
        help="in one transaction, or record by record (the target's key is not unique)",
    )
    parser.add_argument("--timeout", type=float, default=300.0)
    options = parser.parse_args()
    settings = {
        "lease_seconds": "4",
        "tick_seconds": "1",
        "partition_rows": str(max(2_000, options.rows // 4)),
    }
    with scene(
        broker=options.broker, platform=options.platform, rows=options.rows, **settings
    ) as made:
        enter_platform(made)
        result = survive(made, options.phase, options.timeout, way=options.way)
    print(json.dumps(result))
    return 0 if result["equal"] and result["status"] == "succeeded" else 1


def survive(made: Scene, phase: str, timeout: float, *, way: str = "load") -> dict[str, Any]:
    """One run with a worker killed in `phase`; returns what became of it."""
    from apps.ledger.selectors import change_counts, link_count
    from apps.runs.services import request_run

    if way == "records":
        _loosen(made)
    rule = build_rule(made)
    made.start_beat()
    worker = made.start_worker()
    run = request_run(rule, actor=None)
    deadline = time.monotonic() + timeout
    reached = _wait_for(run, phase, deadline)
    made.kill(worker)
    killed_at = time.monotonic()
    run.refresh_from_db()
    at_kill = {"status": run.status, "finished": not run.is_active}
    made.start_worker()
    while run.is_active and time.monotonic() < deadline:
        time.sleep(0.1)
        run.refresh_from_db()
    counts = change_counts(run.pk)
    left, right = digest(made.left), digest(made.right)
    return {
        "phase": phase,
        "reached": reached,
        "at_kill": at_kill,
        "status": run.status,
        "cause": run.cause,
        "recovered_s": round(time.monotonic() - killed_at, 1),
        "equal": left == right,
        "rows": right[0],
        "changes": sum(counts.values()),
        "applied": sum(n for (_, outcome), n in counts.items() if outcome == "applied"),
        "distinct_keys": distinct_keys(run.pk),
        "links": link_count(rule.pk),
        "lane": run.lane,
        "inserted": run.inserted,
    }


def _loosen(made: Scene) -> None:
    """A target that does not keep its key unique is not loaded in one transaction."""
    with psycopg.connect(database_url(made.right), autocommit=True) as right:
        right.execute("ALTER TABLE customers DROP CONSTRAINT customers_pkey")
        right.execute("ALTER TABLE customers ALTER id SET NOT NULL")
        right.execute("CREATE INDEX ON customers (id)")


def distinct_keys(run_id: Any) -> int:
    """How many right records the run's history knows, read page by page from both shelves."""
    from apps.ledger.selectors import run_changes

    keys: set[str] = set()
    last: int | None = None  # changes in segments have ids below zero
    while page := run_changes(run_id, after_id=last, limit=10_000):
        keys.update(change.right_key for change in page)
        last = page[-1].pk
    return len(keys)


def _wait_for(run: Any, phase: str, deadline: float) -> bool:
    """Wait until a worker is in the middle of the phase."""
    while time.monotonic() < deadline:
        run.refresh_from_db()
        if _is_in(run, phase):
            return True
        if not run.is_active:
            return False
        time.sleep(0.005)
    return False


def _is_in(run: Any, phase: str) -> bool:
    held = run.partitions.filter(lease_until__isnull=False)
    if phase == "prepare":
        return bool(held.filter(kind="prepare").exists() or run.status != "queued")
    if phase == "plan":
        return bool(run.status == "planning" and held.filter(read__gt=0).exists())
    if phase == "apply":
        return bool(run.status == "applying" and held.filter(apply_begun_at__isnull=False).exists())
    return bool(run.status == "verifying")


if __name__ == "__main__":
    sys.exit(main())
