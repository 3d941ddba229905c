"""Programs under supervision: started again when killed, stopped cleanly, never left behind."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from apps.console.supervisor import Program, Supervisor
from config.environment import BASE_DIR

pytestmark = pytest.mark.processes
PATIENCE = 15.0

# Says its number, starts a child of its own that says its number, and waits.
PARENT = """
    import os, subprocess, sys, time
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print("me", os.getpid(), "child", child.pid, flush=True)
    time.sleep(600)
"""
DEAF = """
    import os, signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("me", os.getpid(), flush=True)
    time.sleep(600)
"""


def _program(name: str, source: str) -> Program:
    return Program(name, [sys.executable, "-c", textwrap.dedent(source)])


class Outside:
    """A supervisor in a process of its own, and the lines it has printed."""

    def __init__(self, folder: Path, source: str, grace: float) -> None:
        self.log = folder / "output"
        script = f"""
            import sys
            from apps.console.supervisor import Program, Supervisor
            program = Program("one", [sys.executable, "-c", {textwrap.dedent(source)!r}])
            sys.exit(Supervisor([program], grace={grace}).run())
        """
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(script)], cwd=BASE_DIR, stdout=log
            )

    def lines(self, word: str) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines() if word in line]

    def wait_for(self, word: str, times: int = 1) -> list[list[str]]:
        _until(lambda: len(self.lines(word)) >= times)
        return self.lines(word)


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Callable[..., Outside]]:
    started: list[Outside] = []

    def start(source: str, grace: float = 10.0) -> Outside:
        started.append(Outside(tmp_path, source, grace))
        return started[-1]

    yield start
    for one in started:
        if one.process.poll() is None:
            one.process.send_signal(signal.SIGINT)
            one.process.send_signal(signal.SIGTERM)  # the second one does not wait
            one.process.wait()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def _is_alive(number: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_killed_program_starts_again_and_its_children_are_gone(outside):
    supervised = outside(PARENT)
    _, _, _, first, _, child = supervised.wait_for("me")[0]

    os.kill(int(first), signal.SIGKILL)

    second = supervised.wait_for("me", times=2)[1][3]
    assert second != first
    assert _is_alive(int(second))
    assert not _is_alive(int(child))
    assert supervised.lines("ended (signal 9)")


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_everything_with_status_0(outside, stop):
    supervised = outside(PARENT)
    _, _, _, parent, _, child = supervised.wait_for("me")[0]

    supervised.process.send_signal(stop)

    assert supervised.process.wait(PATIENCE) == 0
    assert not _is_alive(int(parent))
    assert not _is_alive(int(child))


def test_a_program_that_does_not_stop_is_killed_when_its_time_is_up(outside):
    supervised = outside(DEAF, grace=0.5)
    number = int(supervised.wait_for("me")[0][3])

    supervised.process.terminate()

    assert supervised.process.wait(PATIENCE) == 0
    assert not _is_alive(number)
    assert supervised.lines("did not stop in time")


def test_a_second_signal_does_not_wait(outside):
    supervised = outside(DEAF, grace=600)
    number = int(supervised.wait_for("me")[0][3])

    supervised.process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    supervised.process.send_signal(signal.SIGINT)

    assert supervised.process.wait(PATIENCE) == 0
    assert not _is_alive(number)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's end")
def test_programs_end_with_a_supervisor_that_was_killed(outside):
    supervised = outside(DEAF)
    number = int(supervised.wait_for("me")[0][3])

    supervised.process.kill()

    _until(lambda: not _is_alive(number))


def test_the_pause_doubles_while_a_program_keeps_failing():
    supervisor, output = _inside(_program("bad", "raise SystemExit(3)"))
    deadline = time.monotonic() + 4

    supervisor.run(lambda: _stop_when(supervisor, time.monotonic() > deadline))

    pauses = [line.split()[-2] for line in output.getvalue().splitlines() if "again" in line]
    assert pauses[:3] == ["0.5", "1", "2"]
    assert "bad ended (exit status 3)" in output.getvalue()


def test_a_program_that_does_not_exist_is_said_and_tried_again():
    supervisor, output = _inside(Program("none", ["/no/such/program"]))
    supervisor.children[0].started = time.monotonic() - 600  # it ran well before

    supervisor.run(lambda: _stop_when(supervisor, "again in 1 s" in output.getvalue()))

    assert "none cannot be started" in output.getvalue()
    assert output.getvalue().count("again in 0.5 s") == 1


def test_what_runs_once_ends_when_it_ends_well_and_is_repeated_when_it_fails(tmp_path):
    mark = tmp_path / "tried"
    source = f"""
        from pathlib import Path
        tried = Path({str(mark)!r}).exists()
        Path({str(mark)!r}).touch()
        raise SystemExit(not tried)
    """
    supervisor, output = _inside(_program("stays", "import time; time.sleep(600)"))
    supervisor.add(replace(_program("once", source), once=True))

    supervisor.run(lambda: _stop_when(supervisor, len(supervisor.children) == 1))

    assert output.getvalue().count("once ended (exit status 1)") == 1
    assert "once ended (exit status 0)" not in output.getvalue()


def test_lines_carry_the_name_of_their_program_and_the_last_one_needs_no_end():
    supervisor, output = _inside(
        _program("a", "print('one'); print('two', end='')"),
        _program("longer", "import sys; sys.stdout.buffer.write(b'\\xff\\n')"),
    )

    supervisor.run(lambda: _stop_when(supervisor, output.getvalue().count("starts again") > 1))

    lines = output.getvalue().splitlines()
    assert "a      | one" in lines
    assert "a      | two" in lines
    assert "longer | \N{REPLACEMENT CHARACTER}" in lines


def test_starting_is_asked_until_it_is_true_and_then_no_more():
    supervisor, _ = _inside(_program("a", "import time; time.sleep(600)"))
    asked = []

    def starting() -> bool:
        asked.append(time.monotonic())
        if len(asked) == 3:
            signal.setitimer(signal.ITIMER_REAL, 1)
        return len(asked) == 3

    before = signal.signal(signal.SIGALRM, lambda *_: setattr(supervisor, "signals_seen", 1))
    supervisor.run(starting)
    signal.signal(signal.SIGALRM, before)

    assert len(asked) == 3


def _inside(*programs: Program) -> tuple[Supervisor, io.StringIO]:
    output = io.StringIO()
    return Supervisor(programs, output=output, grace=5), output


def _stop_when(supervisor: Supervisor, enough: bool) -> bool:
    if enough:
        supervisor.signals_seen += 1
    return False
