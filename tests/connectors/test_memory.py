"""Reading a large table takes bounded memory."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from apps.connectors.sqlite import SqliteConnector, SqliteSettings
from tests.servers import (
    mariadb_connection,
    mariadb_database,
    postgresql_connection,
    postgresql_database,
)

ROWS = 300_000
BOUND_MIB = 200
"""Growth allowed while reading; the rows of the table take some 150 MiB as one Arrow table and
many times that as Python objects."""

_READ = """
import json, sys
from apps.connectors.base import ReadRequest
from apps.connectors.registry import build
from tests.memory import peak_mib
name, settings = sys.argv[1], json.loads(sys.argv[2])
connector = build(name, settings)
dataset = connector.describe("big")
list(connector.read(ReadRequest(dataset, dataset.field_names, limit=1)))
before, rows, largest = peak_mib(), 0, 0
for batch in connector.read(ReadRequest(dataset, dataset.field_names)):
    rows += batch.records.num_rows
    largest = max(largest, batch.records.nbytes)
print(json.dumps([rows, peak_mib() - before, largest]))
"""


@contextmanager
def sqlite_table(folder: Path) -> Iterator[dict[str, Any]]:
    path = folder / "big.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE big (id INTEGER PRIMARY KEY, a TEXT, b TEXT, c DOUBLE)")
        text = "x" * 220
        rows = ((n, text, text, n * 0.5) for n in range(ROWS))
        connection.executemany("INSERT INTO big VALUES (?, ?, ?, ?)", rows)
        connection.commit()
    yield SqliteConnector(SqliteSettings(path=str(path))).settings.model_dump()


@contextmanager
def postgresql_table(folder: Path) -> Iterator[dict[str, Any]]:
    with postgresql_database() as settings:
        with postgresql_connection(settings) as connection:
            connection.execute(
                "CREATE TABLE big AS SELECT n AS id, repeat('x', 220) AS a, repeat('y', 220) AS b,"
                f" n * 0.5::float8 AS c FROM generate_series(1, {ROWS}) n"
            )
        yield settings


@contextmanager
def mariadb_table(folder: Path) -> Iterator[dict[str, Any]]:
    with mariadb_database() as settings:
        with mariadb_connection(settings) as connection:
            connection.query(
                "CREATE TABLE big AS SELECT seq AS id, REPEAT('x', 220) AS a,"
                f" REPEAT('y', 220) AS b, seq * 0.5e0 AS c FROM seq_1_to_{ROWS}"
            )
        yield settings


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("sqlite", sqlite_table),
        pytest.param("postgresql", postgresql_table, marks=pytest.mark.postgresql),
        pytest.param("mysql", mariadb_table, marks=pytest.mark.mariadb),
    ],
    ids=["sqlite", "postgresql", "mariadb"],
)
def test_reading_takes_bounded_memory(
    tmp_path: Path, name: str, table: Callable[[Path], Any]
) -> None:
    with table(tmp_path) as settings:
        done = subprocess.run(
            [sys.executable, "-c", _READ, name, json.dumps(settings)],
            capture_output=True,
            text=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
    rows, growth, largest = json.loads(done.stdout)
    assert rows == ROWS
    assert growth < BOUND_MIB
    assert largest <= 33 * 1024 * 1024
