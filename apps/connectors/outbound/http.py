"""HTTP through `requests`, to addresses that were checked.

The check sits where urllib3 opens its sockets, with the host that urllib3 itself took from the
address, so no other way of reading that address leads around it. Each redirect opens its own
connection, and is checked like the first.
"""

from __future__ import annotations

import socket
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError, NewConnectionError

from apps.connectors.outbound.routes import WEB, OutboundRefused, Purpose, find_route, open_socket


class CheckedSockets:
    """What connections of urllib3 do instead of looking the name up by themselves."""

    purpose: Purpose = WEB
    scheme: str

    def _new_conn(self) -> socket.socket:
        connection: Any = self
        try:
            route = find_route(self.purpose, connection.host, connection.port)
            if self.scheme in self.purpose.local_schemes and not route.is_local:
                raise OutboundRefused(
                    f"{self.scheme}:// is not encrypted, and allowed on this machine only",
                    where=connection.host,
                    remedy="Give an address that begins with https://.",
                )
            return open_socket(route, connection.timeout)
        except socket.gaierror as error:
            raise NameResolutionError(connection.host, connection, error) from error
        except OSError as error:
            raise NewConnectionError(connection, f"no connection: {error}") from error


class _PlainConnection(CheckedSockets, HTTPConnection):
    scheme = "http"


class _TlsConnection(CheckedSockets, HTTPSConnection):
    scheme = "https"


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class CheckedAdapter(HTTPAdapter):
    """Sends requests of a session only where `find_route` allows."""

    def init_poolmanager(self, *arguments: Any, **more: Any) -> None:
        super().init_poolmanager(*arguments, **more)
        self.poolmanager.pool_classes_by_scheme = {"http": _PlainPool, "https": _TlsPool}

    def send(self, request: requests.PreparedRequest, *args: Any, **more: Any) -> Any:
        """Without proxies: they would look names up a second time."""
        parts = urlsplit(str(request.url))
        if parts.scheme not in WEB.schemes | WEB.local_schemes:
            raise OutboundRefused(f"{parts.scheme}:// is not one for {WEB.name} connections")
        if "@" in parts.netloc:
            raise OutboundRefused(
                "an address does not carry a user",
                where=str(parts.hostname),
                remedy="Leave it out.",
            )
        return super().send(request, *args, **{**more, "proxies": {}})


def checked(session: requests.Session) -> requests.Session:
    """Let all requests of this session go through the guard."""
    session.adapters.clear()
    session.mount("https://", CheckedAdapter())
    session.mount("http://", CheckedAdapter())
    return session


def checked_session() -> requests.Session:
    """A session whose requests all go through the guard."""
    return checked(requests.Session())
