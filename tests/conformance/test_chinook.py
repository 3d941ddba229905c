"""A whole database, as docs/how-to/sync-chinook.md does it: 11 tables into PostgreSQL and MariaDB.

The rows are our own. With LOCKSTEP_TEST_CHINOOK_DIR naming a folder that holds the real data set
(Chinook_Sqlite.sqlite and its SQL scripts), that one is synced too, and compared value by value
with what its own scripts load.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import sqlite3
import uuid
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import psycopg
import pymysql
import pytest

from apps.console.command_line import Output, execute, following
from apps.engine.suggest import snake_case
from apps.rules.configuration import apply, read_file
from apps.rules.models import Rule
from apps.runs.models import Run, RunStatus
from apps.runs.services import request_run, work_until_finished
from tests.conformance.chinook import TABLES, Table, source_rows, write_sample
from tests.services_under_test import address

pytestmark = pytest.mark.django_db
DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to"
REAL = os.environ.get("LOCKSTEP_TEST_CHINOOK_DIR", "")
DATA_SETS = ["sample", "real"] if REAL else ["sample"]


class Server:
    """A database of its own on a server, and how to speak to it."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        parts = urlsplit(address("postgresql" if kind == "postgresql" else "mariadb"))
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or (5432 if kind == "postgresql" else 3306)
        self.user = unquote(parts.username or "")
        self.password = unquote(parts.password or "")
        self.administration = parts.path.lstrip("/") or "postgres"

    def connect(self, database: str) -> Any:
        if self.kind == "postgresql":
            return psycopg.connect(
                host=self.host,
                port=self.port,
                user=self.user,
                password=self.password,
                dbname=database or self.administration,
                autocommit=True,
            )
        return pymysql.connect(
            host=self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database or None,
            charset="utf8mb4",
            autocommit=True,
        )

    def execute(self, database: str, *statements: str) -> None:
        with closing(self.connect(database)) as connection:
            for statement in statements:
                connection.cursor().execute(statement)

    def rows(self, database: str, sql: str) -> list[tuple[Any, ...]]:
        with closing(self.connect(database)) as connection:
            cursor = connection.cursor()
            cursor.execute(sql)
            return sorted((tuple(row) for row in cursor.fetchall()), key=repr)

    def new_database(self) -> str:
        name = f"lockstep_chinook_{uuid.uuid4().hex[:12]}"
        charset = "" if self.kind == "postgresql" else " CHARACTER SET utf8mb4"
        self.execute("", f"CREATE DATABASE {name}{charset}")
        return name

    def drop_database(self, name: str) -> None:
        force = " WITH (FORCE)" if self.kind == "postgresql" else ""
        self.execute("", f"DROP DATABASE {name}{force}")


@pytest.fixture(
    params=[
        pytest.param("postgresql", marks=pytest.mark.postgresql),
        pytest.param("mariadb", marks=pytest.mark.mariadb),
    ]
)
def server(request: pytest.FixtureRequest) -> Server:
    return Server(request.param)


@pytest.fixture
def database(server: Server) -> Iterator[str]:
    name = server.new_database()
    yield name
    server.drop_database(name)


@pytest.fixture
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "chinook.sqlite"
    if request.param == "real":
        shutil.copy(Path(REAL) / "Chinook_Sqlite.sqlite", path)
    else:
        write_sample(path)
    return path


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "GRACE_SECONDS", 0.0)


def configure(server: Server, database: str, file: Path) -> None:
    variables = {
        "CHINOOK_FILE": str(file),
        "CHINOOK_HOST": server.host,
        "CHINOOK_PORT": str(server.port),
        "CHINOOK_DATABASE": database,
        "CHINOOK_USER": server.user,
        "CHINOOK_PASSWORD": server.password,
    }
    document = read_file(DOCS / f"chinook-{server.kind}.yaml")
    apply(document, actor=None, variables=variables)
    assert apply(document, actor=None, variables=variables).is_empty


def run_all() -> list[Run]:
    """`lockstep run --all --wait`: every rule in dependency order."""
    before = set(Run.objects.values_list("pk", flat=True))
    arguments = Namespace(
        verb="runs:run", rules=[], everything=True, wait=True, sweep=False, as_json=False
    )
    output = Output(io.StringIO(), io.StringIO())
    code = execute(arguments, output)
    assert code == 0, output.stdout.getvalue() + output.stderr.getvalue()  # type: ignore[attr-defined]
    return list(Run.objects.exclude(pk__in=before).order_by("created_at"))


def run_one(rule: str) -> Run:
    return work_until_finished(request_run(Rule.objects.get(name=rule), actor=None))


def target_rows(server: Server, database: str, table: Table) -> list[tuple[Any, ...]]:
    columns = ", ".join(map(snake_case, table.names))
    return server.rows(database, f"SELECT {columns} FROM {snake_case(table.name)}")


def on_source(file: Path, sql: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(sql)


@pytest.mark.parametrize("file", DATA_SETS, indirect=True)
@pytest.mark.parametrize("tables", ["created", "existing"])
def test_all_tables_are_kept_in_step(
    server: Server, database: str, file: Path, tables: str
) -> None:
    if tables == "existing":
        server.execute(database, *(table.ddl(server.kind) for table in TABLES))
    configure(server, database, file)
    server.execute(database, "INSERT INTO artist (artist_id, name) VALUES (999999, 'Own row')")

    first = run_all()
    assert len(first) == 11
    place = {run.rule.name: number for number, run in enumerate(first)}
    for earlier, later in (("Artist", "Album"), ("Album", "Track"), ("Track", "PlaylistTrack")):
        assert place[f"chinook/{earlier}"] < place[f"chinook/{later}"]
    for table in TABLES:
        expected = source_rows(file, table)
        if table.name == "Artist":
            expected = sorted([*expected, (999_999, "Own row")], key=repr)
        assert target_rows(server, database, table) == expected, table.name

    assert [run.planned for run in run_all()] == [0] * 11, "the second run plans nothing"

    on_source(file, "UPDATE InvoiceLine SET Quantity = 77 WHERE InvoiceLineId = 3")
    edited = run_one("chinook/InvoiceLine")
    assert (edited.inserted, edited.updated, edited.deleted) == (0, 1, 0)

    on_source(file, "DELETE FROM InvoiceLine WHERE InvoiceLineId = 4")
    deleted = run_one("chinook/InvoiceLine")
    assert (deleted.inserted, deleted.updated, deleted.deleted) == (0, 0, 1)
    lines = next(table for table in TABLES if table.name == "InvoiceLine")
    assert target_rows(server, database, lines) == source_rows(file, lines)

    before = target_rows(server, database, TABLES[-1])
    on_source(file, "DELETE FROM PlaylistTrack")
    refused = run_one("chinook/PlaylistTrack")
    assert (refused.status, refused.cause_code) == (RunStatus.REFUSED, "guard.empty_source")
    assert target_rows(server, database, TABLES[-1]) == before
    assert server.rows(database, "SELECT name FROM artist WHERE artist_id = 999999") == [
        ("Own row",)
    ]


def script_statements(server: Server) -> list[str]:
    """The data set's own script for this server, without making a database of its own."""
    name = "Chinook_PostgreSql.sql" if server.kind == "postgresql" else "Chinook_MySql.sql"
    text = (Path(REAL) / name).read_text("utf-8-sig")
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
    own = re.compile(r"^\s*(DROP DATABASE|CREATE DATABASE|USE |\\c )", re.IGNORECASE)
    statements = re.split(r";\s*$", text, flags=re.MULTILINE)
    return [statement for statement in statements if statement.strip() and not own.match(statement)]


def _real_only(function: Any) -> Any:
    """Collected only where the real data set is."""
    return function if REAL else None


# What the scripts themselves lose: PostgreSQL reads N'Edinburgh ' as char(n), which has no blanks
# at its end; MySQL reads the backslash in four names of tracks as an escape.
LOST_BY_SCRIPT = {
    "postgresql": (lambda text: text.rstrip(" "), 8),
    "mariadb": (lambda text: text.replace("\\", ""), 4),
}


@_real_only
@pytest.mark.parametrize("file", ["real"], indirect=True)
def test_the_real_data_set_equals_what_its_own_scripts_load(
    server: Server, database: str, file: Path
) -> None:
    configure(server, database, file)
    run_all()
    reference = server.new_database()
    loses, most = LOST_BY_SCRIPT[server.kind]
    try:
        server.execute(reference, *script_statements(server))
        total = lost = 0
        for table in TABLES:
            rename = snake_case if server.kind == "postgresql" else str
            columns = ", ".join(map(rename, table.names))
            expected = by_key(
                table, server.rows(reference, f"SELECT {columns} FROM {rename(table.name)}")
            )
            found = by_key(table, target_rows(server, database, table))
            assert found.keys() == expected.keys(), table.name
            for key, row in expected.items():
                for ours, theirs in zip(found[key], row, strict=True):
                    if ours != theirs:
                        assert loses(ours) == theirs, (table.name, key)
                        lost += 1
            total += len(expected)
        assert total == 15_607
        assert lost == most
    finally:
        server.drop_database(reference)


def by_key(table: Table, rows: list[tuple[Any, ...]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    places = [table.names.index(name) for name in table.key]
    return {tuple(row[place] for place in places): row for row in rows}
