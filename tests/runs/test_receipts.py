"""What a target makes of values is never taken for an edit, though its worker is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from apps.engine.spec import FieldPolicy, FieldPolicySpec
from apps.ledger.models import Link, Receipt
from apps.ledger.services import Decision, decide
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from apps.runs.services.applying import PartitionApply
from apps.runs.services.leasing import Lease
from apps.sources.models import Source
from apps.sources.services import discover, save_source
from tests.invariants.crashes import Crash, forget_leases
from tests.platforms import PLAIN_FIELDS, TwoWayPair, lines
from tests.servers import postgresql_connection, postgresql_database

pytestmark = pytest.mark.django_db(transaction=True)

SHOUTS = """
    CREATE TRIGGER shouts AFTER UPDATE OF full_name ON clients
    BEGIN UPDATE clients SET full_name = upper(full_name) WHERE client_id = new.client_id; END
"""


def nothing() -> None:
    """Nobody does anything."""


def made(folder: Path, **facts: Any) -> TwoWayPair:
    """Three customers in step; the right side keeps names that are changed in capitals."""
    pair = TwoWayPair(folder, facts=facts)
    pair.add_customers(3)
    assert pair.run().inserted == 3
    pair.on_right(SHOUTS)
    return pair


def die_unsettled(patch: pytest.MonkeyPatch) -> None:
    """Workers die after their first batch is committed at the target, and before it is settled."""

    def settle(*_: Any) -> None:
        raise Crash

    patch.setattr(PartitionApply, "_settle", settle)


def die_uncommitted(patch: pytest.MonkeyPatch) -> None:
    """Workers die when the receipt of a batch is kept, and the batch is not committed yet."""

    def fence(_: Lease) -> None:
        if Receipt.objects.exists():
            raise Crash

    patch.setattr(Lease, "fence", fence)


def taken_over(
    pair: TwoWayPair,
    meanwhile: Callable[[], None] = nothing,
    die: Callable[[pytest.MonkeyPatch], None] = die_unsettled,
) -> Run:
    """A run whose worker dies; after `meanwhile` another one takes over."""
    run = request_run(pair.rule, actor=None)
    with pytest.MonkeyPatch.context() as patch:
        die(patch)
        with pytest.raises(Crash):
            work_until_finished(run)
    assert Receipt.objects.exists()
    forget_leases()
    meanwhile()
    run = work_until_finished(run)
    assert not Receipt.objects.exists()
    return run


def names(pair: TwoWayPair) -> list[tuple[str, str]]:
    return [(a[1], b[1]) for a, b in zip(pair.customers(), pair.clients(), strict=True)]


@pytest.mark.parametrize("policy", ["right", "ask", "left"])
@pytest.mark.parametrize("die", [die_unsettled, die_uncommitted])
def test_a_trigger_is_no_edit(
    tmp_path: Path, policy: str, die: Callable[[pytest.MonkeyPatch], None]
) -> None:
    pair = made(tmp_path, policy=policy)
    pair.on_left("UPDATE customers SET name = 'eve' WHERE id = 2")
    run = taken_over(pair, die=die)
    assert (run.status, run.updated, run.stale, run.conflicts) == ("succeeded", 1, 0, 0), lines(run)
    assert names(pair)[1] == ("eve", "EVE")
    again = pair.run()
    assert (again.planned, again.conflicts) == (0, 0), lines(again)
    assert [change.images()[1] for change in pair.changes(run)] == [{"full_name": "EVE"}]


def test_an_edit_after_the_lost_write_is_one(tmp_path: Path) -> None:
    pair = made(tmp_path, policy="ask")
    pair.on_left("UPDATE customers SET name = 'eve', email = 'eve@x.org' WHERE id = 2")
    edit = "UPDATE clients SET mail = 'other@x.org' WHERE client_id = 2"
    run = taken_over(pair, lambda: pair.on_right(edit))
    assert (run.updated, run.stale, run.conflicts) == (1, 0, 0), lines(run)
    again = pair.run()
    assert (again.updated_left, again.conflicts) == (1, 0), lines(again)
    assert names(pair)[1] == ("eve", "EVE")
    assert pair.customers()[1][2] == pair.clients()[1][2] == "other@x.org"


def test_what_cannot_be_told_loses_no_value(tmp_path: Path) -> None:
    pair = made(tmp_path, policy="ask")
    pair.on_left("UPDATE customers SET name = 'eve' WHERE id = 2")
    edit = "UPDATE clients SET full_name = 'ada' WHERE client_id = 2"
    taken_over(pair, lambda: pair.on_right(edit))
    [conflict] = pair.conflicts()
    assert (conflict.left or {})["full_name"] == "eve"
    assert (conflict.right or {})["full_name"] == "ADA"


def counting(folder: Path) -> TwoWayPair:
    return count(TwoWayPair(folder, facts={"policy": "left"}))


def count(pair: TwoWayPair) -> TwoWayPair:
    """One customer in step, whose balance is counted; two were added on the left."""
    pair.add_customers(1)
    policy = FieldPolicySpec(field="balance", policy=FieldPolicy.COUNTER)
    save_rule(pair.rule, (), [policy], actor=None)
    assert pair.run().inserted == 1
    pair.on_left("UPDATE customers SET balance = balance + 2")
    return pair


def test_a_counter_that_may_have_been_written_is_asked_about(tmp_path: Path) -> None:
    pair = counting(tmp_path)
    run = taken_over(pair, lambda: pair.on_right("UPDATE clients SET balance = balance + 1"))
    [conflict] = pair.conflicts()
    assert conflict.field_names == ["balance"], lines(run)
    assert ((conflict.left or {})["balance"], (conflict.right or {})["balance"]) == ("3.5", "4.5")
    again = pair.run()
    assert (again.planned, again.conflicts) == (0, 1), lines(again)


def test_a_counter_in_doubt_is_asked_about_though_both_sides_agree(tmp_path: Path) -> None:
    pair = counting(tmp_path)
    taken_over(pair, lambda: pair.on_right("UPDATE clients SET balance = balance + 1"))
    pair.on_left("UPDATE customers SET balance = balance + 1")
    run = pair.run()
    assert (run.planned, run.conflicts) == (0, 1), lines(run)
    [conflict] = pair.conflicts()
    decide(conflict, Decision(record="left"), seen=conflict.seen, actor=None)
    run = pair.run()
    assert (run.conflicts, pair.conflicts()) == (0, []), lines(run)
    pair.on_right("UPDATE clients SET balance = balance + 1")
    run = pair.run()
    assert run.conflicts == 0, lines(run)
    assert (pair.customers()[0][3], pair.clients()[0][3]) == (5.5, 5.5)


def test_a_counter_that_was_surely_not_written_counts_on(tmp_path: Path) -> None:
    """No receipt, no write: a worker that dies before leaves nothing in doubt."""
    pair = counting(tmp_path)
    run = request_run(pair.rule, actor=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartitionApply, "_write", _dies)
        with pytest.raises(Crash):
            work_until_finished(run)
    forget_leases()
    pair.on_right("UPDATE clients SET balance = balance + 2")  # to the very value that was planned
    work_until_finished(run)
    pair.run()
    assert (pair.customers()[0][3], pair.clients()[0][3]) == (5.5, 5.5)


def _dies(*_: Any) -> None:
    raise Crash


def test_a_record_whose_key_the_target_gave_is_found_though_a_trigger_altered_it(
    tmp_path: Path,
) -> None:
    pair = TwoWayPair(tmp_path, facts={"policy": "left"}, fields=PLAIN_FIELDS[1:])
    pair.on_right(SHOUTS.replace("UPDATE OF full_name", "INSERT"))
    pair.add_customers(2)
    run = taken_over(pair)
    assert (run.status, run.inserted) == ("succeeded", 2), lines(run)
    assert len(pair.clients()) == 2
    assert Link.objects.filter(rule_id=pair.rule.pk).count() == 2
    again = pair.run()
    assert (again.planned, again.conflicts) == (0, 0), lines(again)


class OnPostgresql(TwoWayPair):
    """The clients are in a PostgreSQL database, which remembers its transactions."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.settings = settings
        super().__init__(folder, facts={"policy": "left"})

    def right_source(self) -> Source:
        with postgresql_connection(self.settings) as connection:
            connection.execute(
                "CREATE TABLE clients (client_id bigint PRIMARY KEY, full_name text NOT NULL,"
                " mail text, balance numeric(10,2))"
            )
        values = {name: str(value) for name, value in self.settings.items()}
        made = Source(name=f"{self.name} right", connector="postgresql")
        source = save_source(made, values, actor=None)
        discover(source, actor=None)
        return source

    def on_right(self, sql: str, *values: Any) -> None:
        with postgresql_connection(self.settings) as connection:
            connection.execute(sql, values)

    def clients(self) -> list[tuple[Any, ...]]:
        with postgresql_connection(self.settings) as connection:
            sql = "SELECT client_id, full_name, mail, balance FROM clients ORDER BY client_id"
            return connection.execute(sql).fetchall()


@pytest.mark.postgresql
@pytest.mark.parametrize(
    ("die", "added"), [(die_unsettled, -2), (die_uncommitted, 2), (die_unsettled, 1)]
)
def test_a_target_that_remembers_its_transactions_leaves_no_counter_in_doubt(
    tmp_path: Path, die: Callable[[pytest.MonkeyPatch], None], added: int
) -> None:
    """Though somebody puts the record back to what it was, or to what was planned, meanwhile."""
    with postgresql_database() as settings:
        pair = OnPostgresql(tmp_path, settings)
        count(pair)
        edit = "UPDATE clients SET balance = balance + %s"
        run = taken_over(pair, lambda: pair.on_right(edit, added), die)
        pair.run()
        assert pair.conflicts() == [], lines(run)
        assert pair.customers()[0][3] == pair.clients()[0][3] == 3.5 + added
