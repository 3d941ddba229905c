"""A two-way run that crashes at any step completes with the same final state."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.ledger.models import Change
from apps.runs.services import request_run, work_until_finished
from tests.invariants.crashes import Crash, crash_at, forget_leases
from tests.platforms import TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)
STEPS = range(1, 90, 2)


def edited(pair: TwoWayPair) -> None:
    """Edits, new records and deletes on both sides; one record is edited on both."""
    pair.on_left("UPDATE customers SET name = 'left' WHERE id IN (1, 2)")
    pair.on_right("UPDATE clients SET balance = 9 WHERE client_id IN (2, 3)")
    pair.on_left("INSERT INTO customers (id, name, balance) VALUES (50, 'new left', 1)")
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (60, 'new right')")
    pair.on_left("DELETE FROM customers WHERE id = 4")
    pair.on_right("DELETE FROM clients WHERE client_id = 5")


@pytest.mark.parametrize("share", range(3))
def test_every_step_may_be_the_last_of_a_worker(tmp_path: Path, share: int) -> None:
    steps = STEPS[share::3]
    for step in steps:
        folder = tmp_path / str(step)
        folder.mkdir()
        if not survives(folder, step):
            break
    assert step > steps[0], "no step ever crashed"


def survives(folder: Path, step: int) -> bool:
    """Whether the run crashed at this step at all; it has completed in the end."""
    pair = TwoWayPair(folder, name=f"pair {step}")
    pair.add_customers(6)
    pair.run()
    edited(pair)
    run, crashed = request_run(pair.rule, actor=None), False
    try:
        with crash_at(step):
            work_until_finished(run)
    except Crash:
        crashed = True
        forget_leases()
    run = work_until_finished(run)
    assert run.status == "succeeded", lines(run)
    assert (run.inserted, run.updated, run.deleted) == (2, 4, 2), lines(run)
    assert pair.customers() == pair.clients()
    assert [row[0] for row in pair.customers()] == [1, 2, 3, 6, 50, 60]
    outcomes = Change.objects.filter(run_id=run.pk).values_list("outcome", flat=True)
    assert set(outcomes) == {"applied"}
    again = pair.run()
    assert (again.planned, again.conflicts) == (0, 0), lines(again)
    return crashed
