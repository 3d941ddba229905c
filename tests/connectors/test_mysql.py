"""What is particular to MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import ChangeBatch, Operation, ReadRequest, Reference, StepStatus
from apps.connectors.errors import ConnectionLost, SchemaMismatch, TargetBusy
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.testing import (
    do_nothing,
    open_session,
    read_all,
    read_with_rejections,
    statuses,
)
from apps.connectors.types import NeutralType
from tests.servers import CLOSED_PORT, mariadb_connection, mariadb_database

pytestmark = pytest.mark.mariadb


@pytest.fixture
def settings() -> Iterator[dict[str, Any]]:
    with mariadb_database() as found:
        yield found


@pytest.fixture
def database(settings: dict[str, Any]) -> Iterator[Any]:
    with mariadb_connection(settings) as connection:
        connection.query("SET sql_mode = ''")
        yield connection


@pytest.fixture
def connector(settings: dict[str, Any]) -> MysqlConnector:
    return MysqlConnector(MysqlSettings(**settings))


def one(name: str, value: Any, kind: NeutralType) -> pa.Table:
    return pa.table({name: pa.array([value], kind.arrow)})


def insert(rows: pa.Table, key: str = "id") -> ChangeBatch:
    return ChangeBatch(Operation.INSERT, rows.select([key]), None, rows)


@pytest.mark.parametrize(
    ("declared", "value", "kind", "expected"),
    [
        ("BIGINT UNSIGNED", "18446744073709551615", "decimal(20,0)", Decimal(2**64 - 1)),
        ("TINYINT(1)", "1", "boolean", True),
        ("BIT(1)", "b'1'", "boolean", True),
        ("BIT(40)", "b'101'", "integer", 5),
        ("FLOAT", "0.1", "float", 0.10000000149011612),
        ("FLOAT", "16777217", "float", 16777216.0),
        ("DOUBLE", "0.1", "float", 0.1),
        ("DECIMAL(65,30)", "1.5", "decimal(65,30)", "1.5"),
        ("JSON", '\'{"b": 1.50, "a": 1}\'', "json", '{"a":1,"b":1.5}'),
        ("CHAR(5)", "'ab'", "text(5)", "ab"),
        ("BINARY(4)", "'ab'", "bytes", b"ab\0\0"),
        ("ENUM('a','b')", "'b'", "text", "b"),
        ("SET('a','b')", "'a,b'", "text", "a,b"),
        ("YEAR", "2024", "integer", 2024),
        ("INT(6) ZEROFILL", "42", "integer", 42),
        ("VARCHAR(20) CHARACTER SET latin1", "'é'", "text(20)", "é"),
        ("INET6", "'::1'", "text", "::1"),
    ],
)
def test_types_of_its_own_travel_both_ways(
    connector: MysqlConnector, database: Any, declared: str, value: str, kind: str, expected: Any
) -> None:
    database.query(f"CREATE TABLE t (id INT PRIMARY KEY, v {declared})")
    database.query(f"INSERT INTO t VALUES (1, {value})")
    dataset = connector.describe("t")
    assert str(dataset.field("v").type) == kind
    read = read_all(connector, ReadRequest(dataset, ("v",)))
    assert read.column("v").to_pylist() == [expected]
    nothing = one("v", None, dataset.field("v").type)
    key = one("id", 1, neutral.INTEGER)
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
        ("DATE", "'0000-00-00'"),
        ("DATE", "'2024-00-10'"),
        ("DATETIME", "'0000-00-00 00:00:00'"),
        ("TIME", "'100:00:00'"),
        ("TIME", "'-01:00:00'"),
        ("TINYINT(1)", "7"),
    ],
)
def test_what_has_no_neutral_form_rejects_its_record(
    connector: MysqlConnector, database: Any, declared: str, value: str
) -> None:
    database.query(f"CREATE TABLE t (id INT PRIMARY KEY, v {declared} NULL)")
    database.query(f"INSERT INTO t VALUES (1, NULL), (2, {value}), (3, NULL)")
    request = ReadRequest(connector.describe("t"), ("id", "v"))
    records, rejected = read_with_rejections(connector, request)
    assert records.column("id").to_pylist() == [1, 3]
    assert [(r.key, r.field) for r in rejected] == [({"id": 2}, "v")]


def test_timestamps_are_instants_and_datetimes_are_not(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (id INT PRIMARY KEY, a TIMESTAMP NULL, b DATETIME(3))")
    database.query("SET time_zone = '+05:00'")
    database.query("INSERT INTO t VALUES (1, '2024-02-29 12:00:00', '2024-02-29 12:00:00.125')")
    (row,) = read_all(connector, ReadRequest(connector.describe("t"), ("a", "b"))).to_pylist()
    assert row["a"].isoformat() == "2024-02-29T07:00:00+00:00"
    assert row["b"].isoformat() == "2024-02-29T12:00:00.125000"


def test_keys_under_a_blind_collation_are_matched_to_the_letter(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (k VARCHAR(20) COLLATE utf8mb4_general_ci PRIMARY KEY, v INT)")
    database.query("INSERT INTO t VALUES ('abc', 1), ('xyz', 2)")
    dataset = connector.describe("t")
    for text, count in (("abc", 1), ("ABC", 0), ("abc ", 0), ("ábc", 0)):
        request = ReadRequest(dataset, ("v",), keys=pa.table({"k": [text]}))
        assert read_all(connector, request).num_rows == count
    with open_session(connector, dataset) as session:
        rows = pa.table({"k": ["ABC", "new"], "v": pa.array([2, 3], pa.int64())})
        result = session.apply(insert(rows, "k"), do_nothing)
        assert [
            result.exceptions.get(0, None) and result.exceptions[0].code,
            len(result.exceptions),
        ] == [
            "record.duplicate",
            1,
        ]
        delete = ChangeBatch(
            Operation.DELETE, pa.table({"k": ["XYZ", "xyz"]}), pa.table({"v": pa.array([2, 2])})
        )
        assert statuses(session.apply(delete, do_nothing)) == ["already", "applied"]


def test_nothing_is_clipped_whatever_the_server_allows(
    settings: dict[str, Any], connector: MysqlConnector, database: Any
) -> None:
    database.query(
        "CREATE TABLE t (id INT PRIMARY KEY, s TINYINT UNSIGNED, x TINYTEXT, d DATETIME)"
    )
    rows = pa.table(
        {
            "id": pa.array([1, 2, 3, 4], pa.int64()),
            "s": pa.array([255, 256, -1, 1], pa.int64()),
            "x": ["ok", "ok", "ok", "y" * 256],
        }
    )
    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(insert(rows), do_nothing)
    assert {r: (p.code, p.field) for r, p in result.exceptions.items()} == {
        1: ("record.out_of_range", "s"),
        2: ("record.out_of_range", "s"),
        3: ("record.too_long", "x"),
    }


def test_constraints_reject_only_their_record(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE p (id INT PRIMARY KEY)")
    database.query("INSERT INTO p VALUES (1)")
    database.query(
        "CREATE TABLE t (id INT PRIMARY KEY, p INT, u VARCHAR(9) UNIQUE, c INT CHECK (c > 0),"
        " FOREIGN KEY (p) REFERENCES p (id))"
    )
    database.query("INSERT INTO t VALUES (1, 1, 'taken', 1)")
    rows = pa.table(
        {
            "id": pa.array([2, 3, 4, 5], pa.int64()),
            "p": pa.array([1, 9, 1, 1], pa.int64()),
            "u": ["a", "b", "taken", "d"],
            "c": pa.array([1, 1, 1, 0], pa.int64()),
        }
    )
    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(insert(rows), do_nothing)
    assert {r: p.code for r, p in result.exceptions.items()} == {
        1: "record.reference_missing",
        2: "record.duplicate",
        3: "record.invalid",
    }


def test_discovery_sees_keys_references_views_and_computed_fields(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE a (x INT, y VARCHAR(9), PRIMARY KEY (y, x))")
    database.query(
        "CREATE TABLE b (id INT AUTO_INCREMENT PRIMARY KEY, x INT, y VARCHAR(9), u INT UNIQUE,"
        " g INT AS (x + 1) STORED, d INT DEFAULT 5 NOT NULL, UNIQUE (y(3)),"
        " FOREIGN KEY (y, x) REFERENCES a (y, x))"
    )
    database.query("CREATE VIEW v AS SELECT id FROM b")
    database.query("INSERT INTO b (u) VALUES (1)")
    a, b, v = connector.discover()
    assert a.key == ("y", "x")
    assert (b.key, b.unique_keys) == (("id",), (("u",),))
    assert b.references == (Reference(("y", "x"), "a", ("y", "x")),)
    assert b.row_count == 1
    assert b.field("id").server_assigned
    assert b.field("g").generated
    assert b.field("d").has_default
    assert (v.format, v.writable) == ("view", False)


def test_tables_without_transactions_are_not_written(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (id INT PRIMARY KEY) ENGINE=MyISAM")
    with (
        pytest.raises(SchemaMismatch, match="transactions"),
        open_session(connector, connector.describe("t")),
    ):
        pass


def test_a_locked_record_makes_the_target_busy(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (id INT PRIMARY KEY, v VARCHAR(9))")
    database.query("INSERT INTO t VALUES (1, 'a')")
    update = ChangeBatch(
        Operation.UPDATE,
        one("id", 1, neutral.INTEGER),
        one("v", "a", neutral.TEXT),
        one("v", "b", neutral.TEXT),
    )
    with open_session(connector, connector.describe("t"), seconds=1) as session:
        database.begin()
        database.query("UPDATE t SET v = 'moved'")
        with pytest.raises(TargetBusy):
            session.apply(update, do_nothing)
        database.rollback()


def test_a_cut_connection_is_lost_not_a_rejection(
    settings: dict[str, Any], connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (id INT PRIMARY KEY)")
    rows = one("id", 1, neutral.INTEGER)

    def cut() -> None:
        with database.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist"
                " WHERE db = %s AND id <> CONNECTION_ID()",
                (settings["database"],),
            )
            for (number,) in cursor.fetchall():
                database.query(f"KILL {number}")

    with (
        open_session(connector, connector.describe("t")) as session,
        pytest.raises(ConnectionLost),
    ):
        session.apply(insert(rows), cut)
    assert connector.count(connector.describe("t")) == 0


def test_the_connection_test_passes(connector: MysqlConnector) -> None:
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
    ],
    ids=["host", "port", "database", "user"],
)
def test_the_connection_test_names_the_step_that_failed(
    settings: dict[str, Any], changed: dict[str, Any], step: str
) -> None:
    secret = "correct horse battery"
    password = {"password": secret} if "user" in changed or "host" in changed else {}
    broken = MysqlSettings(**{**settings, **password, **changed})
    steps = list(MysqlConnector(broken).check())
    failed = [s for s in steps if s.status is StepStatus.FAILED]
    assert [s.name for s in failed] == [step]
    assert failed[0].remedy
    assert {s.status for s in steps[steps.index(failed[0]) + 1 :]} <= {StepStatus.SKIPPED}
    assert secret not in repr(steps)
    assert secret not in repr(broken)


def test_a_demand_for_tls_is_not_dropped(settings: dict[str, Any]) -> None:
    demanding = MysqlConnector(MysqlSettings(**settings, tls="require"))
    statuses_by_step = {s.name: s.status for s in demanding.check()}
    offered = "offers TLS" in next(
        s.message for s in MysqlConnector(MysqlSettings(**settings)).check() if s.name == "tls"
    )
    assert (statuses_by_step["tls"] is StepStatus.OK) == offered
