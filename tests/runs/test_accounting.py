"""What the accounting of lost writes reads of the ledger: both shelves."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.runs.services import approve_run, work_until_finished
from bench import accounting, undo, writers
from tests.platforms import TwoWayPair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("limit", [0, 1_000])
def test_texts_and_bases_are_found_on_either_shelf(
    tmp_path: Path, settings, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "LEDGER_ROWS_LIMIT": limit}
    monkeypatch.setattr(accounting, "TEXTS", ("full_name", "name"))
    pair = TwoWayPair(tmp_path)
    pair.add_customers(3)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'edited' WHERE id = 1")
    pair.run()
    kept = accounting.read_kept(pair.rule.pk)
    names = {row[1] for row in pair.clients()}
    assert names <= kept.somewhere
    assert kept.inserted == {("right", 1), ("right", 2), ("right", 3)}
    assert len(kept.overwritten["right"]) == 1
    bases = [text for pair_ in accounting._bases(pair.rule.pk) for text in pair_]
    assert len(bases) == 6


@pytest.mark.parametrize("limit", [0, 1_000])
def test_outcomes_and_refused_records_are_found_on_either_shelf(
    tmp_path: Path, settings, limit: int
) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "LEDGER_ROWS_LIMIT": limit}
    pair = TwoWayPair(tmp_path)
    pair.add_customers(3)
    first = pair.run()
    pair.on_left("UPDATE customers SET name = 'edited'")
    run = pair.run(asks_approval=True)
    pair.on_right("UPDATE clients SET full_name = 'drifted' WHERE client_id = 2")
    approve_run(run, actor=None)
    run = work_until_finished(run)
    assert writers.outcomes([first.pk, run.pk]) == {"applied": 5, "stale": 1}
    assert undo.refused(run) == {2}
