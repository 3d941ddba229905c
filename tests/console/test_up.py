"""`manage.py up` from an empty data folder to a page that answers, and again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from config.environment import BASE_DIR

pytestmark = pytest.mark.processes
PATIENCE = 120.0
Start = Callable[[], "Up"]


class Up:
    """The command in a process of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.address = f"http://127.0.0.1:{port}/"
        self.log = folder / f"output-{time.monotonic_ns()}"
        kept = {n: v for n, v in os.environ.items() if not n.startswith(("LOCKSTEP_", "DJANGO_"))}
        command = [sys.executable, "manage.py", "up", "--no-demo", "--workers", "1"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, "--port", str(port)],
                cwd=BASE_DIR,
                env={**kept, "LOCKSTEP_DATA_DIR": str(folder / "data")},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.output:
            assert self.process.poll() is None, self.output
            assert time.monotonic() < deadline, self.output
            time.sleep(0.1)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    started: list[Up] = []

    def one() -> Up:
        started.append(Up(tmp_path, port))
        return started[-1]

    yield one
    for up in started:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def test_it_starts_serves_refuses_a_second_one_stops_and_starts_again(start, tmp_path):
    first = start()
    first.wait_for("Lockstep runs at")
    with urllib.request.urlopen(f"{first.address}readyz", timeout=5) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(first.address, timeout=5) as answer:
        assert "Lockstep" in answer.read().decode()

    second = start()
    assert second.process.wait(PATIENCE) == 1
    assert f"already runs at {first.address}" in second.output

    assert first.stop() == 0
    password = re.search(r"One-time password +(\S+)", first.output)
    assert password is not None
    for path in (tmp_path / "data").rglob("*"):
        assert path.is_dir() or password[1].encode() not in path.read_bytes(), path

    again = start()
    again.wait_for("Lockstep runs at")
    assert "one_time_password admin" in again.output
    assert password[1] not in again.output
    assert again.stop() == 0


def test_a_worker_killed_with_its_pool_at_work_comes_back(start):
    up = start()
    up.wait_for("Lockstep runs at")
    worker = _wait_for_worker(up.process.pid)

    os.kill(worker, signal.SIGKILL)

    up.wait_for("worker ended (signal 9)")
    assert _wait_for_worker(up.process.pid) != worker
    assert _members(worker) == []
    assert up.stop() == 0


def _wait_for_worker(supervisor: int) -> int:
    """The worker's process, once it has pool processes."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        for number, (parent, group, command) in _processes().items():
            if parent == supervisor and "worker" in command and len(_members(group)) > 1:
                return number
        time.sleep(0.2)
    raise AssertionError("there is no worker")


def _members(group: int) -> list[int]:
    return [number for number, (_, of, _) in _processes().items() if of == group]


def _processes() -> dict[int, tuple[int, int, str]]:
    """Parent, process group and command of each process that is not a zombie."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            command = (path / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(path.name)] = (int(fields[1]), int(fields[2]), command)
    return found
