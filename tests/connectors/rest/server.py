"""An API on this machine that keeps its records in memory, pages over them and misbehaves.

`Api.on` puts an answer of one's own before those that the API would give; they are used up in
their order.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(slots=True)
class Reply:
    """What the server sends. cut: the connection breaks after so many bytes of the body."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    cut: int | None = None
    reset: bool = False
    hang: threading.Event | None = None

    @property
    def data(self) -> bytes:
        if self.raw is not None:
            return self.raw
        return b"" if self.body is None else json.dumps(self.body).encode()


@dataclass(slots=True)
class Asked:
    """One request as it came."""

    method: str
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    data: bytes
    query: str

    @property
    def body(self) -> Any:
        return json.loads(self.data) if self.data else None


Handler = Callable[[Asked], Reply]


class Api:
    """The server and what it was asked. `handle` answers what nothing else was put before."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.handle: Handler = lambda asked: Reply(404, {"message": "no such path"})
        self._before: list[tuple[str, Reply | Handler]] = []
        self._lock = threading.Lock()
        self.url = ""

    def on(self, path: str, *replies: Reply | Handler) -> None:
        """The next requests of a path are answered so, one after the other."""
        self._before += [(path, reply) for reply in replies]

    def reply(self, asked: Asked) -> Reply:
        with self._lock:
            self.asked.append(asked)
            for place, (path, reply) in enumerate(self._before):
                if path == asked.path:
                    del self._before[place]
                    return reply(asked) if callable(reply) else reply
            return self.handle(asked)

    def count(self, path: str, method: str = "GET") -> int:
        return sum(1 for one in self.asked if (one.method, one.path) == (method, path))


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    api: Api

    def log_message(self, *args: Any) -> None:
        """Quiet."""

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        asked = Asked(
            self.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
            parts.query,
        )
        reply = self.api.reply(asked)
        if reply.hang is not None:
            reply.hang.wait(10)
        if reply.reset:
            self._break()
            return
        data = reply.data
        self.send_response(reply.status)
        headers = {"Content-Type": "application/json", **reply.headers}
        for name, value in headers.items():
            self.send_header(name, value)
        if reply.status not in (204, 304):
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data if reply.cut is None else data[: reply.cut])
        if reply.cut is not None:
            self._break()

    def _break(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error here."""


@contextmanager
def serving() -> Iterator[Api]:
    """An API that answers until the block is left."""
    api = Api()
    handler = type("Handler", (_Request,), {"api": api})
    server = _Server(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
