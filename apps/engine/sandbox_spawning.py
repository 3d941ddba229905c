"""Children for the sandbox, forked by a server that has loaded the libraries already.

Loading them takes longer than most batches. So each process that needs a sandbox starts one server
(`sandbox_server`), which does nothing but fork, end and reap children. A child holds nothing of
the one before it. The server ends with the process that started it, and its children with it.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NUMBER = struct.Struct("!i")


class SpawnFailed(Exception):
    """No child came of it."""


class Process:
    """A child. `to_child` and `from_child` are pipes that do not block.

    It lives as long as `watch`, a socket at whose other end the server tells how the child ended.
    """

    def __init__(
        self, to_child: int, from_child: int, watch: socket.socket, seconds: float
    ) -> None:
        self.to_child, self.from_child = to_child, from_child
        self._watch = watch
        number = self._number(seconds)
        if number is None:
            self.end()
            raise SpawnFailed("the server of the sandbox does not answer")
        self.pid = number

    def _number(self, seconds: float) -> int | None:
        """The next number that the server tells; None when none comes in time."""
        poll = select.poll()
        poll.register(self._watch, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return None
        with suppress(OSError):
            data = self._watch.recv(NUMBER.size, socket.MSG_WAITALL)
            return int(NUMBER.unpack(data)[0]) if len(data) == NUMBER.size else None
        return None

    def status(self, seconds: float) -> int | None:
        """The exit code, below zero for a signal, of a child that ends within these seconds."""
        return self._number(seconds)

    def end(self) -> None:
        """Have it killed."""
        self._watch.close()
        for pipe in (self.to_child, self.from_child):
            with suppress(OSError):
                os.close(pipe)


class _Server:
    """The server of this process, started when it is first needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None

    def spawn(self, seconds: float) -> Process:
        """A new child. Raises SpawnFailed."""
        deadline = time.monotonic() + seconds
        child_in, to_child = os.pipe()
        from_child, child_out = os.pipe()
        watch, theirs = socket.socketpair()
        given = (child_in, child_out, theirs.fileno())
        try:
            self._ask(given)
        except OSError:
            for end in (to_child, from_child):
                os.close(end)
            watch.close()
            raise SpawnFailed("the server of the sandbox is gone") from None
        finally:
            os.close(child_in)
            os.close(child_out)
            theirs.close()
        os.set_blocking(to_child, False)
        os.set_blocking(from_child, False)
        return Process(to_child, from_child, watch, max(0.0, deadline - time.monotonic()))

    def _ask(self, descriptors: tuple[int, ...]) -> None:
        """Hand the child's ends over, to a new server if the last one has gone."""
        with self._lock:
            if self._control is not None:
                try:
                    socket.send_fds(self._control, [b"f"], descriptors)
                    return
                except OSError:
                    self._end()
            self._control = self._start()
            socket.send_fds(self._control, [b"f"], descriptors)

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "apps.engine.sandbox_server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd=ROOT,
                env=_environment(),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._control = self._process = None

    def forget(self) -> None:
        """In a process that was forked: the server is the other process's."""
        if self._control is not None:
            self._control.close()
        self.__init__()  # type: ignore[misc]


def _environment() -> dict[str, str]:
    """Nothing of the parent's environment: it may hold secrets."""
    return {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "ARROW_DEFAULT_MEMORY_POOL": "system",
        "MALLOC_ARENA_MAX": "1",
        "OMP_NUM_THREADS": "1",
        "HOME": "/nonexistent",
    }


_server = _Server()
os.register_at_fork(after_in_child=_server.forget)


def spawn(seconds: float) -> Process:
    """A new child, in no more than these seconds. Raises SpawnFailed."""
    return _server.spawn(seconds)
