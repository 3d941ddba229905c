"""Connections that serve several reads of one step, and none beyond it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from apps.connectors import keeping
from apps.connectors.base import ReadRequest
from apps.connectors.errors import FieldMissing
from apps.connectors.keeping import borrowed, keep_connections
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from tests.servers import postgresql_connection, postgresql_database


class Line:
    """What a connector would connect; `dead` once the server has let go of it."""

    def __init__(self, made: list[Line]) -> None:
        self.closed = self.dead = False
        made.append(self)

    def ask(self) -> None:
        if self.dead:
            raise OSError

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def made() -> list[Line]:
    return []


def read(made: list[Line], address: str = "here") -> Any:
    return borrowed("line", address, lambda: Line(made), begin=Line.ask, end=Line.ask)


def test_reads_one_after_another_share_a_connection_until_the_step_ends(made: list[Line]) -> None:
    with keep_connections():
        for _ in range(3):
            with read(made):
                pass
        assert len(made) == 1
        assert not made[0].closed
    assert made[0].closed


def test_nothing_is_kept_outside_of_a_step(made: list[Line]) -> None:
    for _ in range(2):
        with read(made):
            pass
    assert [line.closed for line in made] == [True, True]


def test_two_reads_at_a_time_have_a_connection_each(made: list[Line]) -> None:
    with keep_connections(), read(made) as first, read(made) as second:
        assert first is not second
    assert [line.closed for line in made] == [True, True]


def test_another_address_is_another_connection(made: list[Line]) -> None:
    with keep_connections():
        for address in ("here", "there"):
            with read(made, address):
                pass
    assert len(made) == 2


def test_a_connection_under_which_something_failed_is_closed(made: list[Line]) -> None:
    with keep_connections():
        with pytest.raises(KeyError), read(made):
            raise KeyError
        assert made[0].closed
        with read(made) as line:
            assert line is made[1]


@pytest.mark.parametrize("reason", ["cut", "old"])
def test_what_was_cut_or_lay_too_long_is_replaced(
    made: list[Line], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with keep_connections():
        with read(made):
            pass
        made[0].dead = reason == "cut"
        if reason == "old":
            monkeypatch.setattr(keeping, "IDLE_SECONDS", -1.0)
        with read(made) as line:
            assert line is made[1]
        assert made[0].closed


@pytest.fixture(scope="module")
def settings() -> Iterator[dict[str, Any]]:
    with postgresql_database() as found:
        yield found


@pytest.fixture
def database(settings: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    with postgresql_connection(settings) as connection:
        connection.execute("DROP TABLE IF EXISTS items")
        connection.execute("CREATE TABLE items (id int PRIMARY KEY, name text)")
        connection.execute("INSERT INTO items VALUES (1, 'one')")
        yield connection


@pytest.fixture
def connector(settings: dict[str, Any], database: Any) -> PostgresqlConnector:
    return PostgresqlConnector(PostgresqlSettings(**settings))


def names(connector: PostgresqlConnector) -> list[str]:
    request = ReadRequest(connector.describe("items"), ("name",))
    tables = [pa.Table.from_batches([batch.records]) for batch in connector.read(request)]
    return [name for table in tables for name in table.column("name").to_pylist()]


SESSIONS = (
    "SELECT pid, state FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY pid"
)


@pytest.mark.postgresql
def test_postgresql_reads_see_what_was_committed_meanwhile(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    with keep_connections():
        assert names(connector) == ["one"]
        before = database.execute(SESSIONS).fetchall()
        assert [state for _, state in before] == ["idle", "idle"]  # in no transaction
        database.execute("INSERT INTO items VALUES (2, 'two')")
        assert names(connector) == ["one", "two"]
        assert database.execute(SESSIONS).fetchall() == before


@pytest.mark.postgresql
def test_postgresql_reads_look_at_the_table_anew(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    with keep_connections():
        request = ReadRequest(connector.describe("items"), ("name",))
        assert len(list(connector.read(request))) == 1
        database.execute("ALTER TABLE items DROP COLUMN name")
        with pytest.raises(FieldMissing):
            list(connector.read(request))


@pytest.mark.postgresql
def test_postgresql_reads_outlive_sessions_that_the_server_ended(
    connector: PostgresqlConnector, database: psycopg.Connection[Any]
) -> None:
    with keep_connections():
        assert names(connector) == ["one"]
        for pid, _ in database.execute(SESSIONS).fetchall():
            database.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        assert names(connector) == ["one"]
