"""Limits of a source: places, and rows and bytes per second, over all workers together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from apps.connectors.base import DatasetSchema
from apps.connectors.errors import LeaseLost
from apps.core.clock import now
from apps.rules.services import save_rule
from apps.runs.models import Partition, Run, SourcePace
from apps.runs.services import dispatching, pacing, request_run, work, work_until_finished
from apps.runs.services.errors import RunCancelled
from apps.runs.services.leasing import acquire, release
from apps.runs.services.pacing import Pace, pace_of
from apps.runs.services.places import offer
from apps.runs.services.requesting import cancel_run
from apps.sources.models import Source
from tests.keyed_tables import INTEGER, scene
from tests.platforms import PLAIN_FIELDS, Pair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    messages: list[str] = []
    monkeypatch.setattr(
        dispatching.current_app, "send_task", lambda name, args: messages.extend(args)
    )
    return messages


@pytest.fixture
def runs(tmp_path: Path, sent: list[str]) -> list[Run]:
    """Three runs of three rules that all read the same source, which has one place."""
    pairs = [Pair(tmp_path, name=name, fields=PLAIN_FIELDS) for name in ("a", "b", "c")]
    shared = pairs[0].mapping.left
    for pair in pairs:
        pair.add_customers(3)
        pair.mapping.left = shared
        pair.mapping.save()
    Source.objects.filter(pk=shared.source_id).update(most_partitions=1)
    return [request_run(pair.rule, actor=None) for pair in pairs]


def first(run: Run) -> Any:
    return run.partitions.get(number=0).pk


def test_a_partition_without_a_place_waits_and_is_sent_when_one_is_left(
    runs: list[Run], sent: list[str]
) -> None:
    lease = acquire(first(runs[0]))
    assert lease is not None
    assert acquire(first(runs[2])) is None
    assert acquire(first(runs[1])) is None
    waiting = Partition.objects.get(pk=first(runs[2]))
    assert waiting.place_wanted_at is not None
    assert (waiting.attempts, waiting.failures, waiting.lease_until) == (0, 0, None)
    sent.clear()
    offer(lease.places)
    assert sent == [], "the place is still taken"
    release(lease)
    offer(lease.places)
    assert sent == [str(first(runs[2]))], "who waits longest, and no more than there are places"
    taken = acquire(first(runs[2]))
    assert taken is not None
    assert Partition.objects.get(pk=first(runs[2])).place_wanted_at is None


def test_a_worker_that_has_done_its_step_sends_who_waits(runs: list[Run], sent: list[str]) -> None:
    lease = acquire(first(runs[0]))
    assert lease is not None
    assert work(first(runs[1])) is False
    release(lease)
    sent.clear()
    assert work(first(runs[0]))
    assert str(first(runs[1])) in sent


def test_the_lease_of_a_dead_worker_gives_its_place_back(runs: list[Run]) -> None:
    assert acquire(first(runs[0])) is not None
    assert acquire(first(runs[1])) is None
    Partition.objects.filter(pk=first(runs[0])).update(lease_until=now() - timedelta(seconds=1))
    assert acquire(first(runs[1])) is not None


def test_without_a_limit_nobody_waits(runs: list[Run]) -> None:
    Source.objects.update(most_partitions=None)
    assert all(acquire(first(run)) is not None for run in runs)


def test_runs_get_through_one_place_one_after_the_other(runs: list[Run]) -> None:
    for run in runs:
        done = work_until_finished(run)
        assert done.status == "succeeded", lines(done)


@pytest.mark.parametrize("places", [1, 2])
def test_workers_that_come_at_once_take_no_more_places_than_there_are(
    runs: list[Run], places: int
) -> None:
    Source.objects.filter(most_partitions=1).update(most_partitions=places)
    for _ in range(5):
        barrier = threading.Barrier(len(runs))
        taken: list[Any] = []

        def take(run: Run, barrier: threading.Barrier, taken: list[Any]) -> None:
            barrier.wait()
            taken.append(acquire(first(run)))
            connection.close()

        threads = [threading.Thread(target=take, args=(r, barrier, taken)) for r in runs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        held = [lease for lease in taken if lease is not None]
        assert len(held) == places
        for lease in held:
            release(lease)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    source = pair.mapping.left.source
    source.most_rows_per_second = 1_000
    source.most_bytes_per_second = 50_000
    source.save()
    return source


def waits(pace: Pace) -> float:
    return pace._due - time.monotonic()


def test_what_is_moved_is_paid_for_by_all_workers_together(source: Source) -> None:
    one, other = (pace_of(source, lambda: None) for _ in range(2))
    one.spend(500, 1_000)
    assert waits(one) < 0, "a burst of a second is free"
    other.spend(4_000, 1_000)
    assert waits(other) == pytest.approx(4.5 - pacing.BURST_SECONDS, abs=0.3)
    one.spend(1_000, 0)
    assert waits(one) == pytest.approx(5.5 - pacing.BURST_SECONDS, abs=0.3)


def test_the_scarcer_of_rows_and_bytes_counts(source: Source) -> None:
    pace = pace_of(source, lambda: None)
    pace.spend(1, 500_000)
    assert waits(pace) == pytest.approx(10 - pacing.BURST_SECONDS, abs=0.3)


def test_what_was_not_used_does_not_pile_up(source: Source) -> None:
    pace = pace_of(source, lambda: None)
    SourcePace.objects.update(rows_until=time.time() - 3_600)
    pace.spend(3_000, 0)
    assert waits(pace) == pytest.approx(3 - pacing.BURST_SECONDS, abs=0.3)


def test_batches_are_worth_a_few_seconds(source: Source) -> None:
    pace = pace_of(source, lambda: None)
    dataset = DatasetSchema("t", (), row_count=100, size_bytes=100_000)
    assert pace.batch_rows(20_000, dataset) == 50_000 * pacing.BATCH_SECONDS // 1_000
    assert pace.batch_rows(20_000, replace(dataset, size_bytes=100)) == 1_000 * pacing.BATCH_SECONDS
    assert pace.batch_rows(10, dataset) == 10
    assert Pace().batch_rows(20_000, dataset) == 20_000


def test_an_unlimited_source_has_no_row_and_no_wait(source: Source) -> None:
    source.most_rows_per_second = source.most_bytes_per_second = None
    pace = pace_of(source, lambda: None)
    pace.spend(10**9, 10**12)
    pace.wait()
    assert not SourcePace.objects.exists()


@contextmanager
def working(run: Run) -> Iterator[threading.Thread]:
    """A worker in a thread of its own, which ends with the run."""

    def go_on() -> None:
        work_until_finished(run)
        connection.close()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(60)
        assert not thread.is_alive()


def seen(condition: Callable[[], bool], seconds: float = 20) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_worker_that_waits_for_its_pace_notices_a_cancel(
    tmp_path: Path, sent: list[str], side: str
) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(500)
    slow = getattr(pair.mapping, side).source
    Source.objects.filter(pk=slow.pk).update(most_rows_per_second=5)
    run = request_run(pair.rule, actor=None)
    with working(run):
        assert seen(lambda: SourcePace.objects.filter(rows_until__gt=time.time() + 3).exists())
        time.sleep(0.3)
        cancel_run(run, actor=None)
        began = time.monotonic()
        assert seen(lambda: Run.objects.get(pk=run.pk).status == "cancelled")
        assert time.monotonic() - began < 15.0  # its pace would let it wait far longer


def test_a_lost_lease_ends_the_wait(source: Source) -> None:
    def lost() -> None:
        raise LeaseLost("another worker has taken this partition over")

    pace = replace(pace_of(source, lost))
    pace.spend(100_000, 0)
    began = time.monotonic()
    with pytest.raises(LeaseLost):
        pace.wait()
    assert time.monotonic() - began < 15.0  # its pace would let it wait far longer


def test_a_thread_that_only_moves_records_keeps_no_connection(source: Source) -> None:
    pace = pace_of(source, lambda: None)
    left: list[Any] = []

    def move() -> None:
        pace.spend(10, 10)
        left.append(connection.connection)

    thread = threading.Thread(target=move)
    thread.start()
    thread.join()
    assert left == [None]


def test_a_paced_run_takes_its_time_and_is_complete(tmp_path: Path) -> None:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(300)
    Source.objects.filter(name="pair left").update(most_rows_per_second=150)
    began = time.monotonic()
    run = pair.run()
    assert (run.status, run.inserted) == ("succeeded", 300), lines(run)
    assert time.monotonic() - began > 300 / 150 - pacing.BURST_SECONDS


def test_a_cancelled_wait_is_no_failure(source: Source) -> None:
    def cancelled() -> None:
        raise RunCancelled("the run was cancelled")

    pace = pace_of(source, cancelled)
    pace.spend(100_000, 0)
    with pytest.raises(RunCancelled):
        pace.wait()


@pytest.mark.postgresql
@pytest.mark.parametrize("lane", ["relay", "stream"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_loads_keep_the_rate_and_notice_a_cancel(sent: list[str], side: str, lane: str) -> None:
    with scene(INTEGER, rows=300) as made:
        if lane == "stream":
            made.rule.filter = "a > 0"
            save_rule(made.rule, (), actor=None)
        Source.objects.filter(name=side).update(most_rows_per_second=2)
        run = request_run(made.rule, actor=None)
        with working(run):
            assert seen(lambda: SourcePace.objects.filter(rows_until__gt=time.time() + 3).exists())
            time.sleep(0.5)
            run.refresh_from_db()
            assert run.lane == lane, lines(run)
            cancel_run(run, actor=None)
            began = time.monotonic()
            assert seen(lambda: Run.objects.get(pk=run.pk).status == "cancelled"), lines(run)
            assert time.monotonic() - began < 15.0  # the rows would take two minutes
