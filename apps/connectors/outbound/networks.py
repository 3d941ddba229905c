"""What an address is, and whether an installation allows it.

Every address lies in one `Range`. Three kinds of ranges have a word of their own in the settings:
`loopback`, `private`, `public`. All others (link-local, multicast, reserved, translated) are
allowed only by a network that is written for them: `0.0.0.0/0` does not open what lies in them.
Cloud metadata services hand out credentials of the machine; each address has to be named alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Place(StrEnum):
    """What kind of network an address lies in."""

    PUBLIC = "public"
    PRIVATE = "private"
    LOOPBACK = "loopback"
    METADATA = "cloud metadata"
    LINK_LOCAL = "link-local"
    MULTICAST = "multicast"
    RESERVED = "reserved"
    TRANSLATED = "translated to IPv4"


SOCKETS = "sockets"
"""The word for sockets of this machine, which have a path and no address."""

BY_WORD = frozenset({Place.PUBLIC, Place.PRIVATE, Place.LOOPBACK})
WORDS = frozenset({*BY_WORD, SOCKETS})
_EVERYTHING: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))

# The first range that holds an address says what it is.
_RANGES: tuple[tuple[Place, tuple[str, ...]], ...] = (
    (
        Place.METADATA,
        (
            "169.254.169.254/32",  # AWS, Azure, Google, Oracle, OpenStack, DigitalOcean, Hetzner
            "169.254.169.253/32",  # AWS: name server
            "169.254.169.123/32",  # AWS: clock
            "169.254.170.2/32",  # AWS: credentials of containers
            "169.254.170.23/32",  # AWS: credentials of pods
            "fd00:ec2::254/128",  # AWS
            "fd00:ec2::23/128",  # AWS: credentials of pods
            "fd20:ce::254/128",  # Google
            "169.254.42.42/32",  # Scaleway
            "fd00:42::42/128",  # Scaleway
            "100.100.100.200/32",  # Alibaba
            "168.63.129.16/32",  # Azure: the host of a machine
            "192.0.0.192/32",  # Oracle
        ),
    ),
    (Place.LOOPBACK, ("127.0.0.0/8", "::1/128")),
    (
        Place.PRIVATE,
        ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7"),
    ),
    (Place.LINK_LOCAL, ("169.254.0.0/16", "fe80::/10")),
    (Place.MULTICAST, ("224.0.0.0/4", "ff00::/8")),
    (
        Place.RESERVED,
        (
            "0.0.0.0/8",  # reaches this very machine
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "240.0.0.0/4",
            "::/128",  # reaches this very machine
            "100::/64",
            "2001:db8::/32",
            "3fff::/20",
            "5f00::/16",
            "fec0::/10",
        ),
    ),
    (
        Place.TRANSLATED,
        (
            "64:ff9b::/96",  # NAT64
            "64:ff9b:1::/48",  # NAT64 of one's own network
            "::ffff:0:0:0/96",  # SIIT
            "2002::/16",  # 6to4
            "2001::/32",  # Teredo
            "::/96",  # IPv4-compatible
        ),
    ),
    (Place.RESERVED, ("2001::/23",)),
    (Place.PUBLIC, ("0.0.0.0/0", "2000::/3")),
    (Place.RESERVED, ("::/0",)),
)
_PARSED: tuple[tuple[Place, Network], ...] = tuple(
    (place, ip_network(text)) for place, texts in _RANGES for text in texts
)


def _low(address: IPv6Address) -> int:
    return int(address) & 0xFFFFFFFF


# Where the IPv4 addresses are that a translated one leads to; none: it cannot be told.
_INSIDE: tuple[tuple[IPv6Network, Callable[[IPv6Address], tuple[int, ...]]], ...] = (
    (IPv6Network("64:ff9b::/96"), lambda a: (_low(a),)),
    (IPv6Network("::ffff:0:0:0/96"), lambda a: (_low(a),)),
    (IPv6Network("::/96"), lambda a: (_low(a),)),
    (IPv6Network("2002::/16"), lambda a: (int(a) >> 80 & 0xFFFFFFFF,)),
    (IPv6Network("2001::/32"), lambda a: (int(a) >> 64 & 0xFFFFFFFF, _low(a) ^ 0xFFFFFFFF)),
)


def address_of(text: str) -> Address:
    """The address as the network will see it: an IPv4 address that is written as IPv6 is IPv4.

    Without the scope of a link-local one. Raises ValueError.
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def range_of(address: Address) -> tuple[Place, Network]:
    """What an address is, and the range that says so."""
    return next((place, network) for place, network in _PARSED if address in network)


def inside(address: Address) -> list[IPv4Address]:
    """The IPv4 addresses that a translated address leads to, as far as it tells."""
    if isinstance(address, IPv4Address):
        return []
    found = (told(address) for network, told in _INSIDE if address in network)
    return [IPv4Address(number) for number in next(found, ())]


@dataclass(frozen=True, slots=True)
class AllowedNetworks:
    """What an installation may connect to: words, and networks in CIDR notation."""

    words: frozenset[str] = WORDS
    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, entries: Iterable[str]) -> AllowedNetworks:
        """Entries are words or networks. Raises ValueError that names the wrong one."""
        words, networks = set(), list[Network]()
        for entry in entries:
            if entry in WORDS:
                words.add(entry)
                continue
            try:
                networks.append(ip_network(entry))
            except ValueError as error:
                raise ValueError(
                    f"'{entry}' is neither a network nor one of {', '.join(sorted(WORDS))} "
                    f"({error})"
                ) from None
        return cls(frozenset(words), tuple(networks))

    @property
    def sockets(self) -> bool:
        return SOCKETS in self.words

    def permits(self, address: Address) -> bool:
        place, bounds = range_of(address)
        if place in BY_WORD:
            return place in self.words or any(address in n for n in self.networks)
        named = any(address in n and _lies_in(n, bounds) for n in self.networks)
        return named and all(self.permits(inner) for inner in inside(address))


def _lies_in(network: Network, bounds: Network) -> bool:
    if isinstance(network, IPv4Network) and isinstance(bounds, IPv4Network):
        return network.subnet_of(bounds)
    if isinstance(network, IPv6Network) and isinstance(bounds, IPv6Network):
        return network.subnet_of(bounds) and network not in _EVERYTHING
    return False
