"""Undoing a large run, and approving a plan of which some records were changed meanwhile.

`python -m bench.undo --rows 100000` updates every record, runs, undoes the run and compares the
checksums of both tables before and after; does it again with 50 records edited in between, which
must be reported and left alone; and approves a plan after 100 of its records were changed by hand,
which must be refused while the rest is applied.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import psycopg

from bench.scene import Scene, build_rule, database_url, digest, enter_platform, finish, scene

EDITED = 50
DRIFTED = 100
PAGE = 5_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="a multiple of 100")
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
        result = {"rows": options.rows} | measure(made, options.rows)
    print(json.dumps(result))
    return 0 if all(result["holds"].values()) else 1


def measure(made: Scene, rows: int) -> dict[str, Any]:
    rule = build_rule(made, direction="two_way", policy="left", first_contact="left")
    made.start_worker()
    made.start_beat()
    ended(request(rule))
    whole = undo_whole(made, rule)
    partly = undo_with_edits(made, rule, rows)
    approved = approve_with_drift(made, rule, rows)
    return {
        "whole": whole,
        "with_edits": partly,
        "approved": approved,
        "holds": {
            "exact": whole["exact"] and whole["undone"] == rows,
            "only_edited_reported": partly["stale"] == EDITED and partly["reported_are_edited"],
            "rest_put_back": partly["undone"] == rows - EDITED and partly["rest_exact"],
            "only_drifted_refused": approved["stale"] == DRIFTED
            and approved["refused_are_drifted"],
            "rest_applied": approved["written"] == rows - DRIFTED and approved["kept_by_hand"],
        },
    }


def undo_whole(made: Scene, rule: Any) -> dict[str, Any]:
    """Change every record, run, undo: the target is as it was before the run."""
    before = digest(made.right)
    execute(made.left, "UPDATE customers SET name = 'first ' || id, balance = balance + 1")
    left = digest(made.left)
    run, seconds = ended(request(rule))
    changed = digest(made.right) != before
    undone, undo_seconds = ended(undo(rule, run))
    return {
        "run_s": seconds,
        "undo_s": undo_seconds,
        "undone": undone.written,
        "stale": undone.stale,
        "exact": changed and digest(made.right) == before and digest(made.left) == left,
    }


def undo_with_edits(made: Scene, rule: Any, rows: int) -> dict[str, Any]:
    """The same with some records edited after the run: just these are reported."""
    others = f"id % {rows // EDITED} <> 0"
    before = checksum(made.right, others)
    execute(made.left, "UPDATE customers SET name = 'second ' || id, balance = balance + 1")
    run, _ = ended(request(rule))
    edited = execute(
        made.right,
        f"UPDATE customers SET name = 'by hand' WHERE NOT ({others}) RETURNING id",
    )
    undone, seconds = ended(undo(rule, run))
    return {
        "undo_s": seconds,
        "status": undone.status,
        "undone": undone.written,
        "stale": undone.stale,
        "reported_are_edited": refused(undone) == edited,
        "rest_exact": checksum(made.right, others) == before,
    }


def approve_with_drift(made: Scene, rule: Any, rows: int) -> dict[str, Any]:
    """A plan waits, some of its records are changed by hand, then it is approved."""
    from apps.runs.services import approve_run

    execute(made.left, "UPDATE customers SET name = 'third ' || id, balance = balance + 1")
    run, planning = ended(request(rule, asks_approval=True))
    drifted = execute(
        made.right,
        f"UPDATE customers SET name = 'drifted' WHERE id % {rows // DRIFTED} = 0 RETURNING id",
    )
    approve_run(run, actor=None)
    run, applying = ended(run)
    kept = execute(made.right, "SELECT id FROM customers WHERE name = 'drifted'")
    return {
        "plan_s": planning,
        "apply_s": applying,
        "status": run.status,
        "written": run.written,
        "stale": run.stale,
        "refused_are_drifted": refused(run) == drifted,
        "kept_by_hand": kept == drifted,
    }


def request(rule: Any, **options: Any) -> Any:
    from apps.runs.services import request_run

    return request_run(rule, actor=None, **options)


def undo(rule: Any, run: Any) -> Any:
    """Take all of a run back."""
    from apps.runs.services import UndoScope, plan_undo

    return plan_undo(rule, UndoScope(run_id=run.pk), actor=None, reason="measured", mode="apply")


def ended(run: Any) -> tuple[Any, float]:
    """The run once it is finished or waits, and how many seconds that took."""
    began = time.monotonic()
    run.refresh_from_db()
    finish(run)
    if run.status not in ("succeeded", "partial", "waiting"):
        raise SystemExit(f"{run.status}: {run.cause} {run.remedy}")
    return run, round(time.monotonic() - began, 1)


def refused(run: Any) -> set[int]:
    """The ids of the records whose changes were refused because they had moved."""
    from apps.ledger.selectors import ChangeFilter, run_changes

    stale, found = ChangeFilter(outcomes=("stale",)), set()
    after: int | None = None  # on both shelves of the ledger, page by page
    while page := run_changes(run.pk, stale, after_id=after, limit=PAGE):
        found |= {int(json.loads(change.right_key)[0]) for change in page}
        after = page[-1].pk
    return found


def execute(database: str, statement: str) -> set[int]:
    """Run a statement; the ids that it returns, if any."""
    with psycopg.connect(database_url(database), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return {row[0] for row in cursor} if cursor.description else set()


def checksum(database: str, condition: str) -> Any:
    """An order-free checksum of the records for which the condition holds."""
    query = "SELECT sum(hashtextextended(t::text, 0)) FROM customers AS t WHERE " + condition
    with psycopg.connect(database_url(database)) as connection:
        return connection.execute(query).fetchone()


if __name__ == "__main__":
    sys.exit(main())
