from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from apps.connectors.outbound import AllowedNetworks, routes

Only = Callable[..., None]


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Only:
    """Allow these words and networks, and nothing else; `ports` beside those of the purpose."""

    def allow(*entries: str, ports: tuple[int, ...] = ()) -> None:
        rules = routes._Rules(AllowedNetworks.parse(entries), frozenset(ports))
        monkeypatch.setattr(routes, "_rules", rules)

    return allow


class NameServer:
    """Answers for the names that it knows: one list of addresses per question, the last for ever.

    Only Python asks it. What another library looks up by itself is a name that nobody knows.
    """

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo

    def knows(self, name: str, *answers: list[str]) -> None:
        self.names[name] = list(answers)

    def getaddrinfo(self, host: Any, port: Any, *args: Any, **more: Any) -> list[Any]:
        if host not in self.names:
            return self._real(host, port, *args, **more)
        self.asked.append(host)
        answers = self.names[host]
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [found for a in addresses for found in self._real(a, port, *args, **more)]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    server = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", server.getaddrinfo)
    return server
