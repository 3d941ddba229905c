"""Where messages arrive in tests: a mail server and a web server of their own, on real sockets."""

from __future__ import annotations

import email
import email.policy
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class MailSink:
    """Takes mail by SMTP and keeps it; refuses recipients whose name begins with `nobody`."""

    port: int = 0
    messages: list[EmailMessage] = field(default_factory=list)


@contextmanager
def mail_sink() -> Iterator[MailSink]:
    sink = MailSink()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 sink")
            for line in iter(self.rfile.readline, b""):
                command = line.decode().strip().upper()
                if command.startswith("DATA"):
                    self.say("354 go on")
                    self.take()
                elif command.startswith("QUIT"):
                    self.say("221 bye")
                    return
                elif command.startswith("RCPT TO:<NOBODY"):
                    self.say("550 no such person")
                else:
                    self.say("250 ok")

        def take(self) -> None:
            lines = iter(lambda: self.rfile.readline().rstrip(b"\r\n"), b".")
            text = b"\n".join(line.removeprefix(b".") for line in lines)
            sink.messages.append(email.message_from_bytes(text, policy=email.policy.default))
            self.say("250 taken")

        def say(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

    with _served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as port:
        sink.port = port
        yield sink


@dataclass
class WebSink:
    """Takes POSTs and keeps them; answers with `status`."""

    url: str = ""
    status: int = 204
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)


@contextmanager
def web_sink() -> Iterator[WebSink]:
    sink = WebSink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            sink.requests.append(({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(sink.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: Any) -> None:
            pass

    with _served(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as port:
        sink.url = f"http://127.0.0.1:{port}/hook"
        yield sink


@contextmanager
def _served(server: socketserver.TCPServer) -> Iterator[int]:
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
