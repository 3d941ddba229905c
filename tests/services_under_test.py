"""The servers and programs that some tests need: where they are and how to get them.

A service is found at its address, or at the one that the environment names, and counts as there
when a real client can sign in. What is missing is left out and named in the closing summary.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 3


@dataclass(frozen=True)
class Service:
    """One marker of the tests and what stands behind it."""

    marker: str
    variable: str
    default: str
    package: str  # of Debian and Ubuntu
    is_there: Callable[[str], bool]

    @property
    def address(self) -> str:
        return os.environ.get(self.variable) or self.default

    @property
    def remedy(self) -> str:
        started = "" if self.marker == "browser" else " (make test starts it)"
        return f"apt-get install {self.package}{started}, or set {self.variable}"

    def available(self) -> bool:
        try:
            return self.is_there(self.address)
        except Exception:  # each client has its own errors; every one of them means: not there
            return False


def _postgresql(url: str) -> bool:
    import psycopg

    with psycopg.connect(url, connect_timeout=TIMEOUT) as connection:
        row = connection.execute("SELECT rolcreatedb FROM pg_roles WHERE rolname = current_user")
        return bool((row.fetchone() or [False])[0])


def _mariadb(url: str) -> bool:
    from urllib.parse import unquote, urlsplit

    import pymysql

    parts = urlsplit(url)
    pymysql.connect(
        host=parts.hostname or "127.0.0.1",
        port=parts.port or 3306,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        connect_timeout=TIMEOUT,
    ).close()
    return True


def _redis(url: str) -> bool:
    import redis

    client = redis.Redis.from_url(url, socket_connect_timeout=TIMEOUT)
    try:
        return bool(client.ping())
    finally:
        client.close()


def _rabbitmq(url: str) -> bool:
    import kombu

    with kombu.Connection(url, connect_timeout=TIMEOUT) as connection:
        connection.connect()
        return bool(connection.connected)


def _program(path: str) -> bool:
    return Path(path).is_file() and os.access(path, os.X_OK)


def _chromium() -> str:
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return "/usr/bin/chromium"


SERVICES = {
    service.marker: service
    for service in (
        Service(
            "postgresql",
            "LOCKSTEP_TEST_POSTGRESQL_URL",
            "postgresql://postgres@127.0.0.1:5432/postgres",
            "postgresql",
            _postgresql,
        ),
        Service(
            "mariadb",
            "LOCKSTEP_TEST_MARIADB_URL",
            "mysql://root@127.0.0.1:3306/",
            "mariadb-server",
            _mariadb,
        ),
        Service(
            "redis",
            "LOCKSTEP_TEST_REDIS_URL",
            "redis://127.0.0.1:6379/15",
            "redis-server",
            _redis,
        ),
        Service(
            "rabbitmq",
            "LOCKSTEP_TEST_RABBITMQ_URL",
            "amqp://guest:guest@127.0.0.1:5672//",
            "rabbitmq-server",
            _rabbitmq,
        ),
        Service("browser", "CHROMIUM", _chromium(), "chromium", _program),
    )
}


def address(marker: str) -> str:
    """Where the service of a marker is: a URL, or the path of the browser."""
    return SERVICES[marker].address


def missing() -> dict[str, Service]:
    """The services that are not there, by marker."""
    return {name: service for name, service in SERVICES.items() if not service.available()}
