"""Thousands of random histories on tables in memory keep what DESIGN promises of two-way sync."""

from __future__ import annotations

import pytest

from tests.invariants.platforms import MemoryPlatform
from tests.invariants.playing import Played, play_histories
from tests.invariants.setups import SETUPS, Setup

HISTORIES = 2_000


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_histories_in_memory(setup: Setup, played: Played) -> None:
    share = -(-played.wanted(HISTORIES) // len(SETUPS))
    platforms = [MemoryPlatform(alters) for alters in setup.alters]
    played.add(play_histories(setup, platforms, share), at_least=share)
