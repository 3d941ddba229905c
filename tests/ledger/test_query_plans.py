"""What support staff ask is an index read, on SQLite and on PostgreSQL.

The tables hold little here, so PostgreSQL is told not to read whole tables where it need not; what
it still reads whole has no index that helps.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.core.clock import now
from apps.core.keys.subjects import blind_index
from apps.encryption.services.traces import traces_of_erased
from apps.ledger import selectors
from apps.ledger.segments import writing
from apps.ledger.selectors import former_values
from apps.ledger.selectors.keys import key_hash
from apps.ledger.selectors.link_rows import links_of_hashes
from apps.ledger.selectors.words import token
from apps.ledger.services import WorkIdentity, store_links
from tests.ledger.plans import key, work
from tests.ledger.test_segments import mixed, settle_all, stored
from tests.on_postgresql import again_on_postgresql

pytestmark = pytest.mark.django_db

LARGE = (
    "ledger_change",
    "ledger_formervalue",
    "ledger_segmentcontent",
    "ledger_segmentkeys",
    "ledger_segmentpart",
)
SINCE = now() - timedelta(days=1)

Question = Callable[[WorkIdentity], Any]
QUESTIONS: dict[str, Question] = {
    "one record's life": lambda w: selectors.record_changes(
        [w.rule_id], left_key=key(17), right_key=key(17)
    ),
    "a page of a run": lambda w: selectors.change_page(w.run_id, operation="update", limit=5),
    "a record in a run": lambda w: selectors.change_page(w.run_id, search_key="17"),
    "counts of a run": lambda w: selectors.change_groups(w.run_id),
    "a field between two dates": lambda w: selectors.changes_of_field(
        w.rule_id, "mail", SINCE, SINCE + timedelta(days=2)
    ),
    "one change": lambda w: selectors.change_by_id(selectors.change_page(w.run_id)[0].pk),
    "changes by their ids": lambda w: selectors.changes_by_id(
        [change.pk for change in selectors.change_page(w.run_id)]
    ),
    "who had a value": lambda w: former_values._changes_with(
        [w.rule_id, uuid4()], frozenset({"maria", "lopez", "example"})
    ),
    "who of these had another word": lambda w: former_values._with_all(
        [token("lopez")], [(SINCE, 3), (SINCE, 2)]
    ),
    "whose value that was is erased": lambda w: [
        list(rows) for rows in traces_of_erased([blind_index(w.rule_id, "1")])
    ],
    "the plan": lambda w: selectors.planned_changes(w.partition_id, 0, 5),
}


@pytest.fixture(params=["rows", "segments"])
def shelf(request, monkeypatch) -> WorkIdentity:
    """A settled plan on one of the shelves."""
    monkeypatch.setattr(writing, "SEGMENT_ROWS", 40)
    limit = 50_000 if request.param == "rows" else 0
    monkeypatch.setitem(settings.LOCKSTEP, "LEDGER_ROWS_LIMIT", limit)
    mine = work()
    stored(mine, mixed())
    settle_all(mine)
    return mine


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_reads_a_large_table_whole(shelf, question):
    with CaptureQueriesContext(
        connection,
    ) as queries:
        QUESTIONS[question](shelf)

    asked = [query["sql"] for query in queries if any(name in query["sql"] for name in LARGE)]
    assert asked
    for sql in asked:
        assert not whole_reads(explained(sql)), (sql, explained(sql))


def test_changes_in_segments_are_found_in_one_query(shelf):
    ids = [change.pk for change in selectors.change_page(shelf.run_id)]
    with CaptureQueriesContext(connection) as queries:
        found = selectors.changes_by_id(ids)
    assert [change.pk for change in found] == ids
    asked = [q["sql"] for q in queries if 'FROM "ledger_segmentpart"' in q["sql"]]
    assert len(asked) <= 1


def test_the_check_sees_a_table_that_is_read_whole(shelf):
    assert whole_reads(explained("SELECT * FROM ledger_change WHERE image = 'x'"))
    if connection.vendor == "postgresql":  # also by a walk through the primary key
        with connection.cursor() as cursor:
            cursor.execute("SET LOCAL enable_sort = off")
        sql = "SELECT * FROM ledger_change WHERE image = 'x' ORDER BY id LIMIT 1"
        assert whole_reads(explained(sql))


def test_links_are_looked_up_by_their_keys_before_anything_is_known_of_the_table():
    """Of a rule's first large run: nobody has counted its links yet."""
    mine = work()
    pairs = [(key(number), key(number), "") for number in range(20_000)]
    store_links(mine, pairs, first_links=True)
    hashes = [key_hash(key(number)) for number in range(500)]
    with CaptureQueriesContext(connection) as queries:
        assert len(list(links_of_hashes(mine.rule_id, "left", hashes))) == 500
    for query in queries:
        plan = "\n".join(explained(query["sql"]))
        condition = "rule_id=? AND left_hash=?" if connection.vendor == "sqlite" else "(left_hash ="
        assert "link_by_left" in plan, plan
        assert condition in plan, plan


def explained(sql: str) -> list[str]:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL enable_seqscan = off")
            cursor.execute(f"EXPLAIN {sql}")
            return [row[0] for row in cursor.fetchall()]
        cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
        return [row[3] for row in cursor.fetchall()]


def whole_reads(plan: list[str]) -> list[str]:
    """The lines that say that a large table is read from one end to the other."""
    if connection.vendor != "postgresql":
        return [line for line in plan if line.startswith(tuple(f"SCAN {n}" for n in (*LARGE, "k")))]
    return [
        line
        for line, below in zip(plan, [*plan[1:], ""], strict=True)
        if any(f" on {name} " in line for name in LARGE)
        and ("Seq Scan" in line or ("Index" in line and "Index Cond" not in below))
        and "Bitmap Heap" not in line
    ]


@pytest.mark.postgresql
@pytest.mark.skipif(connection.vendor == "postgresql", reason="the tests run on it already")
def test_all_of_this_holds_on_postgresql():
    """With the shelves, settling, conflicts and compaction: they are what this database is for."""
    names = ("query_plans", "segments", "settling", "conflicts", "compaction")
    files = [f"tests/ledger/test_{name}.py" for name in names]

    done = again_on_postgresql("ledger", *files, "-k", "not on_postgresql")

    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
