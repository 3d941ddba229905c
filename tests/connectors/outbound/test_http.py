"""HTTP goes to checked addresses, over redirects as well, and TLS checks the name."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import requests

from apps.connectors.outbound import OutboundRefused
from apps.connectors.outbound.http import checked_session
from tests.connectors.outbound.conftest import NameServer, Only
from tests.connectors.outbound.tls_server import RIGHT, WRONG, tls_server

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


class Web(ThreadingHTTPServer):
    """Answers `/to?address` with a redirect there, everything else with its path."""

    asked: list[str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        if self.path.startswith("/to?"):
            self.send_response(302)
            self.send_header("Location", unquote(self.path.removeprefix("/to?")))
        else:
            self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web(("127.0.0.1", 0), _Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def get(address: str, **more: Any) -> requests.Response:
    return checked_session().get(address, timeout=5, **more)


def test_a_second_answer_of_the_name_server_changes_nothing(
    web: Web, names: NameServer, only: Only
) -> None:
    only("loopback")
    names.knows("rebinding.example", ["127.0.0.1"], ["169.254.169.254"])
    assert get(f"http://rebinding.example:{web.server_address[1]}/a").status_code == 200
    assert web.asked == ["/a"]
    assert names.asked == ["rebinding.example"]


@pytest.mark.parametrize(
    "target",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://2852039166/",
        "http://[::ffff:a9fe:a9fe]/",
        "//169.254.169.254/",
        "https://metadata.example/",
    ],
)
def test_a_redirect_is_checked_like_the_first_address(
    target: str, web: Web, names: NameServer
) -> None:
    names.knows("metadata.example", ["169.254.169.254"])
    with pytest.raises(OutboundRefused, match=r"169\.254\.169\.254"):
        get(f"{web.address}/to?{target}")


def test_a_redirect_to_an_allowed_address_is_followed(web: Web) -> None:
    assert get(f"{web.address}/to?{web.address}/b").status_code == 200
    assert web.asked[-1] == "/b"


def test_a_redirect_to_something_else_than_the_web_is_refused(web: Web) -> None:
    with pytest.raises(requests.exceptions.InvalidSchema):
        get(f"{web.address}/to?file:///etc/passwd")


@pytest.mark.parametrize(
    "address",
    [
        "https://127.0.0.1@169.254.169.254/",
        "https://good.example:443@169.254.169.254/",
        "https://127.0.0.1\\@169.254.169.254/",
        "https://169.254.169.254#@127.0.0.1/",
        "https://169.254.169.254?@127.0.0.1/",
        "https://169.254.169.254\\.good.example/",
        "https://0xa9fea9fe/",
        "https://169.254.169.254./",
        "https://[64:ff9b::a9fe:a9fe]/",
        "https://[::ffff:169.254.169.254]:443/",
    ],
)
def test_no_way_of_writing_an_address_leads_around_the_check(
    address: str, only: Only, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("private")

    def connected(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr("socket.socket.connect", connected)
    with pytest.raises((OutboundRefused, requests.RequestException)):
        get(address)


def test_what_is_not_encrypted_stays_on_this_machine(names: NameServer) -> None:
    names.knows("web.example", ["10.0.0.1"])
    with pytest.raises(OutboundRefused, match="not encrypted"):
        get("http://web.example/")


def test_proxies_are_not_asked_to_look_the_name_up(
    web: Web, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, web.address)
    names.knows("metadata.example", ["169.254.169.254"])
    for scheme in ("http", "https"):
        with pytest.raises(OutboundRefused):
            get(f"{scheme}://metadata.example/")
    assert web.asked == []


def test_tls_checks_the_name_not_the_address(tmp_path: Path, names: NameServer) -> None:
    names.knows(RIGHT, ["127.0.0.1"])
    names.knows(WRONG, ["127.0.0.1"])
    with tls_server(tmp_path, answer=ANSWER) as server:
        trusted = {"verify": str(server.certificate)}
        assert get(f"https://{RIGHT}:{server.port}/", **trusted).text == "ok"
        assert server.names == [RIGHT]
        for address in (f"https://{WRONG}:{server.port}/", f"https://127.0.0.1:{server.port}/"):
            with pytest.raises(requests.exceptions.SSLError):
                get(address, **trusted)
        with pytest.raises(requests.exceptions.SSLError):
            get(f"https://{RIGHT}:{server.port}/")
        assert len(server.said) == 1
