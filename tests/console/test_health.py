"""`/readyz` tells the truth, and costs next to nothing however often it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import Client

from apps.console import health

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _nothing_known() -> Iterator[None]:
    health._last = None
    yield
    health._last = None


def test_it_is_ready_when_all_migrations_are_applied(client: Client) -> None:
    assert client.get("/livez").content == b"ok\n"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.content) == (200, b"ok\n")


@pytest.mark.parametrize("app", ["core", "runs", "axes"])
def test_it_is_not_ready_while_one_is_missing(client: Client, app: str) -> None:
    name = next(name for found, name in health.newest_migrations() if found == app)
    MigrationRecorder(connection).record_unapplied(app, name)

    answer = client.get("/readyz")
    assert (answer.status_code, answer.content) == (503, b"not ready\n")


def test_it_is_not_ready_without_a_database(client: Client, monkeypatch: Any) -> None:
    def lost(self: Any) -> None:
        raise DatabaseError("canary: the address of the database")

    monkeypatch.setattr(MigrationRecorder, "applied_migrations", lost)

    answer = client.get("/readyz")
    assert (answer.status_code, answer.content) == (503, b"not ready\n")


def test_asking_costs_a_query_or_two_and_then_none_for_a_second(
    client: Client, monkeypatch: Any, django_assert_max_num_queries: Any
) -> None:
    health.newest_migrations()
    monkeypatch.setattr(health, "MigrationLoader", None)  # no migration is loaded again
    moment = 1000.0
    monkeypatch.setattr(health.time, "monotonic", lambda: moment)

    with django_assert_max_num_queries(2):
        assert client.get("/readyz").status_code == 200
    with django_assert_max_num_queries(0):
        assert client.get("/readyz").status_code == 200
    moment += 1.1
    with django_assert_max_num_queries(2) as asked:
        assert client.get("/readyz").status_code == 200
    assert len(asked) > 0
