"""Two databases that writers edit without pause, a two-way rule, and workers killed at random.

`python -m bench.writers --seconds 30` lets 4 writers insert, update, delete and make records again
on both sides, starts a run of the rule again and again, and kills a worker with SIGKILL now and
then. After that runs go on until their plan is empty; open conflicts are decided for either side in
turn. It prints one line of JSON: whether both sides are equal, and how many texts were lost (see
`bench.accounting`).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any
from uuid import UUID

from bench.accounting import (
    forgotten,
    lost,
    observed,
    read_kept,
    read_sides,
    unexplained,
    wrong_points,
)
from bench.editing import PEOPLE, Journal, edit
from bench.scene import Scene, build_rule, digest, enter_platform, finish, scene

POLICIES = {
    "name": "left",
    "email": "right",
    "note": "newest",
    "points": "counter",
    "changed_at": "highest",
}
MOST_RUNS_AFTERWARDS = 30
EXAMPLES = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between runs")
    parser.add_argument(
        "--kill-every", type=float, default=6.0, help="seconds between kills; 0: no"
    )
    parser.add_argument("--broker", choices=("embedded", "redis", "rabbitmq"), default="embedded")
    parser.add_argument("--platform", choices=("sqlite", "postgresql"), default="postgresql")
    options = parser.parse_args()
    settings = {"lease_seconds": "4", "tick_seconds": "1"}
    with scene(
        broker=options.broker,
        platform=options.platform,
        rows=options.rows,
        table=PEOPLE,
        both=True,
        **settings,
    ) as made:
        enter_platform(made)
        result = measure(made, options)
    print(json.dumps(result))
    return 0 if is_whole(result) else 1


def is_whole(result: dict[str, Any]) -> bool:
    """Whether both sides are equal and nothing is missing."""
    missing = ("lost", "forgotten", "wrong_points", "unexplained", "open_conflicts")
    return bool(result["equal"] and not any(result[name] for name in missing))


def measure(made: Scene, options: argparse.Namespace) -> dict[str, Any]:
    from apps.runs.services import request_run

    rule = build_two_way_rule(made)
    made.start_beat()
    trouble = Trouble(made, rule, options.every, options.kill_every)
    first = finish(request_run(rule, actor=None))
    if first.status != "succeeded":
        raise SystemExit(f"{first.status}: {first.cause} {first.remedy}")
    journal = edit(
        made.left,
        made.right,
        writers=options.writers,
        rows=options.rows,
        seconds=options.seconds,
        meanwhile=trouble.stir,
    )
    decided = come_to_rest(rule)
    return account(made, rule, journal) | {"kills": trouble.kills, "decided": decided}


def build_two_way_rule(made: Scene) -> Any:
    """A rule with a policy of each kind; `city` is the field that asks."""
    return build_rule(
        made,
        PEOPLE,
        POLICIES,
        direction="two_way",
        policy="ask",
        first_contact="left",
        left_modified="changed_at",
        right_modified="changed_at",
        tie="left",
        max_deletes_percent=None,
    )


class Trouble:
    """Starts runs and kills workers while writers are at work."""

    def __init__(self, made: Scene, rule: Any, every: float, kill_every: float) -> None:
        self.made = made
        self.rule = rule
        self.every = every
        self.kill_every = kill_every
        self.workers = [made.start_worker(), made.start_worker()]
        self.random = random.Random(1)
        self.kills = 0
        self.next_run = time.monotonic()
        self.next_kill = time.monotonic() + kill_every

    def stir(self) -> None:
        from apps.runs.services import request_run
        from apps.runs.services.errors import RunRefused

        moment = time.monotonic()
        if moment >= self.next_run:
            self.next_run = moment + self.every
            try:
                request_run(self.rule, actor=None)
            except RunRefused:
                self.next_run = moment + 0.5  # one goes on
        if self.kill_every and moment >= self.next_kill:
            self.next_kill = moment + self.kill_every * self.random.uniform(0.5, 1.5)
            victim = self.random.randrange(len(self.workers))
            self.made.kill(self.workers[victim])
            self.workers[victim] = self.made.start_worker()
            self.kills += 1


def come_to_rest(rule: Any) -> int:
    """Run until a plan is empty and nobody is asked; returns how many conflicts were decided."""
    from apps.ledger.models import Conflict
    from apps.ledger.services import Decision, decide
    from apps.runs.models import ACTIVE_STATUSES, Run
    from apps.runs.services import request_run

    decided = 0
    for run in Run.objects.filter(rule=rule, status__in=ACTIVE_STATUSES):
        finish(run)
    for _ in range(MOST_RUNS_AFTERWARDS):
        run = finish(request_run(rule, actor=None))
        waiting = list(Conflict.objects.filter(rule_id=rule.pk, state=Conflict.State.OPEN))
        if not run.planned and not waiting and run.status == "succeeded":
            break
        for conflict in waiting:
            side = ("left", "right")[decided % 2]
            decide(conflict, Decision(record=side), seen=conflict.seen, actor=None)
            decided += 1
    return decided


def account(made: Scene, rule: Any, journal: Journal) -> dict[str, Any]:
    """Compare the journal with the sides and the ledger."""
    from apps.ledger.models import Conflict
    from apps.runs.models import Run

    sides = read_sides({"left": made.left, "right": made.right})
    kept = read_kept(rule.pk)
    runs = list(Run.objects.filter(rule=rule))
    readings = [
        (run.started_at.timestamp(), run.planned_at.timestamp())
        for run in runs
        if run.started_at and run.planned_at
    ]
    seen = list(observed(journal, readings))
    asked = asked_about(rule, "points")
    missing = {
        "lost": lost(journal, sides, kept),
        "forgotten": forgotten(seen, sides, kept),
        "wrong_points": [item for item in wrong_points(journal, sides) if item["key"] not in asked],
        "unexplained": unexplained(journal, sides, kept),
    }
    for name, items in missing.items():
        for item in items[:EXAMPLES]:
            print(f"{name}: {item}", file=sys.stderr)
    return {
        "equal": digest(made.left, PEOPLE) == digest(made.right, PEOPLE),
        "rows": len(sides["left"]),
        "writes": sum(journal.counts.values()),
        "operations": dict(journal.counts),
        "texts": len(journal.written),
        "observed": len(seen),
        "asked_points": len(asked),
        **{name: len(items) for name, items in missing.items()},
        "open_conflicts": Conflict.objects.filter(
            rule_id=rule.pk, state__in=(Conflict.State.OPEN, Conflict.State.DECIDED)
        ).count(),
        "runs": dict(Counter(run.status for run in runs)),
        "replanned": sum(run.replanned for run in runs),
        "outcomes": outcomes(run.pk for run in runs),
    }


def asked_about(rule: Any, field: str) -> set[int]:
    """The records of which a person was asked about a field: a counter with a write in doubt.

    What the person chooses is right then, whatever the sum of all increments is.
    """
    from apps.ledger.models import Conflict

    rows = Conflict.objects.filter(rule_id=rule.pk).values_list("left_key", "right_key", "fields")
    return {int(json.loads(left or right)[0]) for left, right, fields in rows if field in fields}


def outcomes(run_ids: Iterable[UUID]) -> dict[str, int]:
    """How many changes of these runs came to what, on both shelves of the ledger."""
    from apps.ledger.selectors import change_counts

    counts: Counter[str] = Counter()
    for run_id in run_ids:
        for (_, outcome), number in change_counts(run_id).items():
            counts[outcome] += number
    return dict(counts)


if __name__ == "__main__":
    sys.exit(main())
