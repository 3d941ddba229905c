"""How many examples Hypothesis generates: as usual, or as many as the environment says."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

from hypothesis import HealthCheck, seed, settings

from tests.invariants.playing import SEED, Played

Test = TypeVar("Test", bound=Callable[..., None])
SLOW = (HealthCheck.too_slow, HealthCheck.data_too_large)


def profile(
    usual: int, *, suppress_health_check: Sequence[HealthCheck] = (), steps: int = 50
) -> settings:
    """The settings; steps: of a state machine, at most."""
    return settings(
        max_examples=Played.wanted(usual),
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[*SLOW, *suppress_health_check],
    )


def generated(
    usual: int, *, suppress_health_check: Sequence[HealthCheck] = ()
) -> Callable[[Test], Test]:
    """Decorates a test with the settings, and with the environment's seed where there is one."""

    def decorate(test: Test) -> Test:
        decorated: Test = profile(usual, suppress_health_check=suppress_health_check)(test)
        return seed(int(os.environ[SEED]))(decorated) if SEED in os.environ else decorated

    return decorate
