"""Playing many histories at once: one plan and one batch for all, each with records of its own.

What it costs to plan hardly depends on how many records there are, so that two hundred histories
on disjoint keys take little more time than one. A history goes on until it needs a worker; when
all of them do, the plans (or the batches, or the undoing) of all are made together. A failure
names its history, which is then played alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count

from tests.invariants.applying import apply_together
from tests.invariants.histories import History, Step
from tests.invariants.invariants import check_ending
from tests.invariants.planning import plan_together
from tests.invariants.platforms import Platform
from tests.invariants.plays import Play, Scene
from tests.invariants.rules_at_work import RuleAtWork
from tests.invariants.setups import Setup
from tests.invariants.undoing import undo_together

QUIET_ROUNDS = 3
Waiting = list[tuple[Play, Step]]


def play_together(
    setup: Setup, histories: Sequence[History], platforms: Sequence[Platform]
) -> list[Play]:
    """Play all histories to their ends, and check what must hold; the plays know what failed."""
    with scene_of(setup, platforms) as scene:
        plays = [
            Play(scene, number, [*history, *quiet(len(scene.rules))])
            for number, history in enumerate(histories)
        ]
        drive(scene, plays)
        check_ending(scene, plays)
    return plays


@contextmanager
def scene_of(setup: Setup, platforms: Sequence[Platform]) -> Iterator[Scene]:
    """The rules of a setup, at work between these platforms."""
    numbers = count(1)
    with ExitStack() as stack:
        rules = [
            stack.enter_context(
                RuleAtWork(mapping, rule, platforms[left], platforms[right], numbers)
            )
            for left, right, mapping, rule in setup.rules
        ]
        yield Scene(setup, platforms, rules)


def drive(scene: Scene, plays: Sequence[Play]) -> None:
    """Take all steps that are before these plays."""
    while waiting := _waiting(plays):
        _work(scene.rules, waiting)


def quiet(rules: int) -> list[Step]:
    """Nobody edits any more, and every rule runs a few times."""
    rounds = QUIET_ROUNDS if rules == 1 else QUIET_ROUNDS + rules
    one = [step for rule in range(rules) for step in (("plan", rule, None), ("apply", rule, None))]
    return one * rounds


def _waiting(plays: Sequence[Play]) -> dict[str, Waiting]:
    waiting: dict[str, Waiting] = {}
    for play in plays:
        step = play.advance()
        if step is not None:
            waiting.setdefault(step[0], []).append((play, step))
    return waiting


def _work(rules: Sequence[RuleAtWork], waiting: dict[str, Waiting]) -> None:
    """The cheapest kind of work first, so that most histories meet at the next plan."""
    together: Callable[[RuleAtWork, int, Waiting], None]
    chosen, together = waiting.get("plan", []), plan_together
    if "undo" in waiting:
        chosen, together = waiting["undo"], undo_together
    if "apply" in waiting or "twice" in waiting:
        chosen = [*waiting.get("apply", []), *waiting.get("twice", [])]
        together = apply_together
    for number, rule in enumerate(rules):
        of_rule = [(play, step) for play, step in chosen if step[1] == number]
        if of_rule:
            together(rule, number, of_rule)
    for play, step in chosen:
        play.took(step)
