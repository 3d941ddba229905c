"""Forks children for `sandbox_spawning`; run as `python -m apps.engine.sandbox_server SOCKET`.

Over the socket comes, for each child, one byte with three descriptors: the child's input, its
output, and a socket to watch it by. There its process id is told at once, and its exit code when it
has ended; it is killed when the other end is closed. The server has one thread, as forking demands,
and ends when the socket of its own is closed.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
from contextlib import suppress

from apps.engine import sandbox_child
from apps.engine.sandbox_spawning import NUMBER

_DESCRIPTORS = 3


class _Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pid = os.getpid()
        self._watches: dict[int, socket.socket] = {}  # by the child's process id
        self._ended, wakeup = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._poll.register(self._ended, select.POLLIN)

    def serve(self) -> None:
        """Until the control socket is closed."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor == self._control.fileno():
                    if not self._fork():
                        return
                elif descriptor == self._ended:
                    self._reap()
                else:
                    self._kill(descriptor)

    def _fork(self) -> bool:
        """Make the child that is asked for; False when nobody will ask any more."""
        data, descriptors, *_ = socket.recv_fds(self._control, 1, _DESCRIPTORS)
        if not data or len(descriptors) != _DESCRIPTORS:
            return False
        pid = os.fork()
        if pid == 0:
            _become_child(self._pid, *descriptors[:2])
        for descriptor in descriptors[:2]:
            os.close(descriptor)
        watch = socket.socket(fileno=descriptors[2])
        self._watches[pid] = watch
        self._poll.register(watch, select.POLLIN)
        _tell(watch, pid)
        return True

    def _reap(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._ended, 4096)
        with suppress(ChildProcessError):
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                pid, status = found
                watch = self._watches.pop(pid)
                with suppress(KeyError):
                    self._poll.unregister(watch)
                _tell(watch, os.waitstatus_to_exitcode(status))
                watch.close()

    def _kill(self, descriptor: int) -> None:
        """The other end of a watch is closed. The child is not reaped yet, so its id is its own."""
        for pid, watch in self._watches.items():
            if watch.fileno() == descriptor and _is_closed(watch):
                self._poll.unregister(descriptor)
                os.kill(pid, signal.SIGKILL)


def _is_closed(watch: socket.socket) -> bool:
    """Not so where the descriptor was another child's when the poll saw it."""
    try:
        return watch.recv(1, socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _tell(watch: socket.socket, number: int) -> None:
    with suppress(OSError):  # nobody listens any more
        watch.send(NUMBER.pack(number), socket.MSG_NOSIGNAL)


def _become_child(parent: int, child_in: int, child_out: int) -> None:
    """Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        os.dup2(child_in, 0)
        os.dup2(child_out, 1)
        os.closerange(3, 256)
        sandbox_child.main(parent)
    finally:
        os._exit(1)


def main() -> None:
    gc.freeze()  # the children share what is loaded, and need not look through it
    _Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
    os._exit(0)  # and the children with it: they asked the kernel for that


if __name__ == "__main__":
    main()
