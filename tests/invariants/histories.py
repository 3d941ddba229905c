"""Histories: what people and workers do, step by step, made at random from a seed.

A history is a list of steps, each a tuple that begins with its kind:

edit p i f    a person on platform p writes field f of record i, if it is there
put p i       a person creates record i on platform p, unless it is there
delete p i    a person deletes record i on platform p
plan r when   a worker plans rule r; `when` is a person's step between the reads of both sides
apply r c     a worker applies the plan of rule r; c says where it crashes (`Crash`), or None
twice r       the same, and every batch is written and settled twice
late r        a worker that lost its lease wakes up and tries to apply a plan of rule r
decide r n w  a person decides the n-th open conflict of rule r: w is "left" or "right"
undo r        the last finished run of rule r is taken back
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.invariants.setups import EDITABLE, Setup

Step = tuple[Any, ...]
History = tuple[Step, ...]
RECORDS = 3
MOST_PLANS = 4


class Crash(NamedTuple):
    """The worker dies after so many batches, while it writes one more.

    moment: "before" it does, when that is "noted" and not yet committed, or "written".
    """

    batches: int
    moment: str


def make_history(setup: Setup, random: Random) -> History:
    """A random history of some 20 steps; every rule plans and applies a few times."""
    steps: list[Step] = [("put", random.randrange(setup.platforms), i) for i in range(RECORDS)]
    for _ in range(random.randint(1, MOST_PLANS)):
        steps += [_persons(setup, random) for _ in range(random.randint(0, 5))]
        steps += _run(setup, random)
    return tuple(steps)


def _persons(setup: Setup, random: Random) -> Step:
    platform, record = random.randrange(setup.platforms), random.randrange(RECORDS)
    kind = random.choices(("edit", "delete", "put"), (8, 1, 1))[0]
    if kind == "edit":
        name = random.choice((*EDITABLE, *["n"] * 3))  # equal sums hide what is counted wrongly
        return (kind, platform, record, name, random.randrange(100))
    return (kind, platform, record)


def _run(setup: Setup, random: Random) -> list[Step]:
    number = random.randrange(len(setup.rules))
    between = _persons(setup, random) if random.random() < 0.2 else None
    steps: list[Step] = [("plan", number, between)]
    if random.random() < 0.15:  # the partition is taken twice; the first worker is late
        steps += [_persons(setup, random), ("plan", number, None), ("late", number)]
    steps += [_persons(setup, random) for _ in range(random.choice((0, 0, 0, 1, 2)))]
    steps += _worker(number, setup, random)
    if random.random() < 0.15:
        steps.append(("late", number))
    if random.random() < 0.3:
        steps.append(("decide", number, random.randrange(3), random.choice(("left", "right"))))
    if random.random() < 0.1:
        steps += [_persons(setup, random)] if random.random() < 0.5 else []
        steps.append(("undo", number))
    return steps


def _worker(number: int, setup: Setup, random: Random) -> list[Step]:
    """Apply, perhaps with crashes; somebody takes it over at once, later, or with the next run."""
    steps: list[Step] = []
    while random.random() < 0.3:
        moment = random.choice(("before", "noted", "written", "written"))
        crash = Crash(random.randrange(3), moment)
        steps.append(("apply", number, crash))
        steps += [_persons(setup, random)] if random.random() < 0.3 else []
    kind = random.choices(("apply", "twice", "later"), (7, 2, 1))[0]
    if kind == "apply":
        steps.append(("apply", number, None))
    elif kind == "twice":
        steps.append(("twice", number))
    return steps


def without_crashes(history: History) -> History:
    """The same history with workers that never crash."""
    return tuple(("apply", s[1], None) if s[0] == "apply" else s for s in history)


def minimise(history: History, fails: Callable[[History], bool], attempts: int = 20) -> History:
    """Leave out steps as long as the history still fails."""
    size = len(history) // 2
    while size and attempts > 0:
        start = 0
        while start < len(history) and attempts > 0:
            shorter = history[:start] + history[start + size :]
            attempts -= 1
            if shorter and fails(shorter):
                history = shorter
            else:
                start += size
        size //= 2
    return history
