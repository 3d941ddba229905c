"""First runs into empty PostgreSQL tables: one pass, one transaction, nothing half done."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from django.urls import reverse

from apps.connectors.base import LoadRefused
from apps.connectors.postgresql.loading import PostgresqlLoadSession
from apps.engine.spec import CheckKind, CheckSpec, FieldMappingSpec, Severity
from apps.ledger.models import Change, Link, Rejection, Segment
from apps.ledger.selectors import change_counts, change_page, link_count, links_named
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Partition, Run
from apps.runs.services import UndoScope, approve_run, plan_undo, request_run, work_until_finished
from apps.runs.services import loading as loads
from apps.sources.models import Source
from apps.sources.services import discover, save_source
from tests.people import administrator, signed_in
from tests.platforms import lines
from tests.servers import postgresql_database

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.postgresql]

PEOPLE = """
    CREATE TABLE people (
        id bigint PRIMARY KEY, name text, email varchar(60), balance numeric(10,2),
        seen timestamptz, tags jsonb, token uuid
    )
"""
CLIENTS = """
    CREATE TABLE clients (
        client_id bigint PRIMARY KEY, full_name text, mail text, balance numeric(12,2),
        seen timestamptz, tags jsonb, token uuid, note text DEFAULT 'own'
    )
"""
COPIES = tuple(
    FieldMappingSpec(right=right, left=left)
    for right, left in (
        ("client_id", "id"), ("full_name", "name"), ("mail", "email"), ("balance", "balance"),
        ("seen", "seen"), ("tags", "tags"), ("token", "token"),
    )
)  # fmt: skip
WITH_EXPRESSION = tuple(
    FieldMappingSpec(right="mail", to_right="lower(email)") if field.right == "mail" else field
    for field in COPIES
)
ROWS = 300


@dataclass
class Databases:
    """People on the left, clients on the right, both in PostgreSQL."""

    left: dict[str, Any]
    right: dict[str, Any]
    rule: Rule | None = None

    def on(self, side: str, sql: str) -> list[tuple[Any, ...]]:
        values = getattr(self, side)
        info = {"dbname": values["database"], "password": values.get("password")}
        info |= {name: values[name] for name in ("host", "port", "user")}
        with psycopg.connect(**info, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def fill(self, count: int = ROWS) -> None:
        self.on(
            "left",
            "INSERT INTO people SELECT n, CASE WHEN n % 7 = 0 THEN NULL ELSE 'Name ' || n END, "
            "'N' || n || '@Example.org', n / 4.0, "
            "timestamptz '2026-01-01 00:00Z' + n * interval '1 second', "
            "jsonb_build_object('n', n), md5(n::text)::uuid "
            f"FROM generate_series(1, {count}) AS n",
        )

    def make_rule(
        self,
        fields: tuple[FieldMappingSpec, ...] = COPIES,
        checks: tuple[CheckSpec, ...] = (),
        **facts: Any,
    ) -> Rule:
        datasets = []
        for side, table in (("left", "people"), ("right", "clients")):
            source = Source(name=side, connector="postgresql")
            source = save_source(source, getattr(self, side), actor=None)
            discover(source, actor=None)
            datasets.append(source.datasets.get(name=table))
        mapping = Mapping(name="people", left=datasets[0], right=datasets[1])
        save_mapping(mapping, fields, ["client_id"], actor=None)
        self.rule = Rule(name="people", mapping=mapping, **facts)
        save_rule(self.rule, checks, actor=None)
        return self.rule

    def run(self, **options: Any) -> Run:
        assert self.rule is not None
        return work_until_finished(request_run(self.rule, actor=None, **options))

    def equal(self, mail: str = "email") -> bool:
        columns = "{0}, {1}, {2}, balance, seen, tags, token"
        left = self.on("left", f"SELECT id, name, {mail}, balance, seen, tags, token FROM people")
        names = columns.format("client_id", "full_name", "mail")
        right = self.on("right", f"SELECT {names} FROM clients")
        return sorted(map(repr, left)) == sorted(map(repr, right))


@pytest.fixture
def databases() -> Iterator[Databases]:
    with postgresql_database() as left, postgresql_database() as right:
        made = Databases(left, right)
        made.on("left", PEOPLE)
        made.on("right", CLIENTS)
        yield made


def assert_loaded(databases: Databases, run: Run, lane: str, count: int = ROWS) -> None:
    assert run.status == "succeeded", lines(run)
    assert run.lane == lane, lines(run)
    assert (run.read, run.inserted, run.planned_inserts) == (count, count, count)
    assert change_counts(run.pk) == {("insert", "applied"): count}
    assert link_count(run.rule_id) == count
    assert not Link.objects.exists()
    assert not Change.objects.exists()


def test_copies_are_relayed(databases):
    databases.fill()
    databases.make_rule()
    run = databases.run()
    assert_loaded(databases, run, "relay")
    assert databases.equal()
    assert run.bytes_read > 10_000
    assert "every field is a copy" in run.lane_reason
    assert databases.run().unchanged == ROWS


def test_expressions_are_streamed(databases):
    databases.fill()
    databases.make_rule(WITH_EXPRESSION)
    run = databases.run()
    assert_loaded(databases, run, "stream")
    assert databases.equal("lower(email)")
    (change,) = change_page(run.pk, search_key="17")
    assert change.images()[1]["mail"] == "n17@example.org"
    again = databases.run()
    assert (again.planned, again.unchanged) == (0, ROWS), lines(again)


def test_one_edit_moves_one_record_after_a_load(databases):
    databases.fill()
    databases.make_rule()
    databases.run()
    databases.on("left", "UPDATE people SET name = 'New' WHERE id = 17")
    databases.on("left", "DELETE FROM people WHERE id = 18")
    databases.on("right", "INSERT INTO clients (client_id) VALUES (9999)")
    run = databases.run()
    assert (run.updated, run.deleted, run.inserted) == (1, 1, 0), lines(run)
    assert databases.on("right", "SELECT count(*) FROM clients") == [(ROWS,)]
    assert link_count(run.rule_id) == ROWS - 1
    assert databases.run().planned == 0


def test_rejected_records_stay_out_of_a_stream(databases):
    databases.fill()
    check = CheckSpec(
        name="has a name", kind=CheckKind.REQUIRED, field="full_name", severity=Severity.REJECT
    )
    databases.make_rule(checks=(check,))
    run = databases.run()
    assert run.status == "partial"
    assert run.lane == "stream"
    assert run.rejected == ROWS // 7 == Rejection.objects.count()
    assert run.inserted == ROWS - ROWS // 7 == link_count(run.rule_id)


def test_a_value_that_the_target_refuses_is_found_record_by_record(databases):
    databases.fill()
    databases.on("right", "ALTER TABLE clients ADD CHECK (full_name <> 'Name 20')")
    databases.make_rule()
    run = databases.run()
    assert run.status == "partial", lines(run)
    assert run.lane == "stream"
    assert (run.inserted, run.rejected) == (ROWS - 1, 1), lines(run)
    assert "record by record" in Run.objects.get(pk=run.pk).lane_reason
    assert link_count(run.rule_id) == ROWS - 1
    assert databases.on("right", "SELECT count(*) FROM clients") == [(ROWS - 1,)]


def test_two_records_with_one_key_are_found_by_the_old_way(databases):
    databases.on("left", "ALTER TABLE people DROP CONSTRAINT people_pkey")
    databases.fill(10)
    databases.on("left", "INSERT INTO people (id) VALUES (3)")
    databases.make_rule()
    rule = databases.rule
    dataset = rule.mapping.left
    dataset.key = ["id"]
    dataset.save()
    save_mapping(rule.mapping, COPIES, ["client_id"], actor=None)
    run = databases.run()
    assert run.rejected == 2, lines(run)
    assert databases.on("right", "SELECT count(*) FROM clients") == [(9,)]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("INSERT INTO clients (client_id) VALUES (1000)", ""),
        (
            "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON clients "
            "FOR EACH ROW EXECUTE FUNCTION nothing()",
            "trigger",
        ),
    ],
)
def test_a_target_that_is_not_empty_or_acts_is_not_loaded(databases, sql, reason):
    databases.fill()
    databases.on("right", sql)
    databases.make_rule()
    run = databases.run()
    assert run.status == "succeeded", lines(run)
    assert run.inserted == ROWS
    assert run.lane == ("stream" if reason else "reconcile")
    assert reason in run.lane_reason


def test_a_plan_that_waits_for_approval_is_not_loaded(databases):
    databases.fill()
    databases.make_rule(approval="always")
    run = databases.run()
    assert run.status == "waiting", lines(run)
    assert databases.on("right", "SELECT count(*) FROM clients") == [(0,)]
    approve_run(Run.objects.get(pk=run.pk), actor=None)
    run = work_until_finished(run)
    assert run.inserted == ROWS
    assert databases.equal()


def test_a_guard_takes_the_load_back(databases):
    databases.fill()
    check = CheckSpec(
        name="has a name", kind=CheckKind.REQUIRED, field="full_name", severity=Severity.REJECT
    )
    databases.make_rule(checks=(check,), max_rejections=3)
    run = databases.run()
    assert run.status == "refused", lines(run)
    assert databases.on("right", "SELECT count(*) FROM clients") == [(0,)]
    assert link_count(run.rule_id) == 0


def test_a_guard_that_lets_a_person_decide_keeps_the_plan(databases):
    databases.fill()
    check = CheckSpec(
        name="has a name", kind=CheckKind.REQUIRED, field="full_name", severity=Severity.REJECT
    )
    databases.make_rule(checks=(check,), max_rejections=3, approval="guard")
    run = databases.run()
    assert run.status == "waiting", lines(run)
    assert databases.on("right", "SELECT count(*) FROM clients") == [(0,)]
    approve_run(Run.objects.get(pk=run.pk), actor=None)
    run = work_until_finished(run)
    assert run.inserted == ROWS - ROWS // 7, lines(run)
    assert link_count(run.rule_id) == run.inserted


def killed_at_commit(monkeypatch, *, after: bool) -> None:
    """The worker is lost right before, or right after, the target commits; once."""
    commit = PostgresqlLoadSession.commit
    lost = []

    def dying(session: PostgresqlLoadSession, fence: Any) -> None:
        if lost:
            commit(session, fence)
            return
        lost.append(True)
        if after:
            commit(session, fence)
        raise KeyboardInterrupt

    monkeypatch.setattr(PostgresqlLoadSession, "commit", dying)


@pytest.mark.parametrize("fields", [COPIES, WITH_EXPRESSION], ids=["relay", "stream"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_worker_lost_at_the_commit_loses_and_doubles_nothing(
    databases, monkeypatch, fields, after
):
    databases.fill()
    databases.make_rule(fields)
    killed_at_commit(monkeypatch, after=after)
    run = request_run(databases.rule, actor=None)
    with pytest.raises(KeyboardInterrupt):
        work_until_finished(run)
    Partition.objects.filter(run=run).update(lease_until=None)
    run = work_until_finished(Run.objects.get(pk=run.pk))
    assert run.status == "succeeded", lines(run)
    assert run.inserted == ROWS, lines(run)
    assert change_counts(run.pk) == {("insert", "applied"): ROWS}
    assert link_count(run.rule_id) == ROWS
    assert databases.on("right", "SELECT count(*) FROM clients") == [(ROWS,)]
    assert databases.run().planned == 0


def test_a_worker_lost_in_the_middle_leaves_nothing(databases, monkeypatch):
    databases.fill()
    databases.make_rule()
    conclude = loads.RelayLoad.conclude
    lost: list[bool] = []

    def dying(self: Any, *arguments: Any) -> None:
        if not lost:
            lost.append(True)
            raise KeyboardInterrupt
        conclude(self, *arguments)

    monkeypatch.setattr(loads.RelayLoad, "conclude", dying)
    run = request_run(databases.rule, actor=None)
    with pytest.raises(KeyboardInterrupt):
        work_until_finished(run)
    assert databases.on("right", "SELECT count(*) FROM clients") == [(0,)]
    Partition.objects.filter(run=run).update(lease_until=None)
    run = work_until_finished(Run.objects.get(pk=run.pk))
    assert_loaded(databases, run, "relay")
    assert Segment.objects.count() == 1


def test_a_relay_that_somebody_overtook_is_compared(databases, monkeypatch):
    databases.fill()
    databases.make_rule()
    killed_at_commit(monkeypatch, after=False)
    run = request_run(databases.rule, actor=None)
    with pytest.raises(KeyboardInterrupt):
        work_until_finished(run)
    databases.on("right", "INSERT INTO clients (client_id, note) VALUES (17, 'mine')")
    Partition.objects.filter(run=run).update(lease_until=None)
    run = work_until_finished(Run.objects.get(pk=run.pk))
    assert run.status == "succeeded", lines(run)
    assert (run.inserted, run.updated) == (ROWS - 1, 1), lines(run)
    assert databases.on("right", "SELECT note FROM clients WHERE client_id = 17") == [("mine",)]
    assert databases.equal()


def test_the_stream_takes_over_what_a_relay_cannot_do(databases, monkeypatch):
    databases.fill()
    databases.make_rule()

    def refuse(self: Any, chunks: Any) -> None:
        raise LoadRefused("the target altered a value")

    monkeypatch.setattr(PostgresqlLoadSession, "relay", refuse)
    run = databases.run()
    assert_loaded(databases, run, "stream")
    assert "altered a value" in run.lane_reason
    assert databases.equal()


@pytest.mark.parametrize("fields", [COPIES, WITH_EXPRESSION], ids=["relay", "stream"])
def test_a_load_is_undone_but_for_what_was_edited_since(databases, fields):
    databases.fill()
    databases.make_rule(fields)
    run = databases.run()
    databases.on("right", "UPDATE clients SET mail = 'edited' WHERE client_id IN (5, 6)")
    databases.on("left", "DELETE FROM people WHERE id = 8")
    scope = UndoScope(run_id=run.pk)
    undo = plan_undo(databases.rule, scope, actor=None, reason="no", mode=Run.Mode.APPLY)
    undo = work_until_finished(undo)
    relayed = run.lane == "relay"
    assert undo.deleted == ROWS - 2 - relayed, lines(undo)
    assert undo.stale == 2 + relayed, lines(undo)
    left = databases.on("right", "SELECT client_id FROM clients ORDER BY 1")
    assert left == ([(5,), (6,), (8,)] if relayed else [(5,), (6,)])


def test_a_two_way_rule_begins_with_a_load(databases):
    databases.fill()
    databases.make_rule(direction="two_way", first_contact="left")
    run = databases.run()
    assert_loaded(databases, run, "stream")
    (link,) = links_named(run.rule_id, left_key='["17"]')
    left, right = link.base()
    assert left == right
    assert '"mail":"N17@Example.org"' in (left or "")
    databases.on("left", "UPDATE people SET name = 'From left' WHERE id = 17")
    databases.on("right", "UPDATE clients SET mail = 'right@example.org' WHERE client_id = 17")
    databases.on("right", "DELETE FROM clients WHERE client_id = 20")
    run = databases.run()
    assert run.status == "succeeded", lines(run)
    assert databases.on("right", "SELECT full_name, mail FROM clients WHERE client_id = 17") == [
        ("From left", "right@example.org")
    ]
    assert databases.on("left", "SELECT name, email FROM people WHERE id = 17") == [
        ("From left", "right@example.org")
    ]
    assert databases.on("left", "SELECT count(*) FROM people WHERE id = 20") == [(0,)]
    assert databases.run().planned == 0
    assert databases.equal()


def test_after_a_relay_a_cursor_rule_reads_on_from_the_greatest_cursor(databases):
    databases.fill(20)
    databases.make_rule(delta="cursor", cursor_field="seen")
    first = databases.run()
    assert (first.status, first.lane) == ("succeeded", "relay"), lines(first)
    assert first.cursor_to == "2026-01-01T00:00:20.000000Z"
    databases.on(
        "left", "UPDATE people SET name = 'new', seen = seen + interval '1 day' WHERE id = 3"
    )
    databases.on("left", "UPDATE people SET name = 'unseen' WHERE id = 4")
    second = databases.run()
    assert second.cursor_from == first.cursor_to
    assert (second.read, second.updated) == (2, 1), lines(second)
    assert databases.on("right", "SELECT full_name FROM clients WHERE client_id = 3") == [("new",)]


def test_the_pages_of_a_relay_say_that_its_values_passed_unread(databases):
    databases.fill(3)
    databases.make_rule()
    run = databases.run()
    assert run.lane == "relay"
    sentence = "The values passed unread, as the source had them."
    client = signed_in(administrator())
    (change, *_) = change_page(run.pk)
    for address in (
        reverse("admin:runs_run_changes", args=[run.pk]),
        reverse("admin:ledger_change_change", args=[change.pk]),
    ):
        assert sentence in client.get(address).content.decode()
