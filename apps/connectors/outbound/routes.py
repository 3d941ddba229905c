"""From a host's name to addresses that were checked, and to a socket that leads to one of them."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from apps.connectors.errors import ConfigurationError
from apps.connectors.outbound.networks import (
    BY_WORD,
    Address,
    AllowedNetworks,
    Place,
    address_of,
    range_of,
)

NETWORKS_VARIABLE = "LOCKSTEP_ALLOWED_NETWORKS"
PORTS_VARIABLE = "LOCKSTEP_ALLOWED_PORTS"
FIRST_FREE_PORT = 1024  # below it live the services of machines: mail, shells, name servers

# What a name is made of; never what separates the parts of an address, or names in a list.
_NAME = re.compile(r"[^\s/\\@?#,;'\"<>|`\x00-\x20\x7f]{1,255}")


class OutboundRefused(ConfigurationError):
    code = "source.address_refused"
    default_remedy = "Give an address that this installation allows."


@dataclass(frozen=True, slots=True)
class Purpose:
    """One kind of connection.

    ports: those below 1024 that it may use; above, all may be used;
    schemes: those of its addresses, where it has addresses with a scheme;
    local_schemes: those that are allowed on this machine alone, because they are not encrypted.
    """

    name: str
    ports: frozenset[int] = frozenset()
    schemes: frozenset[str] = frozenset()
    local_schemes: frozenset[str] = frozenset()


POSTGRESQL = Purpose("PostgreSQL")
MYSQL = Purpose("MySQL")
WEB = Purpose("web", frozenset({80, 443}), frozenset({"https"}), frozenset({"http"}))


@dataclass(frozen=True, slots=True)
class _Rules:
    networks: AllowedNetworks
    ports: frozenset[int]


_rules = _Rules(AllowedNetworks(), frozenset())


def allow_outbound(networks: AllowedNetworks, ports: Iterable[int] = ()) -> None:
    """Say where this installation may connect to; ports: more of them, for every purpose."""
    global _rules
    _rules = _Rules(networks, frozenset(ports))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One checked address, in the form that sockets take."""

    address: Address
    family: socket.AddressFamily
    target: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """A host, and its addresses, all of which may be connected to; the first one is preferred."""

    host: str
    port: int
    endpoints: tuple[Endpoint, ...]

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(str(endpoint.address) for endpoint in self.endpoints)

    @property
    def is_local(self) -> bool:
        return all(range_of(e.address)[0] is Place.LOOPBACK for e in self.endpoints)


def find_route(purpose: Purpose, host: str, port: int) -> Route:
    """Look a host up, once, and check what it is. Raises OutboundRefused, socket.gaierror.

    One address that is not allowed refuses the host: which of several a connection takes is in
    the hands of whoever answers for the name.
    """
    if not _NAME.fullmatch(host):
        raise OutboundRefused(
            "this is not the name or address of a host",
            where=host[:80],
            remedy="Give a name such as db.example.org, or an address; the port stands apart.",
        )
    if port < FIRST_FREE_PORT and port not in purpose.ports | _rules.ports:
        raise OutboundRefused(
            f"port {port} is not one for {purpose.name} connections",
            where=host,
            remedy=f"Correct the port, or have it added to {PORTS_VARIABLE} on the server.",
        )
    endpoints = tuple(dict.fromkeys(_endpoints(host, port)))
    for endpoint in endpoints:
        if not _rules.networks.permits(endpoint.address):
            raise _refused(host, endpoint.address)
    return Route(host, port, endpoints)


def _endpoints(host: str, port: int) -> Iterable[Endpoint]:
    for family, _, _, _, target in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        address = address_of(str(target[0]))
        if family is socket.AF_INET6 and address.version == 4:
            yield Endpoint(address, socket.AF_INET, (str(address), port))
        else:
            yield Endpoint(address, family, target)


def _refused(host: str, address: Address) -> OutboundRefused:
    place = range_of(address)[0]
    kind = f"{place} address" if place is not Place.TRANSLATED else f"address that is {place}"
    said = str(address) if str(address) == host else f"{host} is {address}"
    entry = f"{address}/{address.max_prefixlen}"
    entry += " (or its network)" if place in BY_WORD else ""
    return OutboundRefused(
        f"{said}: connections to this {kind} are not allowed",
        where=host,
        remedy=f"If it is meant, an administrator adds {entry} to {NETWORKS_VARIABLE} "
        "on every machine of Lockstep.",
    )


def require_sockets(path: str) -> None:
    """Raise OutboundRefused unless sockets of this machine may be used."""
    if not _rules.networks.sockets:
        raise OutboundRefused(
            "connections through a socket of this machine are not allowed",
            where=path,
            remedy="Give the name of a host, or have the word sockets added to "
            f"{NETWORKS_VARIABLE} on the server.",
        )


def open_socket(route: Route, timeout: float | None) -> socket.socket:
    """Connect to the first address of a route that answers. Raises OSError.

    timeout: seconds for each address.
    """
    last: OSError = OSError("the host has no address")
    for endpoint in route.endpoints:
        connection = socket.socket(endpoint.family, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout)
            connection.connect(endpoint.target)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        except OSError as error:
            connection.close()
            last = error
        else:
            return connection
    raise last
