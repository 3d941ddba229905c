"""Rules with the delta method `checksum`: the same outcome as comparing everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apps.engine import checksum, delta_costs
from apps.ledger.models import Link
from apps.runs.models import Run
from apps.runs.services import checksumming
from tests.platforms import PLAIN_FIELDS, Pair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Two SQLite files, whose few records are compared by checksums whatever that costs."""

    def choose(*facts: Any, changed: int | None = None) -> delta_costs.Choice:
        choice = delta_costs.choose(*facts, changed=changed)
        return replace(choice, method=delta_costs.Method.CHECKSUM)

    monkeypatch.setattr(checksumming, "choose", choose)
    for module in (checksumming, checksum):
        monkeypatch.setattr(module, "SMALL_ROWS", 5)
    return Pair(tmp_path, fields=PLAIN_FIELDS, facts={"delta": "checksum"})


def was_compared_by_checksums(run: Run) -> bool:
    return "Checksums: " in lines(run)


def test_the_first_run_reads_and_the_next_ones_compare(pair: Pair) -> None:
    pair.add_customers(200)
    assert pair.run().inserted == 200
    run = pair.run()
    assert was_compared_by_checksums(run), lines(run)
    assert (run.status, run.planned, run.unchanged, run.read) == ("succeeded", 0, 200, 200)


def test_what_differs_is_planned_and_written(pair: Pair) -> None:
    pair.add_customers(200)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'New' WHERE id IN (7, 150)")
    pair.on_left("DELETE FROM customers WHERE id = 42")
    pair.on_left("INSERT INTO customers (id, name) VALUES (1000, 'Thousand')")
    pair.on_right("UPDATE clients SET full_name = 'theirs' WHERE client_id = 99")
    run = pair.run()
    assert was_compared_by_checksums(run), lines(run)
    assert (run.updated, run.deleted, run.inserted) == (3, 1, 1), lines(run)
    assert (run.unchanged, run.read) == (196, 200)
    assert pair.run().planned == 0
    assert Link.objects.count() == 200


def test_a_right_record_of_others_stays(pair: Pair) -> None:
    pair.add_customers(50)
    pair.run()
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (900, 'theirs')")
    run = pair.run()
    assert was_compared_by_checksums(run), lines(run)
    assert run.planned == 0
    assert 900 in [row[0] for row in pair.clients()]


def test_equal_records_without_a_link_are_read_once(pair: Pair) -> None:
    pair.add_customers(50)
    pair.run()
    Link.objects.filter(left_key='["7"]').delete()
    run = pair.run()
    assert "50 records are equal, but 49 are linked" in lines(run)
    assert Link.objects.count() == 50
    assert was_compared_by_checksums(pair.run())


def test_an_empty_source_is_refused(pair: Pair) -> None:
    pair.add_customers(50)
    pair.run()
    pair.on_left("DELETE FROM customers")
    run = pair.run()
    assert (run.status, run.cause_code) == ("refused", "guard.empty_source"), lines(run)
    assert len(pair.clients()) == 50


def test_a_rejection_that_is_corrected_on_either_side_resolves_itself(pair: Pair) -> None:
    pair.add_customers(50)
    pair.run()
    pair.on_left("UPDATE customers SET name = ? WHERE id = 5", "x" * 60)
    run = pair.run()
    assert (run.status, run.rejected) == ("partial", 1), lines(run)
    assert pair.run().rejected == 1
    pair.on_left("UPDATE customers SET name = 'Name 5' WHERE id = 5")
    run = pair.run()
    assert was_compared_by_checksums(run), lines(run)
    assert run.status == "succeeded"
    assert pair.open_rejections() == []


def test_a_verification_reads_values(pair: Pair) -> None:
    pair.add_customers(50)
    pair.run()
    run = pair.run(mode=Run.Mode.VERIFY)
    assert not was_compared_by_checksums(run)


def test_a_new_version_reads_everything_once(pair: Pair) -> None:
    pair.add_customers(50)
    pair.run()
    Run.objects.update(mode=Run.Mode.DRY_RUN)  # as if nothing of this version had been written
    assert "this version of the rule has no finished run yet" in lines(pair.run())


def test_few_records_are_read(pair: Pair) -> None:
    pair.add_customers(4)
    pair.run()
    assert "4 records are too few to be worth checksums" in lines(pair.run())


def test_an_expression_is_read(tmp_path: Path) -> None:
    pair = Pair(tmp_path, facts={"delta": "checksum"})
    pair.add_customers(20)
    pair.run()
    run = pair.run()
    assert "Both sides are read: field " in lines(run)
    assert (run.status, run.unchanged) == ("succeeded", 20)
