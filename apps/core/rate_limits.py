"""How often somebody may ask: token buckets in the database, shared by all processes.

A bucket holds `most` tokens and fills up evenly in `seconds`; each request takes one. What is
stored is one number, the moment at which the bucket will be full again (the generic cell rate
algorithm): a request moves it on by `seconds / most`, and is refused where that would lie more than
`seconds` ahead. One statement reads, decides and writes, so processes that ask at once take turns,
on SQLite and on PostgreSQL alike.

Names and addresses are not stored, only a keyed hash of them.
"""

from __future__ import annotations

import ipaddress
import math
from dataclasses import dataclass

from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import salted_hmac

from apps.core.addresses import client_address
from apps.core.clock import now
from apps.core.models import RateBucket

SALT = "apps.core.rate_limits"
# Whoever has one address of IPv6 has all of this network.
IPV6_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most `most` at once, and in the long run `most` in `seconds`. name: as clients see it."""

    name: str
    most: int
    seconds: float

    @property
    def step(self) -> float:
        """Seconds that one token takes to come back."""
        return self.seconds / self.most


@dataclass(frozen=True, slots=True)
class Allowance:
    """What came of a request. remaining: tokens that are left; wait: seconds to the next one."""

    limit: RateLimit
    allowed: bool
    remaining: int
    wait: float

    @property
    def headers(self) -> dict[str, str]:
        """`RateLimit` and `RateLimit-Policy` (draft-ietf-httpapi-ratelimit-headers)."""
        name, wait = self.limit.name, math.ceil(self.wait)
        said = {
            "RateLimit-Policy": f'"{name}";q={self.limit.most};w={math.ceil(self.limit.seconds)}',
            "RateLimit": f'"{name}";r={self.remaining};t={wait}',
        }
        return said if self.allowed else {**said, "Retry-After": str(max(wait, 1))}

    def on(self, response: HttpResponse) -> HttpResponse:
        """The response, with the headers."""
        for name, value in self.headers.items():
            response[name] = value
        return response


def take(limit: RateLimit, subject: str) -> Allowance:
    """Take a token from the bucket of `subject`, if there is one.

    Not to be called in a transaction that may be taken back: that would give the token back.
    """
    moment = now().timestamp()
    digest = salted_hmac(SALT, f"{limit.name}\0{subject}", algorithm="sha256").hexdigest()
    full_at = _move_on(digest, moment, limit)
    allowed = full_at is not None
    if full_at is None:
        kept = RateBucket.objects.filter(pk=digest).values_list("full_at", flat=True).first()
        full_at = moment if kept is None else kept
    free = max(moment + limit.seconds - full_at, 0.0)
    remaining = int(free / limit.step + 1e-9)
    wait = limit.step * (remaining + 1) - free if remaining < limit.most else 0.0
    return Allowance(limit, allowed, remaining, wait)


def _move_on(digest: str, moment: float, limit: RateLimit) -> float | None:
    """When the bucket will be full, after one token was taken; None where there was none."""
    later = "GREATEST" if connection.vendor == "postgresql" else "MAX"
    table = RateBucket._meta.db_table
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {table} AS b (digest, full_at) VALUES (%s, %s) "  # noqa: S608  # nosec B608  # names of our own model
            f"ON CONFLICT (digest) DO UPDATE SET full_at = {later}(b.full_at, %s) + %s "
            f"WHERE {later}(b.full_at, %s) + %s <= %s RETURNING full_at",
            [
                digest,
                moment + limit.step,
                moment,
                limit.step,
                moment,
                limit.step,
                moment + limit.seconds + 1e-6,
            ],
        )
        row = cursor.fetchone()
    return None if row is None else float(row[0])


def forget_full_buckets() -> None:
    """A bucket that is full is as good as none."""
    RateBucket.objects.filter(full_at__lte=now().timestamp()).delete()


def place_of(request: HttpRequest) -> str:
    """Where a request comes from, as limits see it: an address, or its network for IPv6."""
    text = client_address(request)
    if text is None:
        return "unknown"
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv4Address):
        return text
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), IPV6_NETWORK_BITS), strict=False))
