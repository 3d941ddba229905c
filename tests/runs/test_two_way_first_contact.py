"""Two tables that are equal already: they are linked without a write, and merge from then on."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.ledger.models import Link
from tests.platforms import TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)


def test_edits_after_the_first_contact_of_equal_tables_flow_both_ways(tmp_path: Path) -> None:
    pair = TwoWayPair(tmp_path)
    pair.add_customers(3)
    for row in pair.customers():
        columns = "client_id, full_name, mail, balance"
        pair.on_right(f"INSERT INTO clients ({columns}) VALUES (?, ?, ?, ?)", *row)
    first = pair.run()
    assert (first.status, first.planned, Link.objects.count()) == ("succeeded", 0, 3), lines(first)

    pair.on_left("UPDATE customers SET name = 'left' WHERE id = 1")
    pair.on_right("UPDATE clients SET full_name = 'right' WHERE client_id = 2")
    run = pair.run()
    assert (run.updated, run.updated_left, run.conflicts) == (2, 1, 0), lines(run)
    assert pair.customers() == pair.clients()
    assert [row[1].strip() for row in pair.clients()] == ["left", "right", "Name 3"]
