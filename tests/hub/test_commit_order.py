"""Whoever reads all the time while others write misses nothing that is committed."""

from __future__ import annotations

import random
import threading
import time
from typing import Any

import orjson
import pytest
from django.db import connection, transaction

from apps.hub.models import HostedDataset, HostedRecord, Replica
from apps.hub.pulling import pull
from apps.hub.selectors import EVERYTHING
from apps.hub.services import pushing
from tests.hub_world import Pusher, account, hosted

WRITERS = 8
PUSHES = 12
MOST_DELAY = 0.01


def delayed(act: Any, chance: random.Random) -> Any:
    """The same, after a moment: commits come in another order than they began."""

    def later(*args: Any, **kwargs: Any) -> Any:
        time.sleep(chance.random() * MOST_DELAY)
        return act(*args, **kwargs)

    return later


class Writer(threading.Thread):
    """Pushes new records, and edits of one that all writers edit."""

    def __init__(self, hub: HostedDataset, replica: Replica, number: int) -> None:
        super().__init__()
        self.pusher = Pusher(hub, replica=replica)
        self.number = number
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            for turn in range(PUSHES):
                edits = [
                    self.pusher.edit(f"{self.number}-{turn}", title="own"),
                    self.pusher.edit("shared", increments={"stock": 1}),
                ]
                pushing.push(self.pusher.hosted, self.pusher.replica, edits, EVERYTHING)
        except BaseException as failure:
            self.failure = failure
        finally:
            connection.close()


@pytest.mark.django_db(transaction=True)
def test_a_reader_that_pages_all_the_time_misses_no_commit(monkeypatch):
    chance = random.Random(7)
    for name in ("load_records", "commit_writes"):
        monkeypatch.setattr(pushing, name, delayed(getattr(pushing, name), chance))
    hub = hosted()
    Pusher(hub).push("shared", title="x", stock=0)
    replicas = [
        Replica.objects.create(account=account(), client_id=f"{n:032x}") for n in range(WRITERS)
    ]
    writers = [Writer(hub, replica, n) for n, replica in enumerate(replicas)]
    for writer in writers:
        writer.start()
    records: dict[str, Any] = {}
    token, pages = "", 0
    is_last = False
    while True:
        is_over = not any(writer.is_alive() for writer in writers)
        page = orjson.loads(pull(hub, EVERYTHING, token, 5).rendered())
        records |= {change["id"]: change["data"] for change in page["changes"]}
        token, pages = page["next"], pages + 1
        if is_last and not page["has_more"]:
            break
        is_last = is_over
    assert [writer.failure for writer in writers] == [None] * WRITERS
    truth = HostedRecord.objects.filter(hosted=hub).values_list("key", "body")
    assert records == {key: orjson.loads(body) for key, body in truth}
    assert len(records) == WRITERS * PUSHES + 1
    assert records["shared"]["stock"] == WRITERS * PUSHES
    assert pages > WRITERS


@pytest.mark.django_db(transaction=True)
def test_a_push_that_dies_before_its_commit_leaves_no_number_behind(monkeypatch):
    hub = hosted()
    one = Pusher(hub)
    edit = one.edit("a", title="x")

    def dies(*args: Any, **kwargs: Any) -> None:
        commit(*args, **kwargs)
        raise KeyboardInterrupt

    commit = pushing.commit_writes
    monkeypatch.setattr(pushing, "commit_writes", dies)
    with pytest.raises(KeyboardInterrupt):
        pushing.push(hub, one.replica, [edit], EVERYTHING)
    monkeypatch.undo()
    assert not transaction.get_connection().in_atomic_block
    assert pushing.push(hub, one.replica, [edit], EVERYTHING)[0].revision == 1
