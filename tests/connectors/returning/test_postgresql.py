"""What PostgreSQL makes of records: triggers, defaults, lossy types, keys that it assigns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from apps.connectors.base import ChangeBatch, Operation
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.postgresql.target import Target
from apps.connectors.testing import open_session, statuses
from apps.connectors.testing.harness import ALREADY, APPLIED
from tests.connectors.returning.support import codes, insert, keys, stored, update
from tests.servers import postgresql_connection, postgresql_database

pytestmark = pytest.mark.postgresql

Execute = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture
def settings() -> Iterator[dict[str, Any]]:
    with postgresql_database() as found:
        yield found


@pytest.fixture
def connector(settings: dict[str, Any]) -> PostgresqlConnector:
    return PostgresqlConnector(PostgresqlSettings(**settings))


@pytest.fixture
def execute(settings: dict[str, Any]) -> Iterator[Execute]:
    with postgresql_connection(settings) as connection:

        def run(script: str) -> list[tuple[Any, ...]]:
            cursor = connection.execute(script.encode())
            return cursor.fetchall() if cursor.description else []

        yield run


def trigger(name: str, when: str, table: str, body: str) -> str:
    """A row trigger; a BEFORE one works on `new`."""
    result = "new" if when.startswith("BEFORE") else "null"
    kind = "CONSTRAINT TRIGGER" if "DEFERRED" in when else "TRIGGER"
    when = when.removesuffix(" DEFERRED")
    timing = "DEFERRABLE INITIALLY DEFERRED" if kind != "TRIGGER" else ""
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN {body}; RETURN {result}; END $$; "
        f"CREATE {kind} {name} {when} ON {table} {timing} FOR EACH ROW EXECUTE FUNCTION {name}();"
    )


def test_triggers_defaults_and_computed_fields_are_seen(
    connector: PostgresqlConnector, execute: Execute
) -> None:
    execute("""
        CREATE TABLE people (
            id int PRIMARY KEY, name text, note text DEFAULT 'none',
            loud text GENERATED ALWAYS AS (upper(name) || '!') STORED
        )
    """)
    execute(trigger("lowered", "BEFORE INSERT OR UPDATE", "people", "new.name := lower(new.name)"))
    noted = "UPDATE people SET note = note || ' ' || new.name WHERE id = new.id"
    execute(trigger("noted", "AFTER INSERT", "people", noted))
    fields = ("name", "note", "loud")
    new = insert(connector, "people", {"id": [1], "name": ["Ada"]}, fields, key="id")
    assert stored(new) == [("ada", "none ada", "ADA!")]
    changed = update(connector, "people", {"id": [1]}, {"name": ["ada"]}, {"name": ["EVE"]}, fields)
    assert stored(changed) == [("eve", "none ada", "EVE!")]


def test_deferred_triggers_are_seen(connector: PostgresqlConnector, execute: Execute) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, name text, total int)")
    body = "UPDATE t SET total = (SELECT count(*) FROM t) WHERE id = new.id"
    execute(trigger("counted", "AFTER INSERT DEFERRED", "t", body))
    result = insert(connector, "t", {"id": [1, 2], "name": ["a", "b"]}, ["total"], key="id")
    assert stored(result) == [(2,), (2,)]


def test_lossy_types_are_seen(connector: PostgresqlConnector, execute: Execute) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, code char(5), part real, at timestamp(3))")
    columns = {"id": [1], "code": ["ab"], "part": [0.1]}
    result = insert(connector, "t", columns, ("code", "part"), key="id")
    assert stored(result) == [("ab", 0.10000000149011612)]
    again = update(
        connector, "t", {"id": [1]}, {"part": [0.10000000149011612]}, {"part": [0.2]}, ["part"]
    )
    assert statuses(again) == [APPLIED]
    assert stored(again) == [(0.20000000298023224,)]


def test_a_record_that_triggers_move_or_remove_is_taken_back(
    connector: PostgresqlConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (code text PRIMARY KEY, name text)")
    moved = "IF new.name = 'move' THEN new.code := upper(new.code); END IF"
    execute(trigger("moved", "BEFORE INSERT", "t", moved))
    removed = "DELETE FROM t WHERE code = new.code AND name = 'drop'"
    execute(trigger("removed", "AFTER INSERT", "t", removed))
    columns = {"code": ["a", "b", "c", "d"], "name": ["x", "move", "drop", "y"]}
    result = insert(connector, "t", columns, ["name"], key="code")
    assert codes(result) == {1: "record.key_changed", 2: "record.key_changed"}
    assert stored(result) == [("x",), (None,), (None,), ("y",)]
    assert execute("SELECT code FROM t ORDER BY 1") == [("a",), ("d",)]


def test_a_record_that_cannot_be_read_is_taken_back(
    connector: PostgresqlConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (id int PRIMARY KEY, name text, day date, box int[])")
    spoilt = (
        "IF new.name = 'day' THEN new.day := 'infinity'; END IF; "
        "IF new.name = 'box' THEN new.box := '{{1,2},{3,4}}'; END IF"
    )
    execute(trigger("spoilt", "BEFORE INSERT", "t", spoilt))
    columns = {"id": [1, 2, 3], "name": ["day", "fine", "box"]}
    result = insert(connector, "t", columns, ("name", "day", "box"), key="id")
    assert codes(result) == {0: "record.unreadable", 2: "record.unreadable"}
    assert stored(result)[1] == ("fine", None, None)
    assert execute("SELECT id FROM t") == [(2,)]


def test_nobody_edits_what_is_given_back_before_the_commit(
    connector: PostgresqlConnector, execute: Execute, settings: dict[str, Any]
) -> None:
    """Else the edit would be taken for what Lockstep wrote, and never be seen again."""
    execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    execute("INSERT INTO t VALUES (1, 'done'), (2, 'old')")
    batch = ChangeBatch(
        Operation.UPDATE,
        pa.table({"id": pa.array([1, 2], pa.int64())}),
        pa.table({"name": ["before", "old"]}),
        pa.table({"name": ["done", "new"]}),
    )
    refused: list[int] = []

    def edit() -> None:
        with postgresql_connection(settings) as other:
            other.execute("SET lock_timeout = 50")
            for number in (1, 2):
                try:
                    other.execute("UPDATE t SET name = 'edit' WHERE id = %s", (number,))
                except psycopg.errors.LockNotAvailable:
                    refused.append(number)

    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(batch, edit, returning=["name"])
    assert statuses(result) == [ALREADY, APPLIED]
    assert refused == [1, 2]


@pytest.mark.parametrize(
    "key",
    [
        "id serial",
        "id bigserial",
        "id int GENERATED ALWAYS AS IDENTITY",
        "id int GENERATED BY DEFAULT AS IDENTITY",
        "id uuid DEFAULT gen_random_uuid()",
        "id text DEFAULT 'k' || nextval('numbers')",
    ],
)
def test_keys_of_every_make_are_known(
    connector: PostgresqlConnector, execute: Execute, key: str
) -> None:
    execute("CREATE SEQUENCE numbers")
    execute(f"CREATE TABLE t ({key} PRIMARY KEY, name text)")
    names = [f"name {n}" for n in range(50)]
    result = insert(connector, "t", {"name": names}, ["name"])
    assert set(statuses(result)) == {APPLIED}
    assert execute("SELECT id::text, name FROM t ORDER BY name") == sorted(
        zip(map(str, keys(result)), names, strict=True), key=lambda row: row[1]
    )
    execute("INSERT INTO t (name) VALUES ('by another')")


def test_a_key_that_a_trigger_chooses_is_known(
    connector: PostgresqlConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (id text PRIMARY KEY DEFAULT 'x', name text)")
    execute(trigger("named", "BEFORE INSERT", "t", "new.id := new.id || new.name"))
    result = insert(connector, "t", {"name": ["a", "b"]}, ["name"])
    assert keys(result) == ["xa", "xb"]
    assert stored(result) == [("a",), ("b",)]


def test_a_key_that_changes_after_the_insert_is_taken_back(
    connector: PostgresqlConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (id serial PRIMARY KEY, name text)")
    body = "UPDATE t SET id = id + 1000 WHERE id = new.id AND new.name = 'far'"
    execute(trigger("far", "AFTER INSERT", "t", body))
    result = insert(connector, "t", {"name": ["near", "far"]})
    assert codes(result) == {1: "record.key_changed"}
    assert execute("SELECT name FROM t") == [("near",)]


def test_a_part_of_a_key_may_be_given(connector: PostgresqlConnector, execute: Execute) -> None:
    execute("CREATE TABLE t (shop int, id serial, name text, PRIMARY KEY (shop, id))")
    result = insert(connector, "t", {"shop": [7, 8], "name": ["a", "b"]})
    assert result.keys is not None
    assert [tuple(row.values()) for row in result.keys.to_pylist()] == [(7, 1), (8, 2)]


def test_a_sequence_that_may_not_be_asked_still_gives_keys(
    connector: PostgresqlConnector, execute: Execute, settings: dict[str, Any]
) -> None:
    role = f"writer_{settings['database']}"
    execute("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)")
    execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    execute(f"GRANT SELECT, INSERT, UPDATE ON t TO {role}")
    try:
        other = {**settings, "user": role, "password": "secret"}
        limited = PostgresqlConnector(PostgresqlSettings(**other))
        assert keys(insert(limited, "t", {"name": ["a", "b"]})) == [1, 2]
    finally:
        execute(f"DROP OWNED BY {role}")
        execute(f"DROP ROLE {role}")


def test_a_unique_field_refuses_one_record(
    connector: PostgresqlConnector, execute: Execute
) -> None:
    execute("CREATE TABLE t (id serial PRIMARY KEY, mail text UNIQUE)")
    execute("INSERT INTO t (mail) VALUES ('taken')")
    result = insert(connector, "t", {"mail": ["a", "taken", "b"]}, ["mail"])
    assert codes(result) == {1: "record.duplicate"}
    assert stored(result) == [("a",), (None,), ("b",)]


def test_doubt_sees_what_lossy_types_keep(connector: PostgresqlConnector, execute: Execute) -> None:
    execute("CREATE TABLE t (id serial PRIMARY KEY, code char(5), part real, doc jsonb)")
    columns = {"code": ["ab"], "part": [0.1], "doc": ['{"b":1,"a":[2]}']}
    first = insert(connector, "t", columns)
    again = insert(connector, "t", columns, in_doubt=True)
    assert statuses(again) == [ALREADY]
    assert keys(again) == keys(first)


@pytest.mark.parametrize("assigned", [False, True])
def test_the_number_of_statements_does_not_grow(
    connector: PostgresqlConnector,
    execute: Execute,
    monkeypatch: pytest.MonkeyPatch,
    assigned: bool,
) -> None:
    execute("CREATE TABLE t (id serial PRIMARY KEY, name text)")
    statements: list[str] = []
    run = Target.run
    monkeypatch.setattr(
        Target, "run", lambda self, text: statements.append(text) or run(self, text)
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
