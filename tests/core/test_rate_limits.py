"""A bucket gives as many tokens as it holds, to whoever asks, however many ask at once."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test import RequestFactory

from apps.core import rate_limits
from apps.core.models import RateBucket
from apps.core.rate_limits import RateLimit, forget_full_buckets, place_of, take
from tests.on_postgresql import again_on_postgresql

TEN = RateLimit("ten", most=10, seconds=100)
START = datetime(2026, 1, 1, tzinfo=UTC)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.moment = START
        monkeypatch.setattr(rate_limits, "now", lambda: self.moment)

    def go_on(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.mark.django_db
def test_as_many_as_the_bucket_holds_and_then_one_for_each_that_comes_back(clock: Clock) -> None:
    given = [take(TEN, "a") for _ in range(12)]
    assert [one.allowed for one in given] == [True] * 10 + [False] * 2
    assert [one.remaining for one in given] == [*range(9, -1, -1), 0, 0]
    assert given[-1].wait == pytest.approx(10)

    clock.go_on(9.9)
    assert not take(TEN, "a").allowed
    clock.go_on(0.2)
    assert take(TEN, "a").allowed
    assert not take(TEN, "a").allowed

    clock.go_on(100)
    assert [take(TEN, "a").allowed for _ in range(11)] == [True] * 10 + [False]


@pytest.mark.django_db
def test_buckets_are_apart_by_limit_and_by_subject(clock: Clock) -> None:
    for _ in range(11):
        take(TEN, "a")
    assert not take(TEN, "a").allowed
    assert take(TEN, "b").allowed
    assert take(RateLimit("other", most=10, seconds=100), "a").allowed


@pytest.mark.django_db
def test_the_headers_say_how_much_is_left_and_how_long_to_wait(clock: Clock) -> None:
    assert take(TEN, "a").headers == {
        "RateLimit-Policy": '"ten";q=10;w=100',
        "RateLimit": '"ten";r=9;t=10',
    }
    for _ in range(10):
        refused = take(TEN, "a")
    clock.go_on(3)
    refused = take(TEN, "a")
    assert refused.headers["RateLimit"] == '"ten";r=0;t=7'
    assert refused.headers["Retry-After"] == "7"


@pytest.mark.django_db
def test_neither_names_nor_addresses_are_kept(clock: Clock) -> None:
    take(TEN, "203.0.113.9")
    (kept,) = RateBucket.objects.values_list("digest", flat=True)
    assert "203.0.113" not in kept
    assert len(kept) == 64


@pytest.mark.django_db
def test_full_buckets_are_forgotten(clock: Clock) -> None:
    take(TEN, "a")
    clock.go_on(5)
    take(TEN, "b")
    clock.go_on(6)
    forget_full_buckets()
    assert RateBucket.objects.count() == 1
    assert take(TEN, "b").remaining == 8


@pytest.mark.django_db(transaction=True)
def test_many_at_once_get_no_more_than_there_are() -> None:
    slow = RateLimit("slow", most=15, seconds=1e6)
    allowed: list[bool] = []
    begin = threading.Barrier(4)

    def ask() -> None:
        begin.wait()
        allowed.extend(take(slow, "a").allowed for _ in range(10))
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (allowed.count(True), len(allowed)) == (15, 40)


@pytest.mark.postgresql
@pytest.mark.skipif(connection.vendor == "postgresql", reason="the tests run on it already")
def test_all_of_this_holds_on_postgresql() -> None:
    done = again_on_postgresql("rates", __file__, "-k", "not on_postgresql")

    assert done.returncode == 0, done.stdout[-3000:]


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:bbbb::2", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("", "unknown"),
    ],
)
def test_a_network_of_ipv6_counts_as_one_address(address: str, place: str) -> None:
    assert place_of(RequestFactory().get("/", REMOTE_ADDR=address)) == place
