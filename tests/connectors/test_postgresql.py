"""What is particular to PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import ChangeBatch, Operation, ReadRequest, Reference, StepStatus
from apps.connectors.errors import ConnectionLost, PermissionRefused, SchemaMismatch, TargetBusy
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.testing import (
    do_nothing,
    open_session,
    read_all,
    read_with_rejections,
    statuses,
)
from apps.connectors.types import Kind, NeutralType
from tests.servers import CLOSED_PORT, postgresql_connection, postgresql_database

pytestmark = pytest.mark.postgresql


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, Any]]:
    with postgresql_database() as found:
        yield found


@pytest.fixture
def database(settings: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """The database, emptied, through a connection of its own."""
    with postgresql_connection(settings) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")
        yield connection


@pytest.fixture
def connector(settings: dict[str, Any], database: Any) -> PostgresqlConnector:
    return PostgresqlConnector(PostgresqlSettings(**settings))


def one(name: str, value: Any, kind: NeutralType) -> pa.Table:
    return pa.table({name: pa.array([value], kind.arrow)})


@pytest.mark.parametrize(
    ("declared", "value", "kind", "expected"),
    [
        ("numeric", "1e30", NeutralType(Kind.DECIMAL), "1" + "0" * 30),
        ("numeric", "2.500", NeutralType(Kind.DECIMAL), "2.5"),
        ("numeric(50,20)", "1.5", neutral.decimal(50, 20), "1.5"),
        ("real", "0.1", neutral.FLOAT, 0.10000000149011612),
        ("char(5)", "'ab'", NeutralType(Kind.TEXT, length=5), "ab"),
        ("inet", "'10.0.0.1/8'", neutral.TEXT, "10.0.0.1/8"),
        ("interval", "'1 day 2 hours'", neutral.TEXT, "1 day 02:00:00"),
        ("int4range", "'[1,5)'", neutral.TEXT, "[1,5)"),
        ("xml", "'<a/>'", neutral.TEXT, "<a/>"),
        ("mood", "'so so'", neutral.TEXT, "so so"),
        ("short", "'abc'", NeutralType(Kind.TEXT, length=9), "abc"),
        ("timetz", "'12:00+02'", neutral.TEXT, "12:00:00+02"),
        ("json", '\' {"b": 1.50, "a": 1}\'', neutral.JSON, '{"a":1,"b":1.5}'),
        ("mood[]", "'{\"so so\",NULL}'", neutral.array(neutral.TEXT), ["so so", None]),
        ("bit(3)", "B'101'", neutral.TEXT, "101"),
        ("smallint[]", "'{1,2}'", neutral.array(neutral.INTEGER), [1, 2]),
        ("json[]", "array['1.0'::json]", neutral.array(neutral.JSON), ["1"]),
    ],
)
def test_types_of_its_own_travel_both_ways(
    connector: PostgresqlConnector,
    database: psycopg.Connection[Any],
    declared: str,
    value: str,
    kind: NeutralType,
    expected: Any,
) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('so so', 'fine')")
    database.execute("CREATE DOMAIN short AS varchar(9) CHECK (value <> '')")
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {declared})")
    database.execute(f"INSERT INTO t VALUES (1, {value})")
    dataset = connector.describe("t")
    assert dataset.field("v").type == kind
    read = read_all(connector, ReadRequest(dataset, ("v",)))
    assert read.column("v").to_pylist() == [expected]
    key, nothing = one("id", 1, neutral.INTEGER), one("v", None, kind)
    with open_session(connector, dataset) as session:
        away = ChangeBatch(Operation.UPDATE, key, read, nothing)
        back = ChangeBatch(Operation.UPDATE, key, nothing, read)
        assert statuses(session.apply(away, do_nothing)) == ["applied"]
        assert statuses(session.apply(back, do_nothing)) == ["applied"]
        assert statuses(session.apply(back, do_nothing)) == ["already"]
    assert read_all(connector, ReadRequest(dataset, ("v",))) == read


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("date", "'infinity'"),
        ("timestamp", "'-infinity'"),
        ("timestamptz", "'infinity'"),
        ("date", "'0044-03-15 BC'"),
        ("timestamp", "'12024-01-01'"),
        ("time", "'24:00:00'"),
        ("numeric(10,2)", "'NaN'"),
        ("numeric", "'Infinity'"),
        ("int[]", "'{{1,2},{3,4}}'"),
        ("date[]", "'{infinity}'"),
    ],
)
def test_what_has_no_neutral_form_rejects_its_record(
    connector: PostgresqlConnector,
    database: psycopg.Connection[Any],
    declared: str,
    value: str,
) -> None:
    database.execute(f"CREATE TABLE t (id int PRIMARY KEY, v {declared})")
    database.execute(f"INSERT INTO t VALUES (1, NULL), (2, {value}), (3, NULL)")
    request = ReadRequest(connector.describe("t"), ("id", "v"))
    records, rejected = read_with_rejections(connector, request)
    assert records.column("id").to_pylist() == [1, 3]
    assert [(r.key, r.field) for r in rejected] == [({"id": 2}, "v")]


def test_discovery_sees_keys_references_views_and_computed_fields(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE a (x int, y text, PRIMARY KEY (y, x))")
    database.execute(
        "CREATE TABLE b (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, s serial, x int, y text,"
        " u text UNIQUE, g int GENERATED ALWAYS AS (x + 1) STORED, d int DEFAULT 5 NOT NULL,"
        " FOREIGN KEY (y, x) REFERENCES a)"
    )
    database.execute("CREATE VIEW v AS SELECT id FROM b")
    database.execute("INSERT INTO b (u) VALUES ('one')")
    a, b, v = connector.discover()
    assert a.key == ("y", "x")
    assert (b.key, b.unique_keys) == (("id",), (("u",),))
    assert b.references == (Reference(("y", "x"), "a", ("y", "x")),)
    assert b.row_count == 1
    assert b.field("id").server_assigned
    assert b.field("s").server_assigned
    assert b.field("g").generated
    assert b.field("d").has_default
    assert not b.field("d").nullable
    assert (v.format, v.writable) == ("view", False)


def test_identity_columns_take_given_values_and_go_on_after_them(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)")
    rows = pa.table({"id": pa.array([5, 6], pa.int64()), "v": ["a", "b"]})
    with open_session(connector, connector.describe("t")) as session:
        batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        assert session.apply(batch, do_nothing).exceptions == {}
    assert database.execute("INSERT INTO t (v) VALUES ('c') RETURNING id").fetchone() == (7,)


def test_constraints_reject_only_their_record(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE p (id int PRIMARY KEY)")
    database.execute("INSERT INTO p VALUES (1)")
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES p DEFERRABLE INITIALLY DEFERRED,"
        " u text UNIQUE, c int CHECK (c > 0), s smallint, n int NOT NULL DEFAULT 0)"
    )
    database.execute("INSERT INTO t VALUES (1, 1, 'taken', 1)")
    rows = pa.table(
        {
            "id": pa.array([2, 3, 4, 5, 6, 7], pa.int64()),
            "p": pa.array([1, 9, 1, 1, 1, 1], pa.int64()),
            "u": ["a", "b", "taken", "d", "e", "f\x00"],
            "c": pa.array([1, 1, 1, 0, 1, 1], pa.int64()),
            "s": pa.array([1, 1, 1, 1, 40_000, 1], pa.int64()),
        }
    )
    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(
            ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows), do_nothing
        )
    assert {r: p.code for r, p in result.exceptions.items()} == {
        1: "record.reference_missing",
        2: "record.duplicate",
        3: "record.invalid",
        4: "record.out_of_range",
        5: "record.invalid",
    }


def test_deferrable_unique_keys_serve_too(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, u int UNIQUE DEFERRABLE)")
    rows = pa.table({"id": pa.array([1, 2, 3], pa.int64()), "u": pa.array([1, 1, 2], pa.int64())})
    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(
            ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows), do_nothing
        )
    assert statuses(result) == ["applied", "rejected", "applied"]


def test_times_finer_than_the_field_are_refused(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, at timestamptz(3))")
    at = [
        datetime(2024, 1, 1, 0, 0, 0, 123_000, tzinfo=UTC),
        datetime(2024, 1, 1, 0, 0, 0, 123_456, tzinfo=UTC),
    ]
    rows = pa.table(
        {"id": pa.array([1, 2], pa.int64()), "at": pa.array(at, neutral.TIMESTAMPTZ.arrow)}
    )
    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(
            ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows), do_nothing
        )
    assert statuses(result) == ["applied", "rejected"]


def test_keys_that_differ_in_case_only_are_two(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute(
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    database.execute("CREATE TABLE t (k text COLLATE blind, v int)")
    database.execute("INSERT INTO t VALUES ('abc', 1)")
    dataset = connector.describe("t")
    for text, count in (("abc", 1), ("ABC", 0)):
        request = ReadRequest(dataset, ("v",), keys=pa.table({"k": [text]}))
        assert read_all(connector, request).num_rows == count
    rows = pa.table({"k": ["ABC"], "v": pa.array([2], pa.int64())})
    with open_session(connector, dataset) as session:
        result = session.apply(
            ChangeBatch(Operation.INSERT, rows.select(["k"]), None, rows), do_nothing
        )
    assert statuses(result) == ["applied"]


def test_computed_fields_and_views_are_not_written(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id) STORED)")
    database.execute("CREATE VIEW v AS SELECT * FROM t")
    rows = pa.table({"id": pa.array([1], pa.int64()), "g": pa.array([1], pa.int64())})
    batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
    with (
        open_session(connector, connector.describe("t")) as session,
        pytest.raises(SchemaMismatch, match="'g'"),
    ):
        session.apply(batch, do_nothing)
    with pytest.raises(SchemaMismatch), open_session(connector, connector.describe("v")):
        pass


def test_a_locked_record_makes_the_target_busy(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
    database.execute("INSERT INTO t VALUES (1, 'a')")
    update = ChangeBatch(
        Operation.UPDATE,
        one("id", 1, neutral.INTEGER),
        one("v", "a", neutral.TEXT),
        one("v", "b", neutral.TEXT),
    )
    with (
        open_session(connector, connector.describe("t"), seconds=0.5) as session,
        database.transaction(),
    ):
        database.execute("SELECT * FROM t FOR UPDATE")
        with pytest.raises(TargetBusy):
            session.apply(update, do_nothing)


def test_a_cut_connection_is_lost_not_a_rejection(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    rows = one("id", 1, neutral.INTEGER)

    def cut() -> None:
        database.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'lockstep' AND datname = current_database()"
        )

    with (
        open_session(connector, connector.describe("t")) as session,
        pytest.raises(ConnectionLost),
    ):
        session.apply(ChangeBatch(Operation.INSERT, rows, None, rows), cut)
    assert connector.count(connector.describe("t")) == 0


def test_a_missing_right_is_named(
    settings: dict[str, Any], connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    role = f"reader_{settings['database']}"
    database.execute("CREATE TABLE t (id int PRIMARY KEY)")
    database.execute(f"CREATE ROLE {role} LOGIN")
    try:
        database.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
        database.execute(f"GRANT SELECT ON t TO {role}")
        reader = PostgresqlConnector(PostgresqlSettings(**{**settings, "user": role}))
        assert list(reader.check())[-1].status is StepStatus.SKIPPED
        rows = one("id", 1, neutral.INTEGER)
        with (
            open_session(reader, reader.describe("t")) as session,
            pytest.raises(PermissionRefused),
        ):
            session.apply(ChangeBatch(Operation.INSERT, rows, None, rows), do_nothing)
    finally:
        database.execute(f"DROP OWNED BY {role}")
        database.execute(f"DROP ROLE {role}")


def test_the_connection_test_passes(connector: PostgresqlConnector) -> None:
    steps = list(connector.check())
    assert [s.name for s in steps] == ["resolve", "connect", "tls", "sign_in", "read", "write"]
    assert {s.status for s in steps} == {StepStatus.OK}


@pytest.mark.parametrize(
    ("changed", "step"),
    [
        ({"host": "no-such-host.invalid"}, "resolve"),
        ({"port": CLOSED_PORT}, "connect"),
        ({"database": "no_such_database"}, "sign_in"),
        ({"user": "nobody_of_that_name"}, "sign_in"),
        ({"schema": "no_such_schema"}, "read"),
    ],
    ids=["host", "port", "database", "user", "schema"],
)
def test_the_connection_test_names_the_step_that_failed(
    settings: dict[str, Any], changed: dict[str, Any], step: str
) -> None:
    secret = "correct horse battery"
    broken = PostgresqlSettings(**{**settings, "password": secret, **changed})
    steps = list(PostgresqlConnector(broken).check())
    failed = [s for s in steps if s.status is StepStatus.FAILED]
    assert [s.name for s in failed] == [step]
    assert failed[0].remedy
    assert {s.status for s in steps[steps.index(failed[0]) + 1 :]} <= {StepStatus.SKIPPED}
    assert secret not in repr(steps)
    assert secret not in repr(broken)
