"""Canary secrets and personal values are looked for wherever Lockstep leaves bytes: found nowhere.

A whole platform runs as real processes, with a rule of one direction and one of two, whose records
hold canaries: written, edited, deleted, in conflict, rejected by a check, refused by the target,
impossible to convert. Meanwhile a watcher looks into every file, again and again, because spilled
files and messages are gone in the end.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis
from django.core.files.uploadedfile import SimpleUploadedFile
from django.urls import reverse

from config.environment import BASE_DIR
from tests.servers import postgresql_database

pytestmark = pytest.mark.processes
PATIENCE = 180.0
CANARY = "canary"

CONFIGURATION = """
sources:
  Left: {{connector: sqlite, settings: {{path: {folder}/left.db}}}}
  Right: {{connector: sqlite, settings: {{path: {folder}/right.db}}}}
  Away:
    connector: postgresql
    settings: {{host: 127.0.0.1, port: 65535, database: x, user: x, password: "${{AWAY_PASSWORD}}"}}
datasets:
  "Left: people": {{subject_field: id, fields: {{name: identity, email: contact}}}}
mappings:
  one-way:
    left: "Left: people"
    right: "Right: persons"
    key: [id]
    fields:
      id: id
      name: {{expression: trim(name)}}
      email: email
      age: {{expression: CAST(age AS INTEGER)}}
  two-way:
    left: "Left: friends"
    right: "Right: mates"
    key: [id]
    fields: {{id: id, name: name, email: email}}
rules:
  one-way:
    max_rejections_percent: 100
    checks: {{Mail: {{kind: pattern, field: email, pattern: "[^@ ]+@[^@ ]+"}}}}
    guards: {{max_deletes_percent: null}}
  two-way:
    direction: two_way
    two_way: {{policy: ask, first_contact: left}}
    guards: {{max_deletes_percent: null}}
"""


def canary(number: int, what: str) -> str:
    return f"{CANARY}-{what}-{number}"


def in_clear(content: bytes) -> bytes:
    """The content, and what messages in it hold in base64."""
    bodies = re.findall(rb'body\\?": ?\\?"([A-Za-z0-9+/=]+)', content)
    return b"\n".join([content, *(base64.b64decode(body) for body in bodies)])


class Platform:
    """A platform in a folder: two SQLite platforms beside it, its data and its temporary files."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.sides = folder / "sides"
        self.log = folder / "logs" / "up.log"
        self.watched = [folder / name for name in ("data", "temporary", "logs")]
        for path in (self.sides, *self.watched):
            path.mkdir(mode=0o700)
        unwanted = ("LOCKSTEP_", "DJANGO_", "DATABASE_URL", "REDIS_URL", "BROKER_URL", "PYTEST_")
        self.environment = {
            **{name: v for name, v in os.environ.items() if not name.startswith(unwanted)},
            "LOCKSTEP_DATA_DIR": str(folder / "data"),
            "LOCKSTEP_FILES_ROOTS": str(self.sides),
            "LOCKSTEP_LOG_LEVEL": "DEBUG",
            "TMPDIR": str(folder / "temporary"),
            "AWAY_PASSWORD": canary(0, "password"),
            **environment,
        }

    def sql(self, side: str, statement: str, rows: list[tuple[Any, ...]] | None = None) -> None:
        database = sqlite3.connect(self.sides / f"{side}.db", timeout=60)
        with database:
            if rows is None:
                database.execute(statement)
            else:
                database.executemany(statement, rows)
        database.close()

    def lockstep(self, *words: str, codes: tuple[int, ...] = (0,)) -> str:
        """What it prints; the operator's terminal may show values, and is not searched."""
        done = subprocess.run(
            [sys.executable, "manage.py", "lockstep", *words],
            cwd=BASE_DIR,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode in codes, (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def run_all(self) -> None:
        for name in ("one-way", "two-way"):
            self.lockstep("run", name, "--wait", codes=(0, 3))


class Watcher(threading.Thread):
    """Looks for canaries in every file of some folders until it is told to stop.

    A file is read again when its size or its time has changed.
    """

    def __init__(self, folders: list[Path]) -> None:
        super().__init__(daemon=True)
        self.folders = folders
        self.found: set[str] = set()
        self.seen: set[str] = set()
        self.known: dict[Path, tuple[int, int]] = {}
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            self.look()

    def look(self) -> None:
        for folder in self.folders:
            for path in folder.rglob("*"):
                with suppress(OSError):  # gone meanwhile
                    if path.is_file() and self._has_changed(path):
                        self._read(path)

    def _has_changed(self, path: Path) -> bool:
        facts = path.stat()
        before = self.known.get(path)
        self.known[path] = (facts.st_mtime_ns, facts.st_size)
        return before != self.known[path]

    def _read(self, path: Path) -> None:
        self.seen.add(path.name.rpartition(".")[2])
        content = in_clear(path.read_bytes())
        if CANARY.encode() in content:
            place = content.index(CANARY.encode())
            self.found.add(f"{path}: {content[max(0, place - 80) : place + 60]!r}")


@pytest.fixture
def up() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def start_up(platform: Platform) -> subprocess.Popen[bytes]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [
        sys.executable,
        "manage.py",
        "up",
        "--no-demo",
        "--workers",
        "1",
        "--port",
        str(port),
    ]
    with platform.log.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=BASE_DIR, env=platform.environment, stdout=log, stderr=subprocess.STDOUT
        )
    deadline = time.monotonic() + PATIENCE
    while "Lockstep runs at" not in platform.log.read_text(errors="replace"):
        assert process.poll() is None, platform.log.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return process


def live(platform: Platform) -> None:
    """Everything that can become of a record."""
    platform.sql(
        "left", "CREATE TABLE people (id INTEGER PRIMARY KEY, name TEXT, email TEXT, age TEXT)"
    )
    platform.sql("left", "CREATE TABLE friends (id INTEGER PRIMARY KEY, name TEXT, email TEXT)")
    platform.sql(
        "right",
        "CREATE TABLE persons (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT UNIQUE, "
        "age INTEGER)",
    )
    platform.sql("right", "CREATE TABLE mates (id INTEGER PRIMARY KEY, name TEXT, email TEXT)")
    people = [
        (n, canary(n, "name"), f"{canary(n, 'mail')}@example.org", str(20 + n)) for n in range(400)
    ]
    people[1] = (1, canary(1, "unchecked"), canary(1, "no-address"), "30")
    people[2] = (2, canary(2, "unconverted"), f"{canary(2, 'mail')}@example.org", canary(2, "age"))
    people[3] = (3, canary(3, "twice"), people[4][2], "30")
    people[5] = (5, None, f"{canary(5, 'refused')}@example.org", "30")
    platform.sql("left", "INSERT INTO people VALUES (?, ?, ?, ?)", people)
    friends = [(n, canary(n, "friend"), canary(n, "mail")) for n in range(40)]
    platform.sql("left", "INSERT INTO friends VALUES (?, ?, ?)", friends)
    configuration = platform.sides / "configuration.yaml"
    configuration.write_text(CONFIGURATION.format(folder=platform.sides))
    for name in ("left", "right"):
        assert (platform.sides / f"{name}.db").exists()
    platform.lockstep("apply", str(configuration))
    platform.lockstep("check", "Away", codes=(1,))
    platform.run_all()
    platform.sql(
        "left", f"UPDATE people SET name = '{canary(7, 'edited')}' WHERE id BETWEEN 7 AND 90"
    )
    platform.sql("left", "DELETE FROM people WHERE id BETWEEN 100 AND 120")
    platform.sql("left", f"UPDATE friends SET name = '{canary(1, 'left')}' WHERE id < 5")
    platform.sql("right", f"UPDATE mates SET name = '{canary(1, 'right')}' WHERE id < 9")
    platform.run_all()
    platform.lockstep("plan", "one-way", "--wait", codes=(0, 3))


def assert_it_happened(platform: Platform) -> None:
    """Else nothing would be found because nothing was there."""
    status = json.loads(platform.lockstep("status", "--json"))
    rules = {rule["rule"]: rule for rule in status["rules"]}
    assert rules["one-way"]["open_rejections"] >= 3, rules
    proven = json.loads(platform.lockstep("encryption", "audit", "--json"))
    assert proven["sound"], proven
    held = {column["column"] for column in proven["columns"] if column["keys"]}
    assert held >= {
        "ledger.change.sealed_images",
        "ledger.conflict.sealed_left",
        "ledger.link.sealed_base",
        "ledger.rejection.sealed_message",
        "ledger.rejection.sealed_record",
        "ledger.segmentcontent.content",
        "sources.source.sealed_secrets",
    }


def test_an_embedded_platform_leaves_no_value_in_clear(tmp_path: Path, up: Any):
    platform = Platform(tmp_path, LOCKSTEP_LEDGER_ROWS_LIMIT="200")
    watcher = Watcher(platform.watched)
    watcher.start()
    up.append(start_up(platform))
    live(platform)
    assert_it_happened(platform)
    up[0].send_signal(signal.SIGINT)
    assert up[0].wait(60) == 0
    watcher.over.set()
    watcher.join()
    watcher.look()

    assert watcher.found == set()
    assert {"log", "sqlite3"} <= watcher.seen
    database = (tmp_path / "data" / "lockstep.sqlite3").read_bytes()
    assert b"one-way" in database, "names of rules are no secret: the search would find one"


@pytest.mark.postgresql
@pytest.mark.skipif(not shutil.which("pg_dump"), reason="no PostgreSQL: apt-get install postgresql")
def test_dump_and_broker_of_a_platform_on_servers_hold_no_value_in_clear(tmp_path: Path, up: Any):
    with postgresql_database() as database, broker(tmp_path / "broker") as (address, messages):
        password = f":{database['password']}" if database.get("password") else ""
        place = f"{database['host']}:{database['port']}/{database['database']}"
        platform = Platform(
            tmp_path,
            LOCKSTEP_LEDGER_ROWS_LIMIT="200",
            LOCKSTEP_DATABASE_URL=f"postgresql://{database['user']}{password}@{place}",
            LOCKSTEP_REDIS_URL=address,
        )
        watcher = Watcher(platform.watched)
        watcher.start()
        up.append(start_up(platform))
        live(platform)
        assert_it_happened(platform)
        dump = subprocess.run(
            ["pg_dump", platform.environment["LOCKSTEP_DATABASE_URL"]],
            capture_output=True,
            check=True,
        ).stdout
        up[0].send_signal(signal.SIGINT)
        assert up[0].wait(60) == 0
        watcher.over.set()
        watcher.join()
        watcher.look()

    assert watcher.found == set()
    assert CANARY.encode() not in dump
    assert b"one-way" in dump
    assert any("runs.work" in message for message in messages)
    heard = [in_clear(message.encode()) for message in messages]
    assert any(b'"callbacks": null' in message for message in heard), "bodies were looked into"
    assert not [message for message in heard if CANARY.encode() in message]


@pytest.mark.django_db
def test_a_file_that_is_sent_is_not_put_on_the_disk(client: Any, monkeypatch: pytest.MonkeyPatch):
    opened: list[Any] = []
    whole = tempfile.NamedTemporaryFile
    monkeypatch.setattr(
        "django.core.files.temp.NamedTemporaryFile",
        lambda *given, **named: opened.append(given) or whole(*given, **named),
    )
    sent = SimpleUploadedFile("people.csv", CANARY.encode() * 1_000_000)

    answer = client.post(reverse("admin:login"), {"username": "x", "password": "y", "file": sent})

    assert answer.status_code == 200
    assert opened == []


class broker:  # noqa: N801
    """A Redis of its own, and every command that it is given."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen([*command, "--dir", str(folder)], stdout=subprocess.DEVNULL)
        self.messages: list[str] = []

    def __enter__(self) -> tuple[str, list[str]]:
        client = redis.Redis(port=self.port)
        deadline = time.monotonic() + 30
        while True:
            try:
                client.ping()
                break
            except redis.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        threading.Thread(target=self._listen, daemon=True).start()
        return f"redis://127.0.0.1:{self.port}/0", self.messages

    def _listen(self) -> None:
        client = redis.Redis(port=self.port, socket_timeout=None)
        with suppress(redis.ConnectionError), client.monitor() as monitor:
            for heard in monitor.listen():
                self.messages.append(str(heard["command"]))

    def __exit__(self, *error: Any) -> None:
        self.process.terminate()
        self.process.wait(30)
