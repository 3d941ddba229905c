"""50,000 encrypted records are read and written by other processes while keys are rotated."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config.environment import BASE_DIR
from tests.encryption.busy import ROWS, SHARES
from tests.servers import postgresql_connection, postgresql_database

pytestmark = [pytest.mark.processes, pytest.mark.postgresql]


class Platform:
    """A platform on a PostgreSQL database of its own, whose programs are real processes."""

    def __init__(self, folder: Path, database: dict[str, Any]) -> None:
        self.database = database
        password = f":{database['password']}" if database.get("password") else ""
        place = f"{database['host']}:{database['port']}/{database['database']}"
        unwanted = ("LOCKSTEP_", "DJANGO_", "PYTEST_", "DATABASE_URL", "REDIS_URL", "BROKER_URL")
        self.stop = folder / "stop"
        self.environment = {
            **{name: v for name, v in os.environ.items() if not name.startswith(unwanted)},
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "LOCKSTEP_DATA_DIR": str(folder / "data"),
            "LOCKSTEP_DATABASE_URL": f"postgresql://{database['user']}{password}@{place}",
            "LOCKSTEP_TEST_STOP": str(self.stop),
        }

    def begin(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *command],
            cwd=BASE_DIR,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def busy(self, role: str, share: int = 0) -> subprocess.Popen[str]:
        return self.begin("-m", "tests.encryption.busy", role, str(share))

    def lockstep(self, *words: str) -> subprocess.Popen[str]:
        return self.begin("manage.py", "lockstep", *words, "--json")

    def number(self, sql: str) -> int:
        with postgresql_connection(self.database) as connection:
            row = connection.execute(sql).fetchone()
        return int(row[0]) if row else 0


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    with postgresql_database() as database:
        made = Platform(tmp_path, database)
        outcome(made.begin("manage.py", "migrate", "--verbosity", "0"))
        told(made.busy("fill"))
        yield made


def outcome(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-3000:]
    return out


def told(process: subprocess.Popen[str]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(outcome(process))
    return found


def test_no_read_fails_and_no_write_is_lost_while_keys_are_rotated(platform: Platform):
    programs = [platform.busy("write", share) for share in range(SHARES)]
    programs += [platform.busy("read", share) for share in range(2)]
    try:
        killed = platform.lockstep("encryption", "rotate")
        wait_until(lambda: rewritten(platform) > ROWS // 50, killed)
        killed.kill()
        killed.communicate()
        assert rewritten(platform) < ROWS // 2

        rotated = told(platform.lockstep("encryption", "rotate"))
    finally:
        platform.stop.touch()
        results = [program.communicate(timeout=120) for program in programs]
    assert [program.returncode for program in programs] == [0] * 4, results

    writers, readers = (
        [json.loads(out) for out, _ in some] for some in (results[:SHARES], results[SHARES:])
    )
    assert all(writer["writes"] > 1_000 and writer["lost"] == [] for writer in writers), writers
    assert all(reader["reads"] > 10_000 for reader in readers), readers
    assert (rotated["state"], rotated["unreadable"]) == ("done", 0)
    assert_all_under(rotated["key"], platform)


def rewritten(platform: Platform) -> int:
    """As the rotation itself counts."""
    return platform.number("SELECT coalesce(sum(rewritten), 0) FROM encryption_rotationcolumn")


def wait_until(holds: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_all_under(key: str, platform: Platform) -> None:
    proven = told(platform.lockstep("encryption", "audit"))
    assert proven["sound"], proven
    assert proven["keys"] == {key: ROWS}
    assert platform.number("SELECT count(*) FROM ledger_change") == ROWS
