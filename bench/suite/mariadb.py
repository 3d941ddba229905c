"""A scratch database on the MariaDB server."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

import pymysql

SERVER = os.environ.get("LOCKSTEP_TEST_MARIADB_URL", "mysql://root@127.0.0.1:3306/")


@contextmanager
def scratch_mariadb() -> Iterator[dict[str, Any]]:
    """The settings of a new database, dropped afterwards."""
    url = urlsplit(SERVER)
    values: dict[str, Any] = {
        "host": url.hostname or "127.0.0.1",
        "port": url.port or 3306,
        "user": unquote(url.username or "root"),
    }
    if url.password:
        values["password"] = unquote(url.password)
    name = f"lockstep_bench_{uuid.uuid4().hex[:8]}"
    with pymysql.connect(**values, autocommit=True) as server:
        server.cursor().execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield {**values, "database": name}
        finally:
            server.ping(reconnect=True)
            server.cursor().execute(f"DROP DATABASE IF EXISTS {name}")
