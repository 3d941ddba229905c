"""Checksums where the network is slow, reading where it is fast: by what was measured."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from apps.connectors.base import DigestField, DigestRequest, ReadRequest
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.types import INTEGER
from apps.engine.checksum import ComparedKeys, DigestComparison
from apps.engine.delta_costs import Method, SideFacts, choose, costs_of, measure
from tests.servers import postgresql_connection, postgresql_database
from tests.slow_link import SlowLink, slow_link

MILLION = SideFacts(
    rows=1_000_000,
    round_trip=0.0002,
    read_rows=2_000,
    read_bytes=400_000,
    read_seconds=0.002,
    digest_rows=5_000,
    digest_seconds=0.025,
)


def over(link_bytes_per_second: float, round_trip: float) -> SideFacts:
    return replace(
        MILLION,
        round_trip=round_trip,
        read_seconds=MILLION.read_bytes / link_bytes_per_second,
    )


def test_neighbours_are_read() -> None:
    choice = choose(MILLION, MILLION)
    assert choice.method is Method.READ
    assert choice.reason == (
        "Both sides are read: about 1.0 s, where checksums take about 7.6 s "
        "(1,000,000 records of some 200 bytes, 200.0 MB/s, 0.2 ms per round trip)."
    )


def test_a_distant_side_is_compared_by_checksums() -> None:
    choice = choose(MILLION, over(1e6, 0.08))
    assert choice.method is Method.CHECKSUM
    assert choice.read_seconds > 200 > 60 > choice.checksum_seconds
    assert choice.reason.startswith("Checksums in the databases: about ")


def test_many_changes_over_a_fair_link_are_read() -> None:
    fair = over(3e7, 0.01)
    assert choose(MILLION, fair, changed=10).method is Method.CHECKSUM
    assert choose(MILLION, fair, changed=500_000).method is Method.READ


def test_few_records_are_read_over_any_link() -> None:
    far = replace(over(1e5, 0.3), rows=1_500)
    choice = choose(far, far)
    assert choice.method is Method.READ
    assert "too few" in choice.reason


ROWS = 40_000


@pytest.fixture(scope="module")
def tables() -> Iterator[dict[str, Any]]:
    """Two tables of 40,000 records of some 300 bytes, of which five differ."""
    with postgresql_database() as settings, postgresql_connection(settings) as connection:
        for name in ("ours", "theirs"):
            connection.execute(f"CREATE TABLE {name} (id bigint PRIMARY KEY, note text)".encode())
            connection.execute(
                f"INSERT INTO {name} SELECT n * 3, repeat(md5(n::text), 9) "
                f"FROM generate_series(1, {ROWS}) n".encode()
            )
        connection.execute("UPDATE theirs SET note = 'edited' WHERE id % 24000 = 0")
        yield settings


def far_away(settings: dict[str, Any], link: SlowLink) -> PostgresqlConnector:
    return PostgresqlConnector(
        PostgresqlSettings(**settings | {"host": "127.0.0.1", "port": link.local_port})
    )


def request_of(connector: PostgresqlConnector, table: str) -> DigestRequest:
    fields = (DigestField("id", "number"), DigestField("note", "text"))
    return DigestRequest(connector.describe(table), ("id",), fields)


@pytest.mark.postgresql
def test_the_link_is_measured_and_the_faster_way_is_faster(tables: dict[str, Any]) -> None:
    near = PostgresqlConnector(PostgresqlSettings(**tables))
    with ExitStack() as stack:
        link = stack.enter_context(
            slow_link(tables["host"], tables["port"], round_trip=0.04, bytes_per_second=3e6)
        )
        far = far_away(tables, link)
        left = stack.enter_context(near.digest_session(request_of(near, "ours")))
        right = stack.enter_context(far.digest_session(request_of(far, "theirs")))
        facts = measure(left, left.count()), measure(right, right.count())
        assert 0.04 <= facts[1].round_trip < 1
        assert facts[1].byte > 1 / 4e6
        choice = choose(*facts, changed=5)
        assert choice.method is Method.CHECKSUM, choice.reason

        link.received = 0
        started = time.perf_counter()
        keys = ComparedKeys((INTEGER,), (0,), (0,))
        comparison = DigestComparison(left, right, keys, costs=costs_of(*facts))
        found = [row for table in comparison.candidates() for row in table.to_pylist()]
        checksum_seconds, checksum_bytes = time.perf_counter() - started, link.received
        assert sorted(row["right_key"] for row in found) == [
            f'["{n}"]' for n in (120000, 24000, 48000, 72000, 96000)
        ]

        started = time.perf_counter()
        request = ReadRequest(far.describe("theirs"), ("id", "note"))
        assert sum(batch.records.num_rows for batch in far.read(request)) == ROWS
        read_seconds, read_bytes = time.perf_counter() - started, link.received - checksum_bytes
    assert checksum_bytes < read_bytes / 50
    assert checksum_seconds < read_seconds
