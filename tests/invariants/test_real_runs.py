"""Random two-way histories through the real services, with workers that crash."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from apps.ledger.models import Change
from apps.runs.services import request_run, work_until_finished
from tests.invariants.crashes import Crash, crash_at, forget_leases
from tests.invariants.playing import Played
from tests.platforms import CLIENTS, TwoWayPair, lines

pytestmark = pytest.mark.django_db(transaction=True)
HISTORIES = 12
RECORDS = 4


def edit(pair: TwoWayPair, random: Random, number: int) -> None:
    """A person edits, deletes or creates a record on one of the sides."""
    key, name = random.randint(1, RECORDS + 2), f"name {number}"
    if random.random() < 0.5:
        write, table, own, called = pair.on_left, "customers", "id", "name"
    else:
        write, table, own, called = pair.on_right, "clients", "client_id", "full_name"
    if random.random() < 0.2:
        write(f"DELETE FROM {table} WHERE {own} = ?", key)
        return
    write(
        f"INSERT INTO {table} ({own}, {called}, balance) VALUES (?, ?, ?) "
        f"ON CONFLICT ({own}) DO UPDATE SET {called} = excluded.{called}",
        *(key, name, random.randint(1, 99)),
    )


def run(pair: TwoWayPair, crash: int) -> None:
    """A run whose worker may die; another one takes over."""
    asked = request_run(pair.rule, actor=None)
    try:
        with crash_at(crash):
            work_until_finished(asked)
    except Crash:
        forget_leases()
    done = work_until_finished(asked)
    assert done.status in ("succeeded", "partial"), lines(done)


@pytest.mark.parametrize(("share", "partition_rows"), [(0, 1_000), (1, 1_000), (2, 2)])
def test_histories_of_real_runs_converge(
    tmp_path: Path, played: Played, settings: Any, share: int, partition_rows: int
) -> None:
    """In one partition each, and in several, which only tables without other keys are cut into."""
    settings.LOCKSTEP = {**settings.LOCKSTEP, "PARTITION_ROWS": partition_rows}
    clients = (
        CLIENTS if partition_rows > RECORDS else CLIENTS.replace("mail TEXT UNIQUE", "mail TEXT")
    )
    most = 0
    wanted = -(-played.wanted(HISTORIES) // 3)
    for number in range(wanted):
        random = played.random(share, number)
        folder = tmp_path / str(number)
        folder.mkdir()
        facts = {"policy": random.choice(("left", "right")), "max_deletes_percent": None}
        pair = TwoWayPair(
            folder, name=f"history {share} {number}", facts=facts, clients_sql=clients
        )
        pair.add_customers(RECORDS)
        for step in range(random.randint(2, 4)):
            for place in range(random.randint(0, 4)):
                edit(pair, random, step * 10 + place)
            run(pair, random.choice((0, *range(1, 30))))
        run(pair, 0)
        again = pair.run()
        most = max(most, again.partitions.filter(kind="records").count())
        assert (again.planned, again.conflicts) == (0, 0), lines(again)
        assert pair.customers() == pair.clients()
        assert not Change.objects.filter(rule_id=pair.rule.pk, outcome="planned").exists()
        played.add(1, at_least=1)
    assert (most > 1) == (partition_rows < RECORDS)
    assert played.histories >= wanted
