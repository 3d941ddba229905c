"""Random histories on real databases, through the connectors and their compare-and-set."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.invariants.databases import platforms
from tests.invariants.playing import Played, play_histories
from tests.invariants.setups import SETUPS

HISTORIES = 200
NAMES = (
    "lossy types and triggers on the left, a person decides",
    "three sides, the newest wins, clocks are off by a day",
)
CHOSEN = [setup for setup in SETUPS if setup.name in NAMES]
KINDS = (
    "sqlite",
    pytest.param("postgresql", marks=pytest.mark.postgresql),
    pytest.param("mariadb", marks=pytest.mark.mariadb),
)


@pytest.mark.parametrize("kind", KINDS)
def test_histories_in_a_database(kind: str, tmp_path: Path, played: Played) -> None:
    wanted = played.wanted(HISTORIES)
    share = -(-wanted // len(CHOSEN))
    for setup in CHOSEN:
        folder = tmp_path / str(SETUPS.index(setup))
        folder.mkdir()
        with platforms(kind, folder, setup.alters) as sides:
            played.add(play_histories(setup, sides, share), at_least=share)
    assert played.histories >= wanted
