"""Counters that both sides count at once: each difference counts once, whenever it comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from apps.engine.spec import FieldPolicy, FieldPolicySpec
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work, work_until_finished
from tests.platforms import TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> TwoWayPair:
    """One customer with a balance of 1.5 on both sides."""
    made = TwoWayPair(tmp_path)
    made.add_customers(1)
    policy = FieldPolicySpec(field="balance", policy=FieldPolicy.COUNTER)
    save_rule(made.rule, (), [policy], actor=None)
    assert made.run().inserted == 1
    return made


def add(pair: TwoWayPair, side: str, amount: int) -> None:
    if side == "left":
        pair.on_left(f"UPDATE customers SET balance = balance + {amount}")
    else:
        pair.on_right(f"UPDATE clients SET balance = balance + {amount}")


def run_with(pair: TwoWayPair, meanwhile: Callable[[], None]) -> Run:
    """A run; `meanwhile` happens between its plan and its first write."""
    run = request_run(pair.rule, actor=None)
    while run.status != "applying":
        for part in run.partitions.filter(state="to_plan"):
            work(part.pk)
        run.refresh_from_db()
    meanwhile()
    return work_until_finished(run)


def balances(pair: TwoWayPair) -> tuple[float, float]:
    return pair.customers()[0][3], pair.clients()[0][3]


@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_what_is_counted_to_the_planned_value_meanwhile_is_counted_too(
    pair: TwoWayPair, side: str, other: str
) -> None:
    add(pair, side, 3)
    run = run_with(pair, lambda: add(pair, other, 3))
    assert run.status == "succeeded", lines(run)
    pair.run()
    assert balances(pair) == (7.5, 7.5)


def test_a_merge_of_which_one_half_had_moved_counts_each_difference_once(pair: TwoWayPair) -> None:
    add(pair, "left", 3)
    add(pair, "right", 5)

    def both() -> None:
        add(pair, "left", 10)

    run = run_with(pair, both)
    add(pair, "right", 20)
    pair.run()
    pair.run()
    assert balances(pair) == (39.5, 39.5), lines(run)


def test_a_side_that_counts_on_between_both_halves_is_counted_once(pair: TwoWayPair) -> None:
    """The left half had moved three times over; both sides count on before the next run."""
    add(pair, "left", 3)
    add(pair, "right", 5)
    pair.on_left(
        "CREATE TRIGGER busy BEFORE UPDATE OF balance ON customers WHEN new.balance = 9.5 "
        "BEGIN SELECT RAISE(ABORT, 'busy'); END"
    )
    run = pair.run()
    assert balances(pair) == (4.5, 9.5), lines(run)
    pair.on_left("DROP TRIGGER busy")
    add(pair, "left", 10)
    add(pair, "right", 20)
    pair.run()
    assert balances(pair) == (39.5, 39.5)
