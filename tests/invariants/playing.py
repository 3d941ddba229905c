"""Playing so many random histories of a setup, flock by flock, and saying what fails."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from tests.invariants.flock import play_together
from tests.invariants.histories import History, make_history, minimise
from tests.invariants.platforms import Platform
from tests.invariants.setups import Setup

FLOCK = 250
SEED = "LOCKSTEP_TEST_SEED"
NUMBER = "LOCKSTEP_TEST_HISTORIES"


@dataclass
class Played:
    """Counts the histories of one test. told: what its report says of it."""

    told: list[tuple[str, object]]
    histories: int = 0

    @staticmethod
    def wanted(usual: int) -> int:
        """As many as usual, or as the environment says."""
        return int(os.environ.get(NUMBER, usual))

    @staticmethod
    def random(*names: object) -> Random:
        """Chance by the environment's seed; other names, other chance."""
        return Random(" ".join(map(str, (os.environ.get(SEED, 0), *names))))

    def add(self, number: int, *, at_least: int) -> None:
        """So many were played, and no fewer than `at_least`."""
        assert number >= at_least, f"{number} histories were played, not {at_least}"
        self.histories += number
        self.told[:] = [("histories", self.histories)]


def play_histories(setup: Setup, platforms: Sequence[Platform], number: int) -> int:
    """Play histories and check each; returns how many. The seed is in the environment, or 0."""
    played = 0
    while played < number:
        size = min(FLOCK, number - played)
        random = Played.random(setup.name, played)
        flock = [make_history(setup, random) for _ in range(size)]
        failed = play(setup, flock, platforms)
        if failed:
            raise AssertionError(_explained(setup, platforms, flock, failed))
        played += size
    return played


def play(
    setup: Setup, flock: Sequence[History], platforms: Sequence[Platform]
) -> dict[int, list[str]]:
    """What fails, by the number of the history."""
    for platform in platforms:
        platform.clear()
    return {p.number: p.failures for p in play_together(setup, flock, platforms) if p.failures}


def _explained(
    setup: Setup,
    platforms: Sequence[Platform],
    flock: Sequence[History],
    failed: dict[int, list[str]],
) -> str:
    """The shortest of the failed histories, as short as it can be made."""
    number = min(failed, key=lambda place: len(flock[place]))
    shortest = minimise(flock[number], lambda history: bool(play(setup, [history], platforms)))
    problems = play(setup, [shortest], platforms).get(0, failed[number])
    steps = "\n".join(f"    {step}," for step in shortest)
    return (
        f"{len(failed)} of {len(flock)} histories fail on '{setup.name}', one of them:\n"
        f"{steps}\n" + "\n".join(problems[:5])
    )
