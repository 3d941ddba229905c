"""Runs in several partitions: what they do is what runs in one partition do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from apps.engine.spec import CheckKind, CheckSpec, FieldMappingSpec
from apps.ledger.selectors import link_count
from apps.runs.models import Partition, Run
from apps.runs.services import dispatching, request_run, work, work_until_finished
from tests.keyed_tables import AS_TEXT, KINDS, scene
from tests.platforms import PLAIN_FIELDS, Pair, TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def small(settings: Any) -> None:
    """Partitions of some 40 records."""
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 40}


def parts(run: Run) -> list[Partition]:
    return list(run.partitions.filter(kind="records", round=0).order_by("number"))


PLACES = [
    pytest.param("postgresql", marks=pytest.mark.postgresql),
    pytest.param("mariadb", marks=[pytest.mark.postgresql, pytest.mark.mariadb]),
]


@pytest.mark.parametrize(
    ("name", "server"),
    [
        *(pytest.param(name, "postgresql", marks=pytest.mark.postgresql) for name in KINDS),
        *(
            pytest.param(name, "mariadb", marks=[pytest.mark.postgresql, pytest.mark.mariadb])
            for name in ("text", "uuid", "composite", "integer kept as text")
        ),
    ],
)
def test_any_key_is_cut_and_nothing_is_lost_between_the_parts(name: str, server: str) -> None:
    keys = KINDS[name]
    with scene(keys, server) as made:
        first = made.run()
        assert (first.status, first.inserted) == ("succeeded", 200), lines(first)
        for n in (1, 77, 200):
            made.edit(made.on_left, n, "changed")
        for n in (2, 150):
            made.delete(made.on_left, n)
        for n in (201, 202):
            made.on_left(f"INSERT INTO t VALUES ({keys.value(n)}, 'new')")
        made.delete(made.on_right, 100)
        run = made.run()
        assert {part.cut for part in parts(run)} == {keys.cut}, (run.cut_reason, lines(run))
        assert 4 <= len(parts(run)) <= 6, run.cut_reason
        done = (run.status, run.inserted, run.updated, run.deleted, run.unchanged)
        assert done == ("succeeded", 3, 3, 2, 194), lines(run)
        assert made.run().planned == 0
        assert link_count(made.rule.pk) == 200


@pytest.mark.postgresql
@pytest.mark.parametrize("name", ["integer", "text"])
def test_parts_hold_about_equal_numbers_of_records(name: str) -> None:
    with scene(KINDS[name]) as made:
        made.run()
        run = made.run()
        assert [part.read for part in parts(run)] == [40] * 5, run.cut_reason


@pytest.mark.postgresql
@pytest.mark.parametrize("server", PLACES)
@pytest.mark.parametrize("name", ["integer", "text", "composite"])
def test_two_way_rules_merge_within_each_part(name: str, server: str) -> None:
    keys = KINDS[name]
    with scene(keys, server, two_way=True) as made:
        assert made.run().inserted == 200
        made.edit(made.on_left, 5, "left")
        made.edit(made.on_right, 120, "right")
        made.delete(made.on_left, 6)
        made.delete(made.on_right, 121)
        made.on_left(f"INSERT INTO t VALUES ({keys.value(201)}, 'new left')")
        made.on_right(f"INSERT INTO t VALUES ({keys.value(202)}, 'new right')")
        run = made.run()
        assert len(parts(run)) >= 4, (run.cut_reason, lines(run))
        assert (run.status, run.updated, run.deleted, run.inserted) == ("succeeded", 2, 2, 2), (
            lines(run)
        )
        assert (run.updated_left, run.deleted_left, run.inserted_left) == (1, 1, 1)
        assert made.run().planned == 0


@pytest.mark.postgresql
def test_a_key_kept_as_text_is_not_cut_both_ways() -> None:
    """The text '007' is the number 7: their hashes would differ."""
    with scene(AS_TEXT, two_way=True) as made:
        made.run()
        run = made.run()
        assert len(parts(run)) == 1
        assert "the key field 'a' is" in run.cut_reason


# What is torn apart by no cut, on SQLite


def one_part(run: Run) -> str:
    assert len(parts(run)) == 1, lines(run)
    return run.cut_reason


def test_sqlite_tables_are_cut_by_their_integer_keys(tmp_path: Path) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(100)
    pair.add_customers(20, start=1_000_001)
    assert pair.run().inserted == 120
    run = pair.run()
    assert [part.read for part in parts(run)] == [40, 40, 40], lines(run)
    assert run.cut_reason == "3 key ranges of about equal numbers of records"


def test_bytes_cut_as_rows_do(tmp_path: Path, settings: Any) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(100)
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 1_000}
    pair.run()
    assert "few enough" in one_part(pair.run())
    with pytest.MonkeyPatch.context() as patch:
        real = _describe_with(patch, size_bytes=6 * 2**20)
        settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_MB": 2}
        assert len(parts(pair.run())) == 3
        assert real


def _describe_with(patch: pytest.MonkeyPatch, **facts: Any) -> bool:
    from dataclasses import replace

    from apps.connectors.sqlite import SqliteConnector

    real = SqliteConnector.describe
    patch.setattr(
        SqliteConnector, "describe", lambda self, name: replace(real(self, name), **facts)
    )
    return True


def refused(pair: Pair) -> str:
    pair.add_customers(100)
    pair.run()
    return one_part(pair.run())


@pytest.mark.parametrize(
    ("facts", "checks", "reason"),
    [
        ({"delta": "checksum"}, (), "checksums find in one pass"),
        (
            {},
            (CheckSpec(name="mail", kind=CheckKind.UNIQUE, field="mail"),),
            "a check compares all records",
        ),
    ],
)
def test_what_looks_at_all_records_is_not_cut(
    tmp_path: Path, facts: dict[str, Any], checks: Sequence[CheckSpec], reason: str
) -> None:
    assert reason in refused(Pair(tmp_path, fields=PLAIN_FIELDS, facts=facts, checks=checks))


def test_a_cursor_rule_is_not_cut(tmp_path: Path) -> None:
    facts = {"delta": "cursor", "cursor_field": "changed"}
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, facts=facts)
    pair.add_customers(100)
    pair.run()
    run = pair.run(mode=Run.Mode.VERIFY)
    assert "the cursor of one part" in one_part(run)


def test_a_key_that_is_no_copy_is_not_cut(tmp_path: Path) -> None:
    shifted = FieldMappingSpec(right="client_id", to_right="id + 100")
    pair = Pair(tmp_path, fields=(shifted, *PLAIN_FIELDS[1:]))
    assert "not copies of each other" in refused(pair)


def test_records_that_refer_to_one_another_are_not_cut(tmp_path: Path) -> None:
    clients = """
        CREATE TABLE clients (client_id INTEGER PRIMARY KEY, full_name TEXT, mail TEXT,
            balance NUMERIC(10,2), head INTEGER REFERENCES clients (client_id))
    """
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, clients_sql=clients)
    assert "refer to one another" in refused(pair)


def test_unique_values_keep_a_two_way_rule_whole(tmp_path: Path) -> None:
    """Two edits on two sides may clash, which only a plan over both records sees."""
    assert "other fields than the key are unique" in refused(TwoWayPair(tmp_path))


def test_a_record_that_may_be_any_keeps_every_part_from_deleting(tmp_path: Path) -> None:
    """One part meets a record that it cannot read; the record that is gone is in another one."""
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, facts={"max_deletes_percent": None})
    pair.add_customers(100)
    pair.run()
    pair.on_left("DELETE FROM customers WHERE id = 5")
    pair.on_left("INSERT INTO customers (id, name, balance) VALUES (1000, 'n', 'unreadable')")
    run = pair.run()
    assert (run.deleted, run.status) == (0, "partial"), lines(run)
    assert "could not be read" in run.cut_reason
    assert len(parts(run)) == 1
    assert len(pair.clients()) == 100
    pair.on_left("DELETE FROM customers WHERE id = 1000")
    after = pair.run()
    assert (after.deleted, len(parts(after))) == (1, 3), lines(after)


# Fair with other runs


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The broker's queue, which the tests work off in its order."""
    messages: list[Any] = []
    monkeypatch.setattr(
        dispatching.current_app, "send_task", lambda name, args: messages.extend(args)
    )
    return messages


def work_off(queue: list[Any], until: Callable[[], bool]) -> int:
    """Work messages off until something holds; how many that were."""
    done = 0
    while not until():
        work(queue.pop(0))
        done += 1
    return done


def test_a_large_run_does_not_keep_a_small_one_waiting_for_its_end(
    tmp_path: Path, settings: Any, queue: list[Any]
) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 4, "RUN_WINDOW": 3}
    large = Pair(tmp_path, name="large", fields=PLAIN_FIELDS)
    large.add_customers(120)
    small = Pair(tmp_path, name="small", fields=PLAIN_FIELDS)
    small.add_customers(3)
    large.run()
    queue.clear()
    first = request_run(large.rule, actor=None)
    work(queue.pop(0))
    assert len(parts(first)) == 30
    assert len(queue) == 3
    other = request_run(small.rule, actor=None)

    def is_over() -> bool:
        other.refresh_from_db()
        return not other.is_active

    worked = work_off(queue, is_over)
    assert other.status == "succeeded", lines(other)
    assert worked <= 4 * 4, "at each of its four steps it stands behind the window of the large one"
    work_off(queue, lambda: not Run.objects.get(pk=first.pk).is_active)
    first.refresh_from_db()
    assert (first.status, first.unchanged) == ("succeeded", 120), lines(first)


def test_the_tick_sends_no_more_of_a_run_than_its_window(
    tmp_path: Path, settings: Any, queue: list[Any]
) -> None:
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": 4, "RUN_WINDOW": 3}
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(40)
    pair.run()
    queue.clear()
    run = request_run(pair.rule, actor=None)
    work(queue.pop(0))
    queue.clear()
    assert dispatching.redispatch_lost() == 0
    Partition.objects.filter(run=run).update(dispatched_at=None)
    assert dispatching.redispatch_lost() == 3
    assert len(queue) == 3
    assert work_until_finished(run).status == "succeeded"


def test_the_parts_of_a_two_way_run_write_one_at_a_time(tmp_path: Path, queue: list[Any]) -> None:
    from apps.runs.services.leasing import acquire

    plain = """
        CREATE TABLE clients (client_id INTEGER PRIMARY KEY, full_name TEXT, mail TEXT,
            balance NUMERIC(10,2))
    """
    pair = TwoWayPair(tmp_path, clients_sql=plain)
    pair.add_customers(100)
    pair.run()
    pair.on_left("UPDATE customers SET name = 'New'")
    queue.clear()
    run = request_run(pair.rule, actor=None)
    work_off(queue, lambda: Run.objects.get(pk=run.pk).status == "applying")
    ids = [part.pk for part in parts(run)]
    assert len(ids) == 3
    assert acquire(ids[0]) is not None
    assert acquire(ids[1]) is None
    assert Partition.objects.get(pk=ids[1]).place_wanted_at is not None
