"""Decide between checksums and reading, from what both sides were measured to cost.

Reading sends every record over the network once and hashes it here. Checksums have the databases
hash every record, which takes them longer than sending it to a neighbour does, and then send a
few bytes per span and per record of the spans that differ. So reading wins where the network is
fast, checksums where it is slow or metered; the measurements tell where the line is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from apps.connectors.base import DigestSession
from apps.engine.checksum import FIRST_SPANS, SMALL_ROWS, SPAN_BYTES, Costs

PINGS = 3
TWICE = 2  # a busy server answers one of two questions late
READ_ROWS = 2_000
DIGEST_ROWS = 5_000
STATEMENTS = 8
"""So many statements an ordinary comparison takes per side, opening included."""

CHANGED_SHARE = 0.0005
"""Of the records, where nobody knows how many have changed."""


class Method(StrEnum):
    CHECKSUM = "checksum"
    READ = "read"


@dataclass(frozen=True, slots=True)
class SideFacts:
    """One side, measured. Seconds; `read_bytes` of `read_rows` records with the compared fields.

    round_trip: of a statement that does nothing; read_seconds, digest_seconds: of the samples,
    without the round trip.
    """

    rows: int
    round_trip: float
    read_rows: int
    read_bytes: int
    read_seconds: float
    digest_rows: int
    digest_seconds: float

    @property
    def row_bytes(self) -> float:
        return self.read_bytes / max(self.read_rows, 1)

    @property
    def read_row(self) -> float:
        """Seconds to read one record."""
        return self.read_seconds / max(self.read_rows, 1)

    @property
    def byte(self) -> float:
        """Seconds to receive one byte: all that reading takes, as if it were the network's."""
        return self.read_seconds / max(self.read_bytes, 1)

    @property
    def costs(self) -> Costs:
        digest = self.digest_seconds / max(self.digest_rows, 1)
        return Costs(self.round_trip, self.byte, digest)

    @property
    def seconds_to_read(self) -> float:
        return 2 * self.round_trip + self.rows * self.read_row

    def seconds_to_checksum(self, changed: int) -> float:
        """With so many changed records, each in a span of its own at worst."""
        spans = max(min(math.isqrt(self.rows), FIRST_SPANS), 1)
        hit = min(changed, spans)
        fetched = min(self.rows, hit * max(self.rows // spans, 1), changed * SMALL_ROWS)
        whole = self.rows * self.costs.digest + spans * SPAN_BYTES * self.byte
        return STATEMENTS * self.round_trip + whole + self.costs.rows(fetched)


@dataclass(frozen=True, slots=True)
class Choice:
    """How differences are found, what each way was estimated to take, and why, for people."""

    method: Method
    checksum_seconds: float
    read_seconds: float
    reason: str


def measure(
    session: DigestSession, rows: int, *, clock: Callable[[], float] = time.perf_counter
) -> SideFacts:
    """Measure a side of so many records: a handful of statements and a few hundred KB."""

    def timed(action: Callable[[], object]) -> float:
        start = clock()
        action()
        return clock() - start

    round_trip = min(timed(session.ping) for _ in range(PINGS))
    sizes: list[tuple[int, int]] = []
    read = min(timed(lambda: sizes.append(session.read_sample(READ_ROWS))) for _ in range(TWICE))
    digested: list[int] = []
    digest = min(
        timed(lambda: digested.append(session.digest_sample(DIGEST_ROWS))) for _ in range(TWICE)
    )
    read_rows, read_bytes = sizes[0]
    return SideFacts(
        rows=rows,
        round_trip=round_trip,
        read_rows=read_rows,
        read_bytes=read_bytes,
        read_seconds=max(read - round_trip, 1e-6),
        digest_rows=digested[0],
        digest_seconds=max(digest - round_trip, 1e-6),
    )


def choose(left: SideFacts, right: SideFacts, changed: int | None = None) -> Choice:
    """The faster way. changed: about how many records differ, as the last run found it.

    Both sides work at the same time either way, so the slower one counts.
    """
    rows = max(left.rows, right.rows)
    expected = max(int(rows * CHANGED_SHARE), 1) if changed is None else changed
    checksum = max(side.seconds_to_checksum(expected) for side in (left, right))
    read = max(side.seconds_to_read for side in (left, right))
    method = Method.CHECKSUM if checksum < read and rows > SMALL_ROWS else Method.READ
    slower = max((left, right), key=lambda side: side.seconds_to_read)
    return Choice(method, checksum, read, _reason(method, checksum, read, rows, slower))


def costs_of(left: SideFacts, right: SideFacts) -> Costs:
    """The costs of a comparison, in which the slower side counts."""
    a, b = left.costs, right.costs
    return Costs(max(a.round_trip, b.round_trip), max(a.byte, b.byte), max(a.digest, b.digest))


def _reason(method: Method, checksum: float, read: float, rows: int, slower: SideFacts) -> str:
    if rows <= SMALL_ROWS:
        return f"Both sides are read: {rows:,} records are too few to be worth checksums."
    facts = (
        f"{rows:,} records of some {slower.row_bytes:,.0f} bytes, "
        f"{1 / slower.byte / 1e6:,.1f} MB/s, {slower.round_trip * 1000:,.1f} ms per round trip"
    )
    if method is Method.CHECKSUM:
        return (
            f"Checksums in the databases: about {checksum:,.1f} s, "
            f"where reading both sides takes about {read:,.1f} s ({facts})."
        )
    return (
        f"Both sides are read: about {read:,.1f} s, "
        f"where checksums take about {checksum:,.1f} s ({facts})."
    )
