"""Two-way sync as a state machine: people and workers take any step, in any order.

Hypothesis chooses the steps and makes the shortest history of a failure. Histories made from a seed
(`test_memory_histories`) are many more, because hundreds of them share a plan; here each step may
depend on what is there, and what must hold is checked after every step.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from hypothesis import seed
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.invariants.flock import drive, quiet, scene_of
from tests.invariants.generating import profile
from tests.invariants.histories import RECORDS, Crash, Step
from tests.invariants.invariants import check_ending
from tests.invariants.platforms import MemoryPlatform
from tests.invariants.playing import SEED
from tests.invariants.plays import Play
from tests.invariants.setups import EDITABLE, LOSSY, SETUPS, Setup, two_sides
from tests.invariants.setups import rule as two_way_rule

EXAMPLES = 8
MOST_STEPS = 15
WORLDS = (
    two_sides("small: lossy on the right, the right wins", two_way_rule("right"), alters=LOSSY),
    two_sides(
        "small: lossy on the left, a person decides",
        two_way_rule("ask", edit_delete="ask"),
        alters=LOSSY[::-1],
    ),
    *SETUPS[:3],
)
CRASHES = st.builds(Crash, st.integers(0, 1), st.sampled_from(("before", "noted", "written")))


class TwoWayWorld(RuleBasedStateMachine):
    """A few records on two platforms in memory, people who edit them, and workers."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.play: Play | None = None

    @initialize(setup=st.sampled_from(WORLDS), places=st.lists(st.integers(0, 1), max_size=2))
    def begin(self, setup: Setup, places: list[int]) -> None:
        platforms = [MemoryPlatform(alters) for alters in setup.alters]
        self.play = Play(self.stack.enter_context(scene_of(setup, platforms)), 0, [])
        for record, platform in enumerate(places):
            self.take("put", platform, record)

    def take(self, *step: object) -> None:
        assert self.play is not None
        self.play.steps.append(step)
        drive(self.play.scene, [self.play])

    @property
    def has_plan(self) -> bool:
        return self.play is not None and not self.play.work[0].is_finished

    @rule(platform=st.integers(0, 1), record=st.integers(0, RECORDS - 1))
    def put(self, platform: int, record: int) -> None:
        self.take("put", platform, record)

    @rule(
        platform=st.integers(0, 1),
        record=st.integers(0, RECORDS - 1),
        name=st.sampled_from((*EDITABLE, "n", "a", "b")),
        choice=st.integers(0, 9),
    )
    def edit(self, platform: int, record: int, name: str, choice: int) -> None:
        self.take("edit", platform, record, name, choice)

    @rule(platform=st.integers(0, 1), record=st.integers(0, RECORDS - 1))
    def delete(self, platform: int, record: int) -> None:
        self.take("delete", platform, record)

    @rule(
        platform=st.integers(0, 1),
        record=st.integers(0, RECORDS - 1),
        name=st.sampled_from(EDITABLE),
        meanwhile=st.booleans(),
    )
    def plan(self, platform: int, record: int, name: str, meanwhile: bool) -> None:
        """A worker plans; `meanwhile` somebody edits between the reads of both sides."""
        step: Step | None = ("edit", platform, record, name, 1) if meanwhile else None
        self.take("plan", 0, step)

    @precondition(lambda self: self.has_plan)
    @rule(crash=st.none() | CRASHES)
    def apply(self, crash: Crash | None) -> None:
        self.take("apply", 0, crash)

    @precondition(lambda self: self.has_plan)
    @rule()
    def apply_twice(self) -> None:
        self.take("twice", 0)

    @rule()
    def late_worker(self) -> None:
        self.take("late", 0)

    @rule(place=st.integers(0, 1), winner=st.sampled_from(("left", "right")))
    def decide(self, place: int, winner: str) -> None:
        self.take("decide", 0, place, winner)

    @rule()
    def undo(self) -> None:
        self.take("undo", 0)

    @invariant()
    def nothing_has_failed(self) -> None:
        assert self.play is None or not self.play.failures, self.play.failures[:3]

    def teardown(self) -> None:
        """Nobody edits any more: both sides come to rest, equal, and nothing is lost."""
        with self.stack:
            if self.play is not None and not self.play.failures:
                self.play.steps += quiet(len(self.play.scene.rules))
                drive(self.play.scene, [self.play])
                check_ending(self.play.scene, [self.play])
        self.nothing_has_failed()


def test_any_steps_in_any_order() -> None:
    machine = TwoWayWorld
    if SEED in os.environ:
        machine = seed(int(os.environ[SEED]))(machine)
    run_state_machine_as_test(machine, settings=profile(EXAMPLES, steps=MOST_STEPS))
