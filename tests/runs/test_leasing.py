"""Leases: one owner at a time, and a zombie cannot write."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apps.connectors.errors import ConnectionLost, LeaseLost
from apps.connectors.sqlite import SqliteConnector
from apps.core.clock import now
from apps.ledger.models import Change
from apps.runs.models import Partition, Run
from apps.runs.services import request_run, work, work_until_finished
from apps.runs.services.applying import PartitionApply
from apps.runs.services.leasing import acquire, release
from tests.platforms import PLAIN_FIELDS, Pair, lines

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(10)
    return pair


def first_partition(run: Run) -> Partition:
    return run.partitions.get()


def test_a_partition_has_one_owner_and_the_token_grows(pair: Pair) -> None:
    part = first_partition(request_run(pair.rule, actor=None))
    lease = acquire(part.pk, "one")
    assert lease is not None
    assert acquire(part.pk, "two") is None
    release(lease)
    taken = acquire(part.pk, "two")
    assert taken is not None
    assert taken.token == lease.token + 1


def test_an_expired_lease_is_taken_over_and_the_first_owner_is_fenced_off(pair: Pair) -> None:
    part = first_partition(request_run(pair.rule, actor=None))
    zombie = acquire(part.pk, "zombie")
    assert zombie is not None
    Partition.objects.update(lease_until=now() - timedelta(seconds=1))
    assert acquire(part.pk, "heir") is not None
    for refused in (zombie.fence, zombie.renew, zombie.check):
        with pytest.raises(LeaseLost):
            refused()
    with pytest.raises(LeaseLost), zombie.transaction():
        Run.objects.update(cause="written by a zombie")
    assert not Run.objects.filter(cause="written by a zombie").exists()
    release(zombie, state=Partition.State.DONE)
    assert first_partition(Run.objects.get()).state == Partition.State.TO_PLAN


def test_a_zombie_in_the_middle_of_applying_writes_nothing_more(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first worker is frozen between two batches; another one finishes; then it wakes up."""
    monkeypatch.setattr(
        SqliteConnector,
        "capabilities",
        SqliteConnector.capabilities.__class__(
            read=True, write=True, key_lookup=True, cursor=True, delete=True, batch_rows=3
        ),
    )
    run = request_run(pair.rule, actor=None)
    while run.status != "applying":
        for part in run.partitions.filter(state="to_plan"):
            work(part.pk)
        run.refresh_from_db()
    part = run.partitions.select_related("run__rule__mapping").get(kind="records")
    lease = acquire(part.pk, "zombie")
    assert lease is not None
    zombie = PartitionApply(part, lease)
    real = zombie._apply_and_settle
    frozen = []

    def freeze_after_first(writer: Any, batch: Any) -> None:
        real(writer, batch)
        if not frozen:
            frozen.append(True)
            Partition.objects.update(lease_until=now() - timedelta(seconds=1))
            heir = acquire(part.pk, "heir")
            assert heir is not None
            release(heir)

    monkeypatch.setattr(zombie, "_apply_and_settle", freeze_after_first)
    with pytest.raises(LeaseLost):
        zombie.execute()
    assert len(pair.clients()) == 3
    run = work_until_finished(run)
    assert (run.status, run.inserted) == ("succeeded", 10), lines(run)
    assert Change.objects.filter(outcome="applied").count() == 10


def test_an_error_that_may_pass_is_tried_again_and_then_succeeds(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = SqliteConnector.read
    failures = iter([True, True])

    def flaky(self: SqliteConnector, request: Any) -> Any:
        if next(failures, False):
            raise ConnectionLost("the line was cut")
        return real(self, request)

    monkeypatch.setattr(SqliteConnector, "read", flaky)
    run = request_run(pair.rule, actor=None)
    for _ in range(4):
        for part in run.partitions.filter(state__in=Partition.WORKABLE):
            work(part.pk)
        Partition.objects.update(not_before=None)
    run = work_until_finished(run)
    assert (run.status, run.inserted) == ("succeeded", 10), lines(run)
    assert run.log.filter(level="warning", message__contains="Trying again").count() == 2


def test_an_error_that_does_not_pass_ends_the_run_after_a_bounded_number_of_tries(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: SqliteConnector, request: Any) -> Any:
        raise ConnectionLost("the line was cut")

    monkeypatch.setattr(SqliteConnector, "read", cut)
    run = request_run(pair.rule, actor=None)
    for _ in range(20):
        Partition.objects.update(not_before=None)
        for part in run.partitions.filter(state__in=Partition.WORKABLE):
            work(part.pk)
    run.refresh_from_db()
    assert (run.status, run.cause_code) == ("failed", "source.connection_lost")
    assert run.partitions.get().failures == 6


def test_an_unforeseen_error_ends_the_run_and_shows_no_value(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: SqliteConnector, request: Any) -> Any:
        raise sqlite3.ProgrammingError("secret value 4711")

    monkeypatch.setattr(SqliteConnector, "read", broken)
    run = pair.run()
    assert (run.status, run.cause_code) == ("failed", "internal")
    assert "4711" not in run.cause
    assert "4711" not in lines(run)
