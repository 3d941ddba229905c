"""What SQLite makes of records: triggers, defaults, affinities, keys that it assigns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from apps.connectors.base import WriteStatus
from apps.connectors.errors import KeyMissing
from apps.connectors.sqlite import SqliteConnector, SqliteSettings
from tests.connectors.returning.support import codes, insert, keys, stored, update

Execute = Callable[[str], list[tuple[object, ...]]]


@pytest.fixture
def execute(tmp_path: Path) -> Execute:
    path = tmp_path / "source.db"
    path.touch()

    def run(script: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(path)) as connection:
            if ";" in script:
                connection.executescript(script)
                return []
            return connection.execute(script).fetchall()

    return run


@pytest.fixture
def connector(tmp_path: Path, execute: Execute) -> SqliteConnector:
    return SqliteConnector(SqliteSettings(path=str(tmp_path / "source.db")))


PEOPLE = """
    CREATE TABLE people (
        id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, note TEXT DEFAULT 'none',
        loud TEXT GENERATED ALWAYS AS (upper(name)) VIRTUAL
    );
    CREATE TRIGGER tidied AFTER INSERT ON people BEGIN
        UPDATE people SET name = trim(name), note = note || '!' WHERE id = new.id;
    END;
    CREATE TRIGGER changed AFTER UPDATE OF name ON people BEGIN
        UPDATE people SET note = old.name || ' before' WHERE id = new.id;
    END;
"""


def test_triggers_defaults_and_computed_fields_are_seen(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute(PEOPLE)
    fields = ("name", "note", "loud")
    new = insert(connector, "people", {"id": [1], "name": [" Ada "]}, fields, key="id")
    assert stored(new) == [("Ada", " Ada  before", "ADA")]
    changed = update(connector, "people", {"id": [1]}, {"name": ["Ada"]}, {"name": ["Eve"]}, fields)
    assert stored(changed) == [("Eve", "Ada before", "EVE")]


def test_a_trigger_on_one_record_is_seen_in_another(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE places (id INTEGER PRIMARY KEY, first BOOLEAN);
        CREATE TRIGGER one AFTER INSERT ON places WHEN new.first BEGIN
            UPDATE places SET first = 0 WHERE id <> new.id;
        END;
    """)
    result = insert(connector, "places", {"id": [1, 2], "first": [True, True]}, ["first"], key="id")
    assert stored(result) == [(False,), (True,)]


def test_affinities_are_seen(connector: SqliteConnector, execute: Execute) -> None:
    execute("CREATE TABLE sums (id INTEGER PRIMARY KEY, amount NUMERIC(10,2), part REAL);")
    columns = {"id": [1], "amount": [Decimal("1.50")], "part": [0.1]}
    assert stored(insert(connector, "sums", columns, ("amount", "part"), key="id")) == [
        (Decimal("1.50"), 0.1)
    ]


def test_a_record_whose_key_a_trigger_changes_is_taken_back(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE codes (code TEXT PRIMARY KEY, name TEXT);
        CREATE TRIGGER coded AFTER INSERT ON codes WHEN new.code <> upper(new.code) BEGIN
            UPDATE codes SET code = upper(code) WHERE code = new.code;
        END;
    """)
    columns = {"code": ["A", "b", "C"], "name": ["x", "y", "z"]}
    result = insert(connector, "codes", columns, ["name"], key="code")
    assert codes(result) == {1: "record.key_changed"}
    assert stored(result) == [("x",), (None,), ("z",)]
    assert execute("SELECT code FROM codes ORDER BY code") == [("A",), ("C",)]


def test_a_record_that_a_trigger_makes_unreadable_is_taken_back(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE days (id INTEGER PRIMARY KEY, day DATE, name TEXT);
        INSERT INTO days VALUES (9, 'someday', 'old');
        CREATE TRIGGER spoilt AFTER INSERT ON days WHEN new.name = 'bad' BEGIN
            UPDATE days SET day = 'never' WHERE id = new.id;
        END;
    """)
    columns = {"id": [1, 2, 3], "name": ["a", "bad", "c"]}
    result = insert(connector, "days", columns, ["day", "name"], key="id")
    assert codes(result) == {1: "record.unreadable"}
    assert execute("SELECT id FROM days ORDER BY id") == [(1,), (3,), (9,)]
    changed = update(connector, "days", {"id": [9]}, {"name": ["old"]}, {"name": ["new"]}, ["day"])
    assert codes(changed) == {0: "record.unreadable"}
    assert execute("SELECT name FROM days WHERE id = 9") == [("old",)]


def test_an_address_that_becomes_ambiguous_is_taken_back(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT);")
    execute("INSERT INTO t VALUES (1, 'a'), (2, 'b');")
    result = update(connector, "t", {"name": ["a"]}, {"id": [1]}, {"name": ["b"]}, ["id"])
    assert codes(result) == {0: "record.ambiguous"}
    assert execute("SELECT name FROM t ORDER BY id") == [("a",), ("b",)]


def test_a_key_that_its_default_gives_is_known(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE tokens (
            token TEXT PRIMARY KEY DEFAULT (lower(hex(randomblob(8)))), name TEXT
        ) WITHOUT ROWID;
    """)
    result = insert(connector, "tokens", {"name": ["a", "b"]}, ["name"])
    assert dict(zip(keys(result), ["a", "b"], strict=True)) == dict(
        execute("SELECT token, name FROM tokens")
    )


def test_a_key_that_a_trigger_fills_in_afterwards_is_known(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE labels (label TEXT PRIMARY KEY, name TEXT);
        CREATE TRIGGER labelled AFTER INSERT ON labels WHEN new.label IS NULL BEGIN
            UPDATE labels SET label = 'L-' || new.name WHERE rowid = new.rowid;
        END;
    """)
    assert keys(insert(connector, "labels", {"name": ["a", "b"]})) == ["L-a", "L-b"]


def test_a_record_without_a_key_is_taken_back(connector: SqliteConnector, execute: Execute) -> None:
    execute("CREATE TABLE loose (code TEXT PRIMARY KEY, name TEXT);")
    result = insert(connector, "loose", {"name": ["a"]})
    assert result.exceptions[0].status is WriteStatus.REJECTED
    assert execute("SELECT * FROM loose") == []


def test_a_table_without_a_key_cannot_assign_one(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("CREATE TABLE heap (name TEXT);")
    with pytest.raises(KeyMissing):
        insert(connector, "heap", {"name": ["a"]})


def test_a_field_called_rowid_is_not_the_rowid(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("CREATE TABLE odd (id INTEGER PRIMARY KEY, rowid TEXT);")
    assert keys(insert(connector, "odd", {"rowid": ["x", "x"]}, ["rowid"])) == [1, 2]


def test_a_trigger_that_keeps_a_record_out_is_named(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE guarded (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TRIGGER guard BEFORE INSERT ON guarded WHEN new.name = 'no' BEGIN
            SELECT RAISE(IGNORE);
        END;
    """)
    result = insert(connector, "guarded", {"name": ["a", "no", "c"]})
    assert codes(result) == {1: "record.not_written"}
    assert execute("SELECT name FROM guarded ORDER BY id") == [("a",), ("c",)]


def test_doubt_finds_times_and_letters_as_they_are_stored(
    connector: SqliteConnector, execute: Execute
) -> None:
    execute("CREATE TABLE seen (id INTEGER PRIMARY KEY, at TIMESTAMP, name TEXT COLLATE NOCASE);")
    execute("INSERT INTO seen VALUES (5, '2024-01-01T10:00:00', 'Ada');")
    at = datetime(2024, 1, 1, 10)  # noqa: DTZ001 - wall clock
    columns = {"at": [at, at], "name": ["Ada", "ADA"]}
    result = insert(connector, "seen", columns, in_doubt=True)
    assert codes(result) == {0: "already"}
    assert keys(result)[0] == 5
