"""Connections to databases go through the guard: tests of the connection, discovery and reading."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import psycopg
import pytest

from apps.connectors.base import ReadRequest, StepStatus
from apps.connectors.errors import TlsFailed, Unreachable
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.mysql import connection as mysql
from apps.connectors.mysql.infile import InfileConnection
from apps.connectors.outbound import OutboundRefused
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.postgresql import connection as postgresql
from apps.connectors.sql import TlsMode
from tests.connectors.outbound.conftest import NameServer, Only
from tests.connectors.outbound.tls_server import RIGHT, WRONG, tls_server
from tests.servers import (
    mariadb_connection,
    mariadb_database,
    postgresql_connection,
    postgresql_database,
)

NAME = "rebinding.example"


def settings_of(host: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "database": "d", "user": "u", "connect_timeout": 2, **more}


KINDS = {
    "postgresql": lambda **values: PostgresqlConnector(PostgresqlSettings(**values)),
    "mysql": lambda **values: MysqlConnector(MysqlSettings(**values)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("host", ["metadata.example", "0xa9fea9fe", "::ffff:169.254.169.254"])
def test_nothing_connects_to_what_is_refused(
    kind: str, host: str, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    names.knows("metadata.example", ["169.254.169.254"])
    connector = KINDS[kind](**settings_of(host))

    step = next(iter(connector.check()))
    assert (step.name, step.status) == ("resolve", StepStatus.FAILED)
    assert "169.254.169.254" in step.message
    assert "LOCKSTEP_ALLOWED_NETWORKS" in step.remedy
    with pytest.raises(OutboundRefused):
        connector.discover()
    with pytest.raises(OutboundRefused):
        connector.describe("t")


@pytest.mark.postgresql
def test_postgresql_is_connected_to_by_the_address_that_was_checked(names: NameServer) -> None:
    with postgresql_database() as settings:
        with postgresql_connection(settings) as own:
            own.execute("CREATE TABLE t (id int PRIMARY KEY)")
            own.execute("INSERT INTO t VALUES (1)")
        names.knows(NAME, ["127.0.0.1"])
        connector = PostgresqlConnector(PostgresqlSettings(**{**settings, "host": NAME}))
        assert all(step.status is not StepStatus.FAILED for step in connector.check())
        found = connector.describe("t")
        batches = list(connector.read(ReadRequest(dataset=found, fields=("id",))))
        assert sum(batch.records.num_rows for batch in batches) == 1

        for open_connection in (postgresql.connect, postgresql.connect_reader):
            names.asked.clear()
            names.knows(NAME, ["127.0.0.1"], ["169.254.169.254"])
            with open_connection(connector.settings):
                pass
            assert names.asked == [NAME]
            with pytest.raises(OutboundRefused, match=r"169\.254\.169\.254"):
                connector.discover()


@pytest.mark.mariadb
def test_mysql_is_connected_to_by_the_address_that_was_checked(names: NameServer) -> None:
    with mariadb_database() as settings:
        with mariadb_connection(settings) as own:
            own.query("CREATE TABLE t (id int PRIMARY KEY)")
        names.knows(NAME, ["127.0.0.1"])
        connector = MysqlConnector(MysqlSettings(**{**settings, "host": NAME}))
        assert all(step.status is not StepStatus.FAILED for step in connector.check())
        assert connector.describe("t").key == ("id",)

        for kind in (mysql.CheckedConnection, InfileConnection):
            names.asked.clear()
            names.knows(NAME, ["127.0.0.1"], ["169.254.169.254"])
            opened = mysql.connect_as(kind, connector.settings)
            assert names.asked == [NAME]
            with pytest.raises(OutboundRefused):
                opened.connect()


def test_postgresql_checks_the_certificate_for_the_name(tmp_path: Path, names: NameServer) -> None:
    def accept_tls(plain: socket.socket) -> None:
        plain.recv(8)
        plain.sendall(b"S")

    names.knows(RIGHT, ["127.0.0.1"])
    names.knows(WRONG, ["127.0.0.1"])
    with tls_server(tmp_path, greet=accept_tls) as server:
        for host, said in ((WRONG, 0), ("127.0.0.1", 0), (RIGHT, 1)):
            settings = PostgresqlSettings(
                **settings_of(host, port=server.port, tls=TlsMode.VERIFY_FULL),
                ca_certificate=str(server.certificate),
            )
            with pytest.raises((TlsFailed, Unreachable)):
                postgresql.connect(settings)
            assert len(server.said) == said
        assert postgresql.check_tls(settings) == "The server's certificate is valid."


def test_a_socket_is_used_only_where_that_is_allowed(tmp_path: Path, only: Only) -> None:
    only("loopback", "private", "public")
    for path in (str(tmp_path), "@abstract"):
        settings = PostgresqlSettings(**settings_of(path))
        step = next(iter(PostgresqlConnector(settings).check()))
        assert "sockets" in step.remedy
        with pytest.raises(OutboundRefused):
            postgresql.connect(settings)
    only("sockets")
    with pytest.raises(Unreachable):
        postgresql.connect(PostgresqlSettings(**settings_of(str(tmp_path))))


def test_no_other_setting_of_postgresql_names_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    trick = "d host=169.254.169.254 hostaddr=169.254.169.254"
    text = postgresql.connection_string(
        PostgresqlSettings(**{**settings_of("127.0.0.1"), "database": trick, "user": trick})
    )
    monkeypatch.setenv("PGHOSTADDR", "169.254.169.254")
    parsed = psycopg.conninfo.conninfo_to_dict(text)
    assert (parsed["host"], parsed["hostaddr"]) == ("127.0.0.1", "127.0.0.1")
    assert (parsed["dbname"], parsed["user"]) == (trick, trick)
