"""Records that swap their unique values, or pass them on, get through in one run."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from apps.ledger.models import Change
from apps.runs.models import Run
from apps.runs.services import UndoScope, approve_run, plan_undo, work_until_finished
from apps.runs.services.writing import SideWriter
from tests.platforms import CLIENTS, PLAIN_FIELDS, Pair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """Four clients whose mail must be unique."""
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(4)
    pair.run()
    return pair


def give(pair: Pair, mails: dict[int, str], **more: Any) -> None:
    """New mail, and other new values of customer 1."""
    for number, mail in mails.items():
        pair.on_left("UPDATE customers SET email = ? WHERE id = ?", mail, number)
    for name, value in more.items():
        pair.on_left(f"UPDATE customers SET {name} = ? WHERE id = 1", value)


def expect_in_step(pair: Pair, run: Run) -> None:
    assert (run.rejected, run.stale) == (0, 0)
    with sqlite3.connect(pair.left_path) as database:
        sql = "SELECT id, name, email, balance FROM customers ORDER BY id"
        assert pair.clients() == list(database.execute(sql))
    database.close()
    assert pair.run().updated == 0


@pytest.mark.parametrize("more", [{}, {"name": "New name"}], ids=["same fields", "other fields"])
@pytest.mark.parametrize(
    "mails",
    [
        {1: "N2@Example.org", 2: "N1@Example.org"},
        {1: "N2@Example.org", 2: "N3@Example.org", 3: "N1@Example.org"},
        {1: "N2@Example.org", 2: "N3@Example.org", 3: "free@example.org"},
    ],
    ids=["swap", "circle", "chain"],
)
def test_values_are_passed_on_within_one_run(pair, mails, more):
    give(pair, mails, **more)
    run = pair.run()
    assert run.updated == len(mails)
    expect_in_step(pair, run)
    written = Change.objects.filter(run_id=run.pk, right_key='["1"]').get()
    assert sorted(written.field_names) == sorted({"mail", *(["full_name"] if more else [])})
    assert sorted(written.images()[1]) == sorted(written.field_names)


def test_a_record_writes_only_what_changes_in_it(pair):
    """The other one of a swap changes its name; nothing tells a trigger so of both."""
    pair.on_right("CREATE TABLE renamed (id INTEGER)")
    pair.on_right(
        "CREATE TRIGGER renames AFTER UPDATE OF full_name ON clients "
        "BEGIN INSERT INTO renamed VALUES (new.client_id); END"
    )
    give(pair, {1: "N2@Example.org", 2: "N1@Example.org"}, name="New name")
    expect_in_step(pair, pair.run())
    with sqlite3.connect(pair.right_path) as database:
        assert list(database.execute("SELECT id FROM renamed")) == [(1,)]
    database.close()


def test_a_part_of_a_key_is_passed_on_among_those_with_the_same_other_part(tmp_path):
    """Seventy lists of two, each of which swaps its places; the rule knows nothing of lists."""
    plain = CLIENTS.replace("mail TEXT UNIQUE", "mail TEXT")
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, clients_sql=plain)
    pair.add_customers(140)
    pair.on_left("UPDATE customers SET email = CASE id % 2 WHEN 0 THEN 'even' ELSE 'odd' END")
    pair.run()
    pair.on_right("UPDATE clients SET note = (client_id + 1) / 2")
    pair.on_right("CREATE UNIQUE INDEX place ON clients (note, mail)")
    pair.on_left("UPDATE customers SET email = CASE id % 2 WHEN 0 THEN 'odd' ELSE 'even' END")
    run = pair.run()
    assert run.updated == 140, lines(run)
    expect_in_step(pair, run)


def test_values_are_passed_on_between_partitions(tmp_path, settings):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 40}
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(120)
    pair.run()
    pair.on_right("INSERT INTO clients (client_id, full_name, mail) VALUES (999, 'X', 'taken')")
    give(pair, {1: "N119@Example.org", 119: "N1@Example.org", 60: "taken"}, name="New name")
    run = pair.run()
    assert run.partitions.exclude(cut="").count() > 1, run.cut_reason
    assert (run.updated, run.rejected, run.stale) == (2, 1, 0), lines(run)
    assert [rejection.code for rejection in pair.open_rejections()] == ["record.duplicate"]
    mails = {row[0]: row[2] for row in pair.clients()}
    assert [mails[n] for n in (1, 60, 119)] == [
        "N119@Example.org",
        "N60@Example.org",
        "N1@Example.org",
    ]


def test_values_are_passed_on_between_batches(pair, monkeypatch):
    monkeypatch.setattr(SideWriter, "batch_rows", 2)
    give(pair, {1: "N4@Example.org", 3: "new@Example.org", 4: "N1@Example.org"})
    run = pair.run()
    assert (run.updated, run.replanned) == (3, 2), lines(run)
    expect_in_step(pair, run)


def test_a_plan_that_a_person_approves_holds_who_passes_values_on_together(tmp_path, settings):
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 40}
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(120)
    pair.run()
    give(pair, {1: "N119@Example.org", 119: "N1@Example.org"})
    run = pair.run(asks_approval=True)
    assert run.status == "waiting", lines(run)
    approve_run(run, actor=None)
    run = work_until_finished(run)
    assert (run.updated, run.replanned) == (2, 0), lines(run)
    expect_in_step(pair, run)


def test_a_swap_is_undone_like_any_other_change(pair):
    before = pair.clients()
    give(pair, {1: "N2@Example.org", 2: "N1@Example.org"}, name="New name")
    run = pair.run()
    scope = UndoScope(run_id=run.pk)
    undone = work_until_finished(
        plan_undo(pair.rule, scope, actor=None, reason="oops", mode=Run.Mode.APPLY)
    )
    assert (undone.updated, undone.rejected, undone.stale) == (2, 0, 0)
    assert pair.clients() == before


def test_a_value_that_is_truly_taken_is_a_rejection_and_costs_nothing_else(pair):
    pair.on_right("INSERT INTO clients (client_id, full_name, mail) VALUES (99, 'X', 'taken')")
    give(pair, {1: "N2@Example.org", 2: "N1@Example.org", 3: "taken"}, balance="7.25")
    run = pair.run()
    assert (run.updated, run.rejected) == (2, 1)
    assert [rejection.code for rejection in pair.open_rejections()] == ["record.duplicate"]
    assert [row[2] for row in pair.clients()][:3] == [
        "N2@Example.org",
        "N1@Example.org",
        "N3@Example.org",
    ]
