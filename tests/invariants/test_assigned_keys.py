"""Random histories between platforms that assign their own keys, where unique values may clash."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import accounting
from tests.invariants.assigned import Assigned
from tests.invariants.playing import Played
from tests.platforms import lines

pytestmark = pytest.mark.django_db(transaction=True)
HISTORIES = 8


@pytest.mark.parametrize("share", range(2))
def test_no_record_is_doubled_lost_or_parted_from_its_counterpart(
    tmp_path: Path, played: Played, monkeypatch: pytest.MonkeyPatch, share: int
) -> None:
    monkeypatch.setattr(accounting, "TEXTS", ("full_name", "name"))
    wanted = -(-played.wanted(HISTORIES) // 2)
    for number in range(wanted):
        random = played.random("assigned", share, number)
        folder = tmp_path / str(number)
        folder.mkdir()
        world = Assigned(folder, f"assigned {share} {number}", random)
        for _ in range(random.randint(2, 3)):
            for _ in range(random.randint(1, 5)):
                world.edit()
            run = world.run(random.choice((0, *range(1, 30))))
            assert run.status in ("succeeded", "partial"), lines(run)
        last = world.come_to_rest()
        assert last.written == 0, f"history {share} {number} does not come to rest\n{lines(last)}"
        assert list(world.failures()) == [], f"history {share} {number}\n{lines(last)}"
        played.add(1, at_least=1)
    assert played.histories >= wanted
