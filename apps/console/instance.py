"""One running Lockstep per data folder, one program per port.

Standard library only: `make run` asks `python -m apps.console.instance` before it installs
anything. The lock is an flock on `lockstep.lock` in the data folder; it ends with its process,
however that ends. The file says who holds it: one line of JSON with `pid` and `address`.
"""

from __future__ import annotations

import argparse
import errno
import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = "lockstep.lock"


class CannotStartError(Exception):
    """Something else is where Lockstep wants to be; the text says what to do."""


@contextmanager
def held(data_dir: Path, address: str) -> Iterator[None]:
    """Hold the data folder. Raises CannotStartError when another process holds it."""
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _take(descriptor, data_dir)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps({"pid": os.getpid(), "address": address}).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def refuse_if_running(data_dir: Path) -> None:
    """Raise CannotStartError when a process holds the data folder."""
    try:
        descriptor = os.open(data_dir / LOCK_NAME, os.O_RDWR)
    except FileNotFoundError:
        return
    try:
        _take(descriptor, data_dir)
    finally:
        os.close(descriptor)


def refuse_if_port_is_taken(host: str, port: int) -> None:
    """Raise CannotStartError when nothing new can listen on host and port."""
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(place)
    except OSError as error:
        raise CannotStartError(_why_not(error, host, port)) from None


def address_of(host: str, port: int) -> str:
    """Where a person on this machine finds it."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, host)  # noqa: S104  # nosec B104  # read, not bound to
    if ":" in name and not name.startswith("["):
        name = f"[{name}]"
    return f"http://{name}:{port}/"


def _take(descriptor: int, data_dir: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise CannotStartError(_who_holds(descriptor, data_dir)) from None


def _who_holds(descriptor: int, data_dir: Path) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        where = f" at {holder['address']} (process {holder['pid']})"
        stop = f"Stop it with Ctrl-C in its window, or: kill {holder['pid']}"
    except (ValueError, KeyError):  # the holder is just starting
        where, stop = "", "Stop it with Ctrl-C in its window."
    return (
        f"Lockstep already runs{where} on the data folder {data_dir}.\n{stop}\n"
        "For a second one beside it: make run PORT=… LOCKSTEP_DATA_DIR=…"
    )


def _why_not(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        free = next((p for p in range(port + 1, port + 50) if _is_free(host, p)), port + 1)
        return (
            f"Port {port} on {host} is taken by another program.\n"
            f"Choose another one: make run PORT={free}"
        )
    if error.errno == errno.EACCES:
        return f"Port {port} needs more rights. Choose one above 1023: make run PORT=8000"
    return f"Nothing can listen on {host} port {port}: {error.strerror or error}."


def _is_free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError:
            return False
        return True


def main() -> int:
    """0 when Lockstep may start here, else 1 and the reason on stderr."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    here = Path(__file__).resolve().parent.parent.parent
    try:
        refuse_if_running(Path(os.environ.get("LOCKSTEP_DATA_DIR") or here / "data"))
        refuse_if_port_is_taken(arguments.host, arguments.port)
    except CannotStartError as reason:
        print(reason, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
