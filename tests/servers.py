"""Fresh databases on the servers that tests talk to.

`LOCKSTEP_TEST_POSTGRESQL_URL` and `LOCKSTEP_TEST_MARIADB_URL` say where the servers are and who
may create databases there. Every database has a name of its own, so tests can run in parallel.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
import pytest

POSTGRESQL_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
MARIADB_URL = "mysql://root@127.0.0.1:3306/"
CLOSED_PORT = 65535  # nothing listens there: no port is given out above 61000


def server_settings(variable: str, default: str) -> dict[str, Any]:
    """Host, port, user, password and database of the server that a variable names."""
    url = urlsplit(os.environ.get(variable, default))
    fallback = urlsplit(default)
    settings: dict[str, Any] = {
        "host": url.hostname or fallback.hostname,
        "port": url.port or fallback.port,
        "user": unquote(url.username or fallback.username or ""),
        "database": url.path.strip("/"),
    }
    if url.password:
        settings["password"] = unquote(url.password)
    return settings


def postgresql_server() -> dict[str, Any]:
    return server_settings("LOCKSTEP_TEST_POSTGRESQL_URL", POSTGRESQL_URL)


def mariadb_server() -> dict[str, Any]:
    return server_settings("LOCKSTEP_TEST_MARIADB_URL", MARIADB_URL)


def reachable(server: dict[str, Any]) -> bool:
    """Whether something answers at the server's address."""
    try:
        socket.create_connection((server["host"], server["port"]), timeout=2).close()
    except OSError:
        return False
    return True


@contextmanager
def postgresql_database() -> Iterator[dict[str, Any]]:
    """A fresh database; yields the connector's settings for it, and drops it in the end."""
    server = postgresql_server()
    if not reachable(server):
        pytest.skip("no PostgreSQL server answers")
    name = f"lockstep_test_{uuid.uuid4().hex[:16]}"
    with postgresql_connection(server) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")
    try:
        yield {**server, "database": name}
    finally:
        with postgresql_connection(server) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def mariadb_database() -> Iterator[dict[str, Any]]:
    """A fresh database; yields the connector's settings for it, and drops it in the end."""
    server = mariadb_server()
    if not reachable(server):
        pytest.skip("no MariaDB server answers")
    name = f"lockstep_test_{uuid.uuid4().hex[:16]}"
    with mariadb_connection({**server, "database": None}) as connection:
        connection.query(f"CREATE DATABASE {name}")
    try:
        yield {**server, "database": name}
    finally:
        with mariadb_connection({**server, "database": None}) as connection:
            connection.query(f"DROP DATABASE {name}")


@contextmanager
def postgresql_connection(settings: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    """A plain autocommit connection, for what a test sets up behind the connector's back."""
    with psycopg.connect(
        host=settings["host"],
        port=settings["port"],
        user=settings["user"],
        password=settings.get("password"),
        dbname=settings["database"],
        autocommit=True,
    ) as connection:
        yield connection


@contextmanager
def mariadb_connection(settings: dict[str, Any]) -> Iterator[Any]:
    """A plain autocommit connection, for what a test sets up behind the connector's back."""
    connection = pymysql.connect(
        host=settings["host"],
        port=settings["port"],
        user=settings["user"],
        password=settings.get("password", ""),
        database=settings["database"],
        charset="utf8mb4",
        autocommit=True,
    )
    try:
        yield connection
    finally:
        connection.close()
