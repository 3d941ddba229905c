"""Narrowed runs end to end: what they do is what runs that compare everything do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apps.engine.spec import CheckKind, CheckSpec, Severity
from apps.ledger.models import Change, Link, Rejection
from apps.ledger.selectors import link_batches
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import (
    UndoScope,
    cancel_run,
    narrowing,
    plan_undo,
    planning,
    request_run,
    two_way,
    work,
    work_until_finished,
)
from apps.sources.models import Source
from apps.sources.services import discover, save_source
from bench.scene import CUSTOMERS
from tests.platforms import PLAIN_FIELDS, Pair, TwoWayPair, lines
from tests.servers import postgresql_connection, postgresql_database

pytestmark = pytest.mark.django_db(transaction=True)
COUNTED = (
    *("read", "read_right", "left_out", "unchanged", "rejected", "conflicts", "warnings"),
    *("bytes_read", "planned_inserts", "planned_updates", "planned_deletes", "cursor_to"),
)
Narrowed = list[bool]


@pytest.fixture
def narrowed(monkeypatch: pytest.MonkeyPatch) -> Narrowed:
    """Narrow tables of any size; holds whether each plan over everything was narrowed."""
    done: Narrowed = []

    def watched(session: Any) -> Any:
        found = narrowing.narrow(session)
        done.append(found is not None)
        return found

    monkeypatch.setattr(narrowing, "FEWEST_ROWS", 10)
    monkeypatch.setattr(planning, "narrow", watched)
    monkeypatch.setattr(two_way, "narrow", watched)
    return done


@contextmanager
def between_the_reads(monkeypatch: pytest.MonkeyPatch, edit: Callable[[], None]) -> Iterator[None]:
    """Edit once, after the first read and before the second."""
    execute = narrowing._Scan.execute

    def edited(scan: Any) -> Any:
        found = execute(scan)
        edit()
        return found

    with monkeypatch.context() as patch:
        patch.setattr(narrowing._Scan, "execute", edited)
        yield


def outcome(run: Run) -> tuple[Any, ...]:
    """Counters, changes and rejections of a run."""
    changes = Change.objects.filter(run_id=run.pk).order_by("side", "left_key", "right_key")
    rejections = Rejection.objects.filter(run_id=run.pk).order_by("left_key", "code")
    return (
        {name: getattr(run, name) for name in COUNTED},
        [(c.operation, c.left_key, c.right_key, c.cause, c.images()) for c in changes],
        [(r.left_key, r.code, r.field, r.stage) for r in rejections],
        run.deletes_held_back,
    )


def both_ways(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> tuple[tuple[Any, ...], ...]:
    """The outcome of two dry runs: as it is, and without narrowing."""
    first = pair.run(mode=Run.Mode.DRY_RUN)
    found = outcome(first)  # now: the second run will count the same rejections as its own
    with monkeypatch.context() as patch:
        patch.setattr(narrowing, "FEWEST_ROWS", 10**9)
        second = pair.run(mode=Run.Mode.DRY_RUN)
    assert first.status == second.status, lines(first)
    return found, outcome(second)


def started(pair: Pair, count: int = 100) -> Pair:
    pair.add_customers(count)
    run = pair.run()
    assert (run.status, run.inserted) == ("succeeded", count), lines(run)
    return pair


def edit_a_bit(pair: Pair) -> None:
    pair.on_left("UPDATE customers SET name = 'New' WHERE id IN (7, 8)")
    pair.on_left("DELETE FROM customers WHERE id = 9")
    pair.on_left("INSERT INTO customers VALUES (500, 'Added', NULL, NULL, '2027-01-01 00:00:00')")
    pair.on_right("DELETE FROM clients WHERE client_id = 10")
    pair.on_right("INSERT INTO clients (client_id, full_name) VALUES (900, 'theirs')")


@pytest.mark.parametrize("fields", ["plain", "expressions"])
def test_a_run_finds_the_same_with_and_without(
    tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch, fields: str
) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS) if fields == "plain" else Pair(tmp_path)
    edit_a_bit(started(pair))
    with_it, without = both_ways(pair, monkeypatch)
    assert with_it == without
    assert narrowed == [True, False]
    run = pair.run()
    assert (run.status, run.updated, run.inserted, run.deleted) == ("succeeded", 2, 2, 1)
    again = pair.run()
    assert (again.planned, again.unchanged) == (0, 100), lines(again)
    assert narrowed[-2:] == [True, True]
    assert "Narrowed: 100 records are in step, 0 are looked at" in lines(again)


def test_checks_filters_and_rejections_count_the_same(
    tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = (
        CheckSpec(name="few", kind=CheckKind.RANGE, field="balance", maximum="90",
                  severity=Severity.WARN),
        CheckSpec(name="mail", kind=CheckKind.REQUIRED, field="mail"),
    )  # fmt: skip
    pair = started(Pair(tmp_path, checks=checks, facts={"filter": "id <> 50 AND id < 1000"}), 40)
    edit_a_bit(pair)
    pair.on_left("UPDATE customers SET id = 1001 WHERE id = 20")
    pair.on_left("UPDATE customers SET email = NULL WHERE id IN (11, 12)")
    pair.on_left("UPDATE customers SET name = NULL WHERE id = 13")
    with_it, without = both_ways(pair, monkeypatch)
    assert with_it == without
    assert narrowed[-2:] == [True, False]
    assert len(with_it[2]) == 4


def test_a_check_that_stops_stops(tmp_path: Path, narrowed: Narrowed) -> None:
    check = CheckSpec(name="mail", kind=CheckKind.REQUIRED, field="mail", severity="stop")
    pair = started(Pair(tmp_path, fields=PLAIN_FIELDS, checks=(check,)))
    pair.on_left("UPDATE customers SET email = NULL WHERE id = 5")
    run = pair.run()
    assert (run.status, run.cause_code) == ("failed", "check.stopped"), lines(run)
    assert len(pair.open_rejections()) == 1


def test_where_most_differs_everything_is_compared(tmp_path: Path, narrowed: Narrowed) -> None:
    pair = started(Pair(tmp_path, fields=PLAIN_FIELDS))
    pair.on_left("UPDATE customers SET name = name || '!' WHERE id > 10")
    run = pair.run()
    assert (run.updated, run.unchanged, run.read) == (90, 10, 100), lines(run)
    assert not any(narrowed)
    assert "Not narrowed (90 candidates)" in lines(run)


def test_unique_checks_see_everything(tmp_path: Path, narrowed: Narrowed) -> None:
    check = CheckSpec(name="one", kind=CheckKind.UNIQUE, field="balance")
    pair = started(Pair(tmp_path, fields=PLAIN_FIELDS, checks=(check,)))
    pair.on_left("UPDATE customers SET balance = 2.5 WHERE id = 5")
    assert pair.run().rejected == 2
    assert not any(narrowed)


def test_a_rejection_that_passes_is_resolved(tmp_path: Path, narrowed: Narrowed) -> None:
    check = CheckSpec(name="mail", kind=CheckKind.REQUIRED, field="mail")
    pair = started(Pair(tmp_path, fields=PLAIN_FIELDS, checks=(check,)))
    pair.on_left("UPDATE customers SET email = NULL WHERE id = 5")
    assert pair.run().rejected == 1
    assert pair.run().unchanged == 99  # its right record stays
    pair.on_left("UPDATE customers SET email = 'N5@Example.org' WHERE id = 5")
    run = pair.run()
    assert (run.status, run.unchanged) == ("succeeded", 100), lines(run)
    assert pair.open_rejections() == []
    assert narrowed == [True, True, True]


def test_cancelling_ends_the_first_read(
    tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = started(Pair(tmp_path, fields=PLAIN_FIELDS))
    run = request_run(pair.rule, actor=None)
    work(run.partitions.get().pk)
    monkeypatch.setattr(narrowing, "CHECK_SECONDS", 0.0)
    narrow = narrowing._Scan._narrower
    monkeypatch.setattr(
        narrowing._Scan,
        "_narrower",
        lambda scan, links: (cancel_run(run, actor=None), narrow(scan, links))[1],
    )
    run = work_until_finished(run)
    assert run.status == "cancelled", lines(run)


class TestWhatMovesBetweenTheReads:
    def test_a_key_that_moved_on_the_left_deletes_nothing(
        self, tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = started(Pair(tmp_path, fields=PLAIN_FIELDS))
        pair.on_left("UPDATE customers SET name = 'New' WHERE id = 7")
        move = "UPDATE customers SET id = 777 WHERE id = 7"
        with between_the_reads(monkeypatch, lambda: pair.on_left(move)):
            run = pair.run()
        assert (run.planned, run.status) == (0, "succeeded"), lines(run)
        run = pair.run()
        assert (run.inserted, run.deleted) == (1, 1), lines(run)
        assert narrowed == [True, True]

    def test_a_record_that_came_back_is_not_deleted(
        self, tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = started(Pair(tmp_path, fields=PLAIN_FIELDS))
        pair.on_left("DELETE FROM customers WHERE id = 7")
        back = "INSERT INTO customers VALUES (7, 'Back', 'n7@example.org', 7.5, NULL)"
        with between_the_reads(monkeypatch, lambda: pair.on_left(back)):
            run = pair.run()
        assert (run.updated, run.deleted) == (1, 0), lines(run)

    def test_a_right_record_that_appeared_meets_its_left_one(
        self, tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = started(Pair(tmp_path, fields=PLAIN_FIELDS))
        pair.add_customers(1, start=300)
        same = "INSERT INTO clients (client_id, full_name) VALUES (300, 'theirs')"
        with between_the_reads(monkeypatch, lambda: pair.on_right(same)):
            run = pair.run()
        assert (run.inserted, run.updated) == (0, 1), lines(run)

    def test_two_way_what_vanished_on_one_side_is_left_to_the_next_run(
        self, tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pair = started(TwoWayPair(tmp_path))
        pair.on_left("UPDATE customers SET name = 'New' WHERE id IN (7, 8)")
        gone = "DELETE FROM clients WHERE client_id = 8"
        with between_the_reads(monkeypatch, lambda: pair.on_right(gone)):
            run = pair.run()
        assert (run.updated, run.planned) == (1, 1), lines(run)
        assert len(pair.customers()) == 100


def test_two_way_finds_the_same_with_and_without(
    tmp_path: Path, narrowed: Narrowed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = started(TwoWayPair(tmp_path, facts={"policy": "ask"}))
    assert isinstance(pair, TwoWayPair)
    edit_a_bit(pair)
    pair.on_right("UPDATE clients SET balance = 5 WHERE client_id IN (7, 30, 31)")
    pair.on_left("UPDATE customers SET balance = 5 WHERE id = 31")
    pair.on_left("UPDATE customers SET balance = 6 WHERE id = 32")
    pair.on_right("UPDATE clients SET balance = 7 WHERE client_id = 32")
    with_it, without = both_ways(pair, monkeypatch)
    assert with_it == without
    assert narrowed == [False, True, False]
    run = pair.run()
    assert run.status == "succeeded", lines(run)
    (conflict,) = pair.conflicts()
    again = pair.run()
    assert (again.planned, again.conflicts) == (0, 1), lines(again)
    assert [c.pk for c in pair.conflicts()] == [conflict.pk]
    assert narrowed[-1]


@contextmanager
def postgresql_rule(count: int) -> Iterator[tuple[Rule, Callable[[str, str], None]]]:
    """A rule that copies all of `customers` between two databases; and a way to edit them."""
    with postgresql_database() as left, postgresql_database() as right:
        datasets = []
        for name, settings, rows in (("pg left", left, count), ("pg right", right, 0)):
            with postgresql_connection(settings) as connection:
                connection.execute(CUSTOMERS.ddl)
                connection.execute(CUSTOMERS.fill.replace("%(rows)s", str(rows)))
                connection.execute("ANALYZE customers")
            source = save_source(Source(name=name, connector="postgresql"), settings, actor=None)
            discover(source, actor=None)
            datasets.append(source.datasets.get(name="customers"))
        mapping = Mapping(name="customers", left=datasets[0], right=datasets[1])
        names = [item.name for item in datasets[0].fields.all()]
        save_mapping(mapping, [_copy(name) for name in names], ["id"], actor=None)
        rule = Rule(name="customers", mapping=mapping)
        save_rule(rule, (), actor=None)

        def edit(side: str, statement: str) -> None:
            with postgresql_connection(left if side == "left" else right) as connection:
                connection.execute(statement)

        yield rule, edit


def _copy(name: str) -> Any:
    return PLAIN_FIELDS[0].model_copy(update={"left": name, "right": name})


@pytest.mark.postgresql
def test_postgresql_tables_are_narrowed_within_each_partition(
    narrowed: Narrowed, settings: Any
) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 250}
    with postgresql_rule(1_000) as (rule, edit):
        first = work_until_finished(request_run(rule, actor=None))
        assert (first.status, first.inserted) == ("succeeded", 1_000), lines(first)
        edit("left", 'UPDATE customers SET tags = \'{"b": 1.0, "a": 2}\' WHERE id % 100 = 5')
        edit("left", "DELETE FROM customers WHERE id = 7")
        edit("right", "UPDATE customers SET score = NULL WHERE id = 700")
        narrowed.clear()
        run = work_until_finished(request_run(rule, actor=None))
        assert (run.updated, run.deleted, run.unchanged) == (11, 1, 988), lines(run)
        assert narrowed == [True] * run.partitions.filter(kind="records").count() != []
        assert work_until_finished(request_run(rule, actor=None)).unchanged == 999


def test_all_links_are_read_whatever_their_keys(tmp_path: Path) -> None:
    """On PostgreSQL they come by another way than rows do."""
    pair = Pair(tmp_path)
    keys = ['["1"]', '["a\\\\b","\\"q\\""]', '["\\u0000","é\u2028"]']
    made = [
        Link(
            rule_id=pair.rule.pk, run_id=pair.rule.pk, left_key=key, right_key=right,
            left_hash=bytes([n]) * 16, right_hash=bytes([n if right == key else 100 + n]) * 16,
            left_image=left_image, right_image=right_image, state=state,
        )
        for n, (key, right, left_image, right_image, state) in enumerate(
            (key, right, *rest)
            for key in keys
            for right, *rest in ((key, "a" * 32, "a" * 32, "live"), ('["x"]', "a" * 32, "", "held"))
        )
    ]  # fmt: skip
    Link.objects.bulk_create(made)
    found = [row for table in link_batches(pair.rule.pk) for row in table.to_pylist()]
    fields = ("left_key", "right_key", "left_image", "right_image", "state")
    expected = [{name: getattr(link, name) for name in fields} for link in made]
    assert sorted(map(str, found)) == sorted(map(str, expected))


def test_what_an_undo_holds_is_left_alone(tmp_path: Path, narrowed: Narrowed) -> None:
    """Also a right record whose left one is gone: only its link's state says that it stays."""
    pair = started(Pair(tmp_path, fields=PLAIN_FIELDS))
    edit_a_bit(pair)
    run = pair.run()
    scope = UndoScope(run_id=run.pk)
    undo = plan_undo(pair.rule, scope, actor=None, reason="a mistake", mode=Run.Mode.APPLY)
    undone = work_until_finished(undo)
    assert undone.status == "succeeded", lines(undone)
    again = pair.run()
    assert (again.planned, again.status) == (0, "succeeded"), lines(again)
    assert Link.objects.filter(state="held").count() == run.planned
    assert narrowed[-1]
