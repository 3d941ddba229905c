"""Streams of events: told at once, by token or by a ticket that opens one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.test import AsyncClient

from apps.api.views import hub_stream
from apps.hub.models import HostedDataset, Ticket
from apps.sources.models import Dataset
from tests.hub_world import Pusher, hosted
from tests.people import administrator
from tests.programs import program

pytestmark = pytest.mark.django_db(transaction=True)


def address(tasks: HostedDataset) -> str:
    return f"/api/v1/datasets/{Dataset.objects.get(name=tasks.name).pk}"


async def next_event(content: AsyncIterator[bytes]) -> Any:
    """The data of the next event that says something."""
    async with asyncio.timeout(20):
        async for piece in content:
            for line in piece.decode().splitlines():
                if line.startswith("data: "):
                    return orjson.loads(line.removeprefix("data: "))
    return None


async def opened(place: str, bearer: str = "") -> Any:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer else {}
    return await AsyncClient().get(place, headers=headers)


def test_a_stream_tells_of_the_last_write_and_of_each_further_one(tasks, root):
    one = Pusher(tasks)
    one.push("a", title="x")
    place = f"{address(tasks)}/stream"

    async def listen() -> None:
        answer = await opened(place, root.bearer)
        assert answer["Content-Type"] == "text/event-stream"
        content = aiter(answer.streaming_content)
        assert await next_event(content) == {"rev": 1}
        await sync_to_async(one.push)("b", title="y")
        assert await next_event(content) == {"rev": 2}
        await content.aclose()

    async_to_sync(listen)()


def test_a_ticket_opens_one_stream_of_its_dataset(tasks, root):
    others = hosted("others")
    place = address(tasks)
    program_place = place.removeprefix("/api/v1/")
    tickets = [root.post(f"{program_place}/ticket").json()["ticket"] for _ in range(2)]
    assert not Ticket.objects.filter(digest__in=tickets).exists()

    async def listen(others_place: str) -> list[int]:
        first = await opened(f"{place}/stream?ticket={tickets[0]}")
        again = await opened(f"{place}/stream?ticket={tickets[0]}")
        elsewhere = await opened(f"{others_place}/stream?ticket={tickets[1]}")
        return [first.status_code, again.status_code, elsewhere.status_code]

    assert async_to_sync(listen)(address(others)) == [200, 403, 403]


def test_who_may_not_pull_may_not_listen(tasks):
    place = f"{address(tasks)}/stream"
    writer = program(administrator(), ["hub:write"])
    assert async_to_sync(opened)(place).status_code == 401
    refused = async_to_sync(opened)(place, writer.bearer)
    assert (refused.status_code, refused.json()["code"]) == (403, "api.insufficient_scope")


def test_a_stream_ends_by_itself(tasks, root, monkeypatch):
    monkeypatch.setattr(hub_stream, "MOST_SECONDS", 0.3)
    place = f"{address(tasks)}/stream"

    async def listen() -> list[bytes]:
        answer = await opened(place, root.bearer)
        return [piece async for piece in answer.streaming_content]

    assert len(async_to_sync(listen)()) >= 2
