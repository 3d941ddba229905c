"""What a run costs whatever its size: queries of the platform's database, and connections.

Numbers, never seconds. Where one of these fails for a good reason, raise it by what that needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.connectors.postgresql import connection as postgresql
from apps.engine.spec import FieldMappingSpec
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.selectors import dependencies
from apps.rules.services import publish, save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from apps.sources.models import Source
from apps.sources.services import discover, save_source
from tests.platforms import PLAIN_FIELDS, Pair, lines
from tests.servers import postgresql_connection, postgresql_database

pytestmark = pytest.mark.django_db(transaction=True)

CURSOR = {"delta": "cursor", "cursor_field": "changed", "cursor_lag_seconds": 0}
EDIT = "UPDATE customers SET name = name || '!', changed = '2027-01-01 00:00:0{}' WHERE id <= {}"
_TRANSACTIONS = ("BEGIN", "COMMIT", "SAVEPOINT", "RELEASE")
MOST_QUERIES = 160
"""Of the platform's database in an incremental run, from its request to its end."""


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    made = Pair(tmp_path, fields=PLAIN_FIELDS, facts=CURSOR)
    made.add_customers(60)
    assert made.run().inserted == 60
    return made


def edited(pair: Pair, number: int, records: int) -> tuple[Run, list[str]]:
    """A run after so many edits, and the statements that it took."""
    pair.on_left(EDIT.format(number, records))
    with CaptureQueriesContext(connection) as asked:
        run = pair.run()
    assert run.updated == records, lines(run)
    statements = [query["sql"] for query in asked.captured_queries]
    return run, [sql for sql in statements if not sql.startswith(_TRANSACTIONS)]


def test_an_incremental_run_asks_a_bounded_number_of_queries(pair: Pair) -> None:
    edited(pair, 1, 2)  # after which only these are of the cursor's last moment
    _, few = edited(pair, 2, 2)
    _, many = edited(pair, 3, 50)
    assert len(few) <= MOST_QUERIES, (len(few), _counted(few))
    assert len(many) == len(few), (_counted(few), _counted(many))


def test_a_run_looks_only_a_few_times_for_segments_with_links(pair: Pair) -> None:
    _, asked = edited(pair, 1, 20)
    looked = [sql for sql in asked if 'FROM "ledger_segment"' in sql and '"linked"' in sql]
    assert len(looked) <= 6, looked


def _counted(statements: list[str]) -> list[tuple[str, int]]:
    return Counter(statement[:80] for statement in statements).most_common(12)


def test_publishing_asks_the_same_however_many_rules_there_are(tmp_path: Path) -> None:
    first = Pair(tmp_path)
    with CaptureQueriesContext(connection) as alone:
        publish(first.rule, actor=None)
    for name in ("second", "third"):
        Pair(tmp_path, name=name)
    with CaptureQueriesContext(connection) as among_others:
        publish(first.rule, actor=None)
    assert len(among_others) == len(alone)


def test_rules_come_after_those_that_they_or_their_right_datasets_depend_on(
    tmp_path: Path,
) -> None:
    first, second, third = (Pair(tmp_path, name=name).rule for name in ("a", "b", "c"))
    second.depends_on.add(first)
    third.mapping.right.depends_on.add(second.mapping.right)
    chosen = list(Rule.objects.select_related("mapping"))
    with CaptureQueriesContext(connection) as asked:
        needs = dependencies(chosen)
    assert needs == {first.pk: set(), second.pk: {first.pk}, third.pk: {second.pk}}
    assert len(asked) == 2
    assert dependencies(chosen, declared_only=True)[third.pk] == set()
    assert dependencies([second, third]) == {second.pk: set(), third.pk: {second.pk}}


TABLE = "CREATE TABLE items (id int PRIMARY KEY, name text, changed timestamp)"
FILLED = "INSERT INTO items SELECT n, 'n' || n, '2026-01-01' FROM generate_series(1, 50) n"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many connections to PostgreSQL sources are made, by kind."""
    made: Counter[str] = Counter()
    connect, connect_reader = psycopg.connect, postgresql.AdbcConnection

    def counted(*args: Any, **options: Any) -> Any:
        made["catalog or writing"] += 1
        return connect(*args, **options)

    def counted_reader(database: Any) -> Any:
        made["reading"] += 1
        return connect_reader(database)

    monkeypatch.setattr(postgresql.psycopg, "connect", counted)
    monkeypatch.setattr(postgresql, "AdbcConnection", counted_reader)
    return made


@pytest.fixture
def postgresql_sides() -> Iterator[dict[str, dict[str, Any]]]:
    with postgresql_database() as left, postgresql_database() as right:
        sides = {"left": left, "right": right}
        for side, settings in sides.items():
            with postgresql_connection(settings) as database:
                database.execute(TABLE)
                if side == "left":
                    database.execute(FILLED)
        yield sides


def _rule(sides: dict[str, dict[str, Any]]) -> Rule:
    datasets = {}
    for side, settings in sides.items():
        source = save_source(Source(name=side, connector="postgresql"), settings, actor=None)
        discover(source, actor=None)
        datasets[side] = source.datasets.get()
    mapping = Mapping(name="items", left=datasets["left"], right=datasets["right"])
    fields = [FieldMappingSpec(right=name, left=name) for name in ("id", "name")]
    save_mapping(mapping, fields, ["id"], actor=None)
    rule = Rule(name="items", mapping=mapping, **CURSOR)
    save_rule(rule, (), actor=None)
    return rule


@pytest.mark.postgresql
def test_each_step_connects_once_for_reading_each_side(
    postgresql_sides: dict[str, dict[str, Any]], opened: Counter[str]
) -> None:
    rule = _rule(postgresql_sides)
    assert work_until_finished(request_run(rule, actor=None)).inserted == 50
    with postgresql_connection(postgresql_sides["left"]) as database:
        database.execute("UPDATE items SET name = 'x', changed = '2027-01-01' WHERE id < 9")
    opened.clear()
    run = work_until_finished(request_run(rule, actor=None))
    assert (run.updated, run.lane) == (8, Run.Lane.RECONCILE), lines(run)
    # Readers: the right side's first look; both sides to plan; the right side to verify. Catalogs:
    # the same, the left one in the first step as well, and the one that writes.
    assert opened == {"reading": 4, "catalog or writing": 6}
