"""Two tables that are equal already: they are linked without a write, and merge from then on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from django.conf import settings

from apps.engine.spec import MatchFieldSpec, Normalisation
from apps.engine.types_sql import key_text
from apps.ledger.models import Link
from apps.ledger.selectors import change_groups, link_batches, link_count
from apps.ledger.services import Decision, edit_rejection
from apps.mappings.services import save_mapping
from apps.runs.services import (
    decide_and_sync,
    replay_rejections,
    request_run,
    two_way,
    work_until_finished,
)
from tests.invariants.crashes import Crash, forget_leases
from tests.platforms import PLAIN_FIELDS, TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)


def equal_tables(folder: Path, count: int, **facts: Any) -> TwoWayPair:
    pair = TwoWayPair(folder, facts=facts)
    pair.add_customers(count)
    for row in pair.customers():
        columns = "client_id, full_name, mail, balance"
        pair.on_right(f"INSERT INTO clients ({columns}) VALUES (?, ?, ?, ?)", *row)
    return pair


@pytest.fixture(params=["rows", "segments"])
def shelf(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the links go: a large first contact keeps them in segments."""
    shelf: str = request.param
    if shelf == "segments":
        monkeypatch.setitem(settings.LOCKSTEP, "LEDGER_ROWS_LIMIT", 0)
    return shelf


def test_edits_after_the_first_contact_of_equal_tables_flow_both_ways(
    tmp_path: Path, shelf: str
) -> None:
    pair = equal_tables(tmp_path, 3)
    first = pair.run()
    assert (first.status, first.planned) == ("succeeded", 0), lines(first)
    assert link_count(pair.rule.pk) == 3
    assert Link.objects.count() == (3 if shelf == "rows" else 0)
    assert change_groups(first.pk) == {}

    pair.on_left("UPDATE customers SET name = 'left' WHERE id = 1")
    pair.on_right("UPDATE clients SET full_name = 'right' WHERE client_id = 2")
    run = pair.run()
    assert (run.updated, run.updated_left, run.conflicts) == (2, 1, 0), lines(run)
    assert pair.customers() == pair.clients()
    assert [row[1].strip() for row in pair.clients()] == ["left", "right", "Name 3"]
    pair.on_left("DELETE FROM customers WHERE id = 3")
    run = pair.run()
    assert (run.deleted, link_count(pair.rule.pk)) == (1, 2), lines(run)


def test_a_first_contact_that_is_planned_again_links_each_record_once(
    tmp_path: Path, shelf: str
) -> None:
    pair = equal_tables(tmp_path, 4)
    run = request_run(pair.rule, actor=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(two_way, "store_gone", _dies)
        with pytest.raises(Crash):
            work_until_finished(run)
    assert link_count(pair.rule.pk) == 4  # they are stored, and the plan is not finished
    pair.on_left("UPDATE customers SET name = 'edited' WHERE id = 2")
    forget_leases()
    run = work_until_finished(run)
    assert (run.status, link_count(pair.rule.pk)) == ("succeeded", 4), lines(run)
    links = pa.concat_tables(list(link_batches(pair.rule.pk)))
    assert sorted(links.column("left_key").to_pylist()) == [f'["{n}"]' for n in range(1, 5)]
    assert pair.run().planned == 0
    assert pair.customers() == pair.clients()


def _dies(*_: Any) -> None:
    raise Crash


def test_a_field_that_waits_for_a_person_at_first_contact_has_no_base(
    tmp_path: Path, shelf: str
) -> None:
    pair = equal_tables(tmp_path, 3, first_contact="ask")
    pair.on_left("UPDATE customers SET balance = NULL")
    pair.on_right("UPDATE clients SET balance = NULL")
    pair.on_right("UPDATE clients SET balance = 7 WHERE client_id = 2")
    run = pair.run()
    assert (run.planned, run.conflicts) == (0, 1), lines(run)
    [conflict] = pair.conflicts()
    assert conflict.field_names == ["balance"]
    pair.on_right("UPDATE clients SET balance = NULL WHERE client_id = 2")
    pair.on_left("UPDATE customers SET balance = 9 WHERE id = 2")
    again = pair.run()  # no side has edited anything that both had agreed on
    assert (again.planned, again.conflicts) == (0, 1), lines(again)


def test_syncing_one_new_record_writes_no_other_one_although_all_are_read_to_match_it(
    tmp_path: Path,
) -> None:
    pair = TwoWayPair(tmp_path)
    by_mail = MatchFieldSpec(field="mail", normalise=(Normalisation.EMAIL,))
    save_mapping(pair.mapping, pair.fields, ["client_id"], [by_mail], actor=None)
    pair.add_customers(4)
    pair.run()
    pair.add_customers(2, start=50)
    pair.on_left("UPDATE customers SET name = 'later' WHERE id = 1")
    pair.on_left("DELETE FROM customers WHERE id = 2")
    run = pair.run(keys=[('["50"]', "")])
    assert (run.status, run.planned) == ("succeeded", 1), lines(run)
    assert (run.inserted, run.updated, run.deleted) == (1, 0, 0), lines(run)
    assert [row[0] for row in pair.clients()] == [1, 2, 3, 4, 50]
    assert pair.clients()[0][1] != "later"
    rest = pair.run()
    assert (rest.inserted, rest.updated, rest.deleted) == (1, 1, 1), lines(rest)
    assert pair.customers() == pair.clients()


def test_replaying_a_rejection_writes_no_other_record_although_all_are_read_to_match_it(
    tmp_path: Path,
) -> None:
    pair = TwoWayPair(tmp_path)
    by_mail = MatchFieldSpec(field="mail", normalise=(Normalisation.EMAIL,))
    save_mapping(pair.mapping, pair.fields, ["client_id"], [by_mail], actor=None)
    pair.add_customers(4)
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 4")
    assert pair.run().rejected == 1
    [rejection] = pair.open_rejections()
    record = rejection.record()
    assert record is not None
    edit_rejection(rejection, {**record, "name": "Mended"}, actor=None)
    pair.add_customers(1, start=50)
    pair.on_left("UPDATE customers SET name = 'later' WHERE id = 1")
    pair.on_left("DELETE FROM customers WHERE id = 2")
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (60, 'right')")
    [run] = replay_rejections([rejection], actor=None)
    work_until_finished(run)
    run.refresh_from_db()
    assert (run.status, run.planned, run.inserted) == ("succeeded", 1, 1), lines(run)
    assert [row[0] for row in pair.clients()] == [1, 2, 3, 4, 60]
    assert pair.clients()[3][1] == "Mended"
    assert pair.clients()[0][1] != "later"
    assert pair.open_rejections() == []


@pytest.mark.parametrize("decision", [Decision(match=key_text(["8"])), Decision(record="insert")])
def test_a_match_that_somebody_told_is_resolved_once_it_is_linked(
    tmp_path: Path, decision: Decision
) -> None:
    pair = TwoWayPair(tmp_path)
    by_name = [MatchFieldSpec(field="full_name")]
    save_mapping(pair.mapping, PLAIN_FIELDS, ["client_id"], by_name, actor=None)
    pair.on_left("INSERT INTO customers (id, name) VALUES (1, 'Same')")
    for number in (7, 8):
        pair.on_right(f"INSERT INTO clients (client_id, full_name) VALUES ({number}, 'Same')")
    pair.run()
    (conflict,) = pair.conflicts()
    decided = decide_and_sync({conflict.pk: conflict.seen}, decision, actor=None)
    run = work_until_finished(decided.runs[0])
    conflict.refresh_from_db()
    assert (conflict.state, conflict.resolved_run_id) == ("resolved", run.pk)
