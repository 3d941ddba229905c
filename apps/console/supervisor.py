"""Several programs as one foreground process. Standard library only.

Each program runs in its own process group, so that Ctrl-C reaches the supervisor alone and
nothing that a program started is left behind. The loop, some five times a second: pass on what
the programs print, notice the ones that ended, kill the rest of their groups, start them again
after a pause that doubles from 0.5 to 15 seconds. On SIGINT, SIGTERM or SIGHUP every program
gets SIGTERM; after 15 seconds, or at a second signal, its whole group is killed. On Linux the
programs are killed by the kernel when the supervisor itself is.
"""

from __future__ import annotations

import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
STEADY_AFTER = 30.0  # a program that ran this long starts over with the first pause
GRACE = 15.0
LOOP_SECONDS = 0.2
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
COLOURS = ("36", "32", "35", "33", "34")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Program:
    """What to run: `name` is the prefix of its lines, `delay` the seconds until its first start.

    What runs `once` is let go when it ends well; when it fails, it is started again.
    """

    name: str
    command: Sequence[str]
    delay: float = 0.0
    once: bool = False


@dataclass
class Child:
    """A program and its process of the moment."""

    program: Program
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = FIRST_PAUSE
    start_at: float = 0.0
    unfinished: bytes = field(default=b"", repr=False)  # a line whose end has not come yet


class Supervisor:
    """Keeps programs running until a signal says stop."""

    def __init__(
        self,
        programs: Sequence[Program],
        *,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        output: IO[str] | None = None,
        grace: float = GRACE,
    ) -> None:
        now = time.monotonic()
        self.children = [Child(program, start_at=now + program.delay) for program in programs]
        self.environment = dict(os.environ if environment is None else environment)
        self.folder = folder
        self.output = output or sys.stdout
        self.grace = grace
        self.signals_seen = 0
        self._selector = selectors.DefaultSelector()
        self._width = max(len(program.name) for program in programs)
        self._colours = self.output.isatty() and "NO_COLOR" not in os.environ

    def run(self, starting: Callable[[], bool] | None = None) -> int:
        """Run until a stop signal; returns 0.

        `starting` is called again and again until it returns True: the place to wait until the
        programs serve.
        """
        before = {number: signal.signal(number, self._on_signal) for number in STOP_SIGNALS}
        try:
            while not self.signals_seen:
                self._look_after_children()
                self._pass_output_on(LOOP_SECONDS)
                if starting is not None and starting():
                    starting = None
        finally:
            self._stop_all()
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0

    def add(self, program: Program) -> None:
        """Look after one more program."""
        self.children.append(Child(program, start_at=time.monotonic() + program.delay))

    def say(self, text: str) -> None:
        """A line of the supervisor itself."""
        self._print("up", text, colour="1")

    def _on_signal(self, number: int, frame: object) -> None:
        self.signals_seen += 1

    def _look_after_children(self) -> None:
        now = time.monotonic()
        for child in list(self.children):
            if child.process is not None and _has_ended(child.process):
                if self._bury(child) == 0 and child.program.once:
                    self.children.remove(child)
                    continue
                self._plan_restart(child, now)
            if child.process is None and now >= child.start_at:
                self._start(child)

    def _start(self, child: Child) -> None:
        try:
            child.process = subprocess.Popen(
                child.program.command,
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                process_group=0,
                preexec_fn=die_with_parent,
            )
        except OSError as error:
            self.say(f"{child.program.name} cannot be started: {error}")
            self._plan_restart(child, time.monotonic())
            return
        child.started = time.monotonic()
        pipe = _output_of(child.process)
        os.set_blocking(pipe.fileno(), False)
        self._selector.register(pipe, selectors.EVENT_READ, child)

    def _plan_restart(self, child: Child, now: float) -> None:
        if child.started and now - child.started > STEADY_AFTER:
            child.pause = FIRST_PAUSE
        child.started = 0.0
        child.start_at = now + child.pause
        self.say(f"{child.program.name} starts again in {child.pause:g} s")
        child.pause = min(child.pause * 2, LONGEST_PAUSE)

    def _bury(self, child: Child) -> int:
        """Kill what is left of an ended program's group, then let go of it; its exit status."""
        process = child.process
        if process is None:
            return 0
        # Before it is waited for, its number cannot have gone to another process.
        _signal_group(process, signal.SIGKILL)
        status = process.wait()
        self._read(child)
        self._drop_pipe(child)
        child.process = None
        if not self.signals_seen and (status or not child.program.once):
            how = f"signal {-status}" if status < 0 else f"exit status {status}"
            self.say(f"{child.program.name} ended ({how})")
        return status

    def _pass_output_on(self, seconds: float) -> None:
        for key, _ in self._selector.select(seconds):
            self._read(key.data)

    def _read(self, child: Child) -> None:
        if child.process is None:
            return
        pipe = _output_of(child.process)
        while not pipe.closed:
            try:
                piece = os.read(pipe.fileno(), 65536)
            except BlockingIOError:
                return
            if not piece:
                self._drop_pipe(child)
                return
            *lines, child.unfinished = (child.unfinished + piece).split(b"\n")
            for line in lines:
                self._print_line(child, line)

    def _drop_pipe(self, child: Child) -> None:
        if child.process is None or _output_of(child.process).closed:
            return
        if child.unfinished:
            self._print_line(child, child.unfinished)
            child.unfinished = b""
        self._selector.unregister(_output_of(child.process))
        _output_of(child.process).close()

    def _print_line(self, child: Child, line: bytes) -> None:
        colour = COLOURS[self.children.index(child) % len(COLOURS)]
        self._print(child.program.name, line.decode(errors="replace").rstrip(), colour=colour)

    def _print(self, name: str, text: str, *, colour: str) -> None:
        label = f"{name:<{self._width}} |"
        if self._colours:
            label = f"\x1b[{colour}m{label}\x1b[0m"
        try:
            print(label, text, file=self.output, flush=True)
        except OSError:
            return  # nobody reads any more; the programs go on

    def _stop_all(self) -> None:
        running = [child for child in self.children if child.process is not None]
        self.say("stopping; a second Ctrl-C does not wait")
        for child in running:
            if child.process is not None and not _has_ended(child.process):
                child.process.terminate()
        deadline = time.monotonic() + self.grace
        while any(child.process and not _has_ended(child.process) for child in running):
            if time.monotonic() > deadline or self.signals_seen > 1:
                break
            self._pass_output_on(LOOP_SECONDS / 4)
        for child in running:
            if child.process and not _has_ended(child.process):
                self.say(f"{child.program.name} did not stop in time and is killed")
            self._bury(child)


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has ended; leaves it unreaped, so that its number stays its own."""
    if process.returncode is not None:
        return True
    if not hasattr(os, "waitid"):  # macOS before Python 3.13
        return process.poll() is not None
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    try:
        os.killpg(process.pid, number)
    except (ProcessLookupError, PermissionError):
        return  # nothing is left of the group


def _output_of(process: subprocess.Popen[bytes]) -> IO[Any]:
    if process.stdout is None:
        raise RuntimeError("a supervised program writes into a pipe")
    return process.stdout


def die_with_parent() -> None:
    """Runs in the child before it becomes the program: the kernel kills it with its parent."""
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
