"""What MariaDB makes of records: triggers, defaults, lossy types, keys that it assigns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pymysql.err
import pytest

from apps.connectors.base import ChangeBatch, Operation
from apps.connectors.errors import KeyMissing
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.mysql.target import Target
from apps.connectors.testing import open_session, statuses
from apps.connectors.testing.harness import ALREADY, APPLIED
from tests.connectors.returning.support import codes, insert, keys, stored, update
from tests.servers import mariadb_connection, mariadb_database

pytestmark = pytest.mark.mariadb

Execute = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def settings() -> Iterator[dict[str, Any]]:
    with mariadb_database() as found:
        yield found


@pytest.fixture
def connector(settings: dict[str, Any]) -> MysqlConnector:
    return MysqlConnector(MysqlSettings(**settings))


@pytest.fixture
def execute(settings: dict[str, Any]) -> Iterator[Execute]:
    with mariadb_connection(settings) as connection:

        def run(statement: str) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())

        yield run


def test_triggers_defaults_and_computed_fields_are_seen(
    connector: MysqlConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE people (
            id INT PRIMARY KEY, name VARCHAR(40), note VARCHAR(40) DEFAULT 'none',
            loud VARCHAR(40) AS (CONCAT(name, '!')) VIRTUAL
        )
    """)
    execute("CREATE TRIGGER a BEFORE INSERT ON people FOR EACH ROW SET NEW.name = UPPER(NEW.name)")
    execute(
        "CREATE TRIGGER b BEFORE UPDATE ON people FOR EACH ROW "
        "SET NEW.name = UPPER(NEW.name), NEW.note = OLD.name"
    )
    fields = ("name", "note", "loud")
    new = insert(connector, "people", {"id": [1], "name": ["Ada"]}, fields, key="id")
    assert stored(new) == [("ADA", "none", "ADA!")]
    changed = update(connector, "people", {"id": [1]}, {"name": ["ADA"]}, {"name": ["Eve"]}, fields)
    assert stored(changed) == [("EVE", "ADA", "EVE!")]


def test_lossy_types_are_seen(connector: MysqlConnector, execute: Execute) -> None:
    execute("""
        CREATE TABLE t (
            id INT PRIMARY KEY, code CHAR(5), part FLOAT, amount DECIMAL(6,2),
            at DATETIME(3), raw BINARY(4)
        )
    """)
    at = datetime(2024, 1, 1, 10, 0, 0, 123000)  # noqa: DTZ001 - wall clock
    columns = {
        "id": [1],
        "code": ["ab  "],
        "part": [0.1],
        "amount": [Decimal("1.50")],
        "at": [at],
        "raw": [b"x"],
    }
    fields = ("code", "part", "amount", "at", "raw")
    expected = ("ab", 0.10000000149011612, Decimal("1.50"), at, b"x\0\0\0")
    assert stored(insert(connector, "t", columns, fields, key="id")) == [expected]
    again = insert(connector, "t", columns, fields, key="id")
    assert statuses(again) == [ALREADY]
    assert stored(again) == [expected]


def test_a_clock_of_the_server_is_seen(connector: MysqlConnector, execute: Execute) -> None:
    execute("""
        CREATE TABLE t (
            id INT PRIMARY KEY, name VARCHAR(9),
            changed TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)
        )
    """)
    [(first,)] = stored(insert(connector, "t", {"id": [1], "name": ["a"]}, ["changed"], key="id"))
    changed = update(connector, "t", {"id": [1]}, {"name": ["a"]}, {"name": ["b"]}, ["changed"])
    [(second,)] = stored(changed)
    assert datetime(2020, 1, 1, tzinfo=UTC) < first < second


def test_letters_that_the_collation_holds_equal_are_told_apart(
    connector: MysqlConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE t (code VARCHAR(20) PRIMARY KEY, name VARCHAR(20))
        CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci
    """)
    execute("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW SET NEW.code = UPPER(NEW.code)")
    columns = {"code": ["A", "b"], "name": ["x", "y"]}
    result = insert(connector, "t", columns, ["code"], key="code")
    assert codes(result) == {1: "record.key_changed"}
    assert execute("SELECT code FROM t") == [("A",)]
    changed = update(connector, "t", {"code": ["A"]}, {"name": ["x"]}, {"name": ["X"]}, ["name"])
    assert stored(changed) == [("X",)]


def test_a_record_that_cannot_be_read_is_taken_back(
    connector: MysqlConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(9), day DATE)")
    execute("SET sql_mode = ''")
    execute("INSERT INTO t VALUES (1, 'old', '0000-00-00'), (2, 'fine', NULL)")
    result = update(
        connector, "t", {"id": [1, 2]}, {"name": ["old", "fine"]}, {"name": ["a", "b"]}, ["day"]
    )
    assert codes(result) == {0: "record.unreadable"}
    assert execute("SELECT name FROM t ORDER BY id") == [("old",), ("b",)]


def test_nobody_edits_what_is_given_back_before_the_commit(
    connector: MysqlConnector, execute: Execute, settings: dict[str, Any]
) -> None:
    execute("CREATE TABLE t (id INT PRIMARY KEY, name VARCHAR(9))")
    execute("INSERT INTO t VALUES (1, 'done'), (2, 'old')")
    batch = ChangeBatch(
        Operation.UPDATE,
        pa.table({"id": pa.array([1, 2], pa.int64())}),
        pa.table({"name": ["before", "old"]}),
        pa.table({"name": ["done", "new"]}),
    )
    refused: list[int] = []

    def edit() -> None:
        with mariadb_connection(settings) as other:
            other.query("SET innodb_lock_wait_timeout = 1")
            for number in (1, 2):
                try:
                    other.query(f"UPDATE t SET name = 'edit' WHERE id = {number}")
                except pymysql.err.OperationalError:
                    refused.append(number)

    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(batch, edit, returning=["name"])
    assert statuses(result) == [ALREADY, APPLIED]
    assert refused == [1, 2]


@pytest.mark.parametrize("key", ["id INT AUTO_INCREMENT", "id UUID DEFAULT UUID()"])
@pytest.mark.parametrize("trigger", ["", "SET NEW.name = UPPER(NEW.name)"])
def test_keys_of_every_make_are_known(
    connector: MysqlConnector, execute: Execute, key: str, trigger: str
) -> None:
    execute(f"CREATE TABLE t ({key} PRIMARY KEY, name VARCHAR(20), note VARCHAR(9) DEFAULT 'd')")
    if trigger:
        execute(f"CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW {trigger}")
    names = [f"name {n:03d}" for n in range(50)]
    result = insert(connector, "t", {"name": names}, ["name", "note"])
    assert set(statuses(result)) == {APPLIED}
    kept = [name.upper() if trigger else name for name in names]
    assert stored(result) == [(name, "d") for name in kept]
    found = {str(key): name for key, name in execute("SELECT id, name FROM t")}
    assert dict(zip(map(str, keys(result)), kept, strict=True)) == found


def test_a_key_that_a_trigger_chooses_is_known(connector: MysqlConnector, execute: Execute) -> None:
    execute("CREATE TABLE t (id VARCHAR(20) PRIMARY KEY DEFAULT '', name VARCHAR(20))")
    execute("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW SET NEW.id = CONCAT('k', NEW.name)")
    assert keys(insert(connector, "t", {"name": ["a", "b"]})) == ["ka", "kb"]


def test_a_bad_record_among_single_inserts_costs_itself_only(
    connector: MysqlConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, mail VARCHAR(20) UNIQUE)")
    execute("INSERT INTO t (mail) VALUES ('TAKEN')")
    execute("CREATE TRIGGER a BEFORE INSERT ON t FOR EACH ROW SET NEW.mail = UPPER(NEW.mail)")
    result = insert(connector, "t", {"mail": ["a", "taken", "b"]}, ["mail"])
    assert codes(result) == {1: "record.duplicate"}
    assert stored(result) == [("A",), (None,), ("B",)]


def test_doubt_is_exact_where_the_collation_is_not(
    connector: MysqlConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE t (
            id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), code CHAR(5), part FLOAT
        ) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci
    """)
    columns = {"name": ["Ada"], "code": ["x "], "part": [0.1]}
    first = insert(connector, "t", columns)
    again = insert(connector, "t", columns, in_doubt=True)
    assert statuses(again) == [ALREADY]
    assert keys(again) == keys(first)
    other = insert(connector, "t", {**columns, "name": ["ADA"]}, in_doubt=True)
    assert statuses(other) == [APPLIED]


@pytest.fixture
def plain_mysql(monkeypatch: pytest.MonkeyPatch) -> None:
    """MySQL has no RETURNING, so the number of each insert is asked for."""
    initialise = Target.__init__

    def without_returning(self: Target, *arguments: Any) -> None:
        initialise(self, *arguments)
        self.is_mariadb = False

    monkeypatch.setattr(Target, "__init__", without_returning)
    monkeypatch.setattr(Target, "set_deadline", lambda self: None)


@pytest.mark.usefixtures("plain_mysql")
def test_without_returning_numbers_are_known(connector: MysqlConnector, execute: Execute) -> None:
    execute(
        "CREATE TABLE t (shop INT, id INT AUTO_INCREMENT UNIQUE, n TEXT, PRIMARY KEY (shop, id))"
    )
    result = insert(connector, "t", {"shop": [7, 8], "n": ["a", "b"]}, ["n"])
    assert result.keys is not None
    assert [tuple(row.values()) for row in result.keys.to_pylist()] == [(7, 1), (8, 2)]
    assert stored(result) == [("a",), ("b",)]


@pytest.mark.usefixtures("plain_mysql")
def test_without_returning_other_keys_are_not(connector: MysqlConnector, execute: Execute) -> None:
    execute("CREATE TABLE t (id UUID PRIMARY KEY DEFAULT UUID(), n INT)")
    with pytest.raises(KeyMissing):
        insert(connector, "t", {"n": [1]})


@pytest.mark.parametrize("assigned", [False, True])
def test_the_number_of_statements_does_not_grow(
    connector: MysqlConnector,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    assigned: bool,
) -> None:
    execute("CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(9))")
    statements: list[object] = []
    for name in ("run", "fetch"):
        call = getattr(Target, name)
        monkeypatch.setattr(
            Target,
            name,
            lambda self, text, call=call: statements.append(text) or call(self, text),
        )
    counts = []
    for first, count in ((10_000, 10), (20_000, 1_000)):
        statements.clear()
        columns: dict[str, list[Any]] = {"name": ["x"] * count}
        if not assigned:
            columns["id"] = list(range(first, first + count))
        result = insert(connector, "t", columns, ["name"], key="" if assigned else "id")
        assert result.exceptions == {}
        counts.append(len(statements))
    assert counts[0] == counts[1]
