"""Waiting for writes: one question to the database for all who wait in a process.

Streams of events wait here. While somebody does, the numbers of the datasets that are waited for
are read every `EVERY` seconds, by one task of the event loop, however many wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from uuid import UUID
from weakref import WeakKeyDictionary

from asgiref.sync import sync_to_async
from django.db import close_old_connections

from apps.hub.models import Sequence

EVERY = 0.25


def numbers_of(hosted_ids: Iterable[UUID]) -> dict[UUID, int]:
    """The last committed number of each dataset."""
    close_old_connections()
    try:
        rows = Sequence.objects.filter(hosted__in=list(hosted_ids))
        return dict(rows.values_list("hosted_id", "last"))
    finally:
        close_old_connections()


class Watch:
    """Who waits in one event loop."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[int], tuple[UUID, int]] = {}
        self._task: asyncio.Task[None] | None = None

    async def beyond(self, hosted_id: UUID, number: int, seconds: float) -> int:
        """The number of a dataset once it is beyond this one, or this one when time is up."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting[future] = (hosted_id, number)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._ask())
        try:
            return await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return number
        finally:
            self._waiting.pop(future, None)

    async def _ask(self) -> None:
        read = sync_to_async(numbers_of, thread_sensitive=False)
        while self._waiting:
            try:
                numbers = await read({hosted_id for hosted_id, _ in self._waiting.values()})
            except Exception as error:
                self._fail(error)
                return
            for future, (hosted_id, number) in list(self._waiting.items()):
                found = numbers.get(hosted_id, number)
                if found > number and not future.done():
                    future.set_result(found)
            await asyncio.sleep(EVERY)

    def _fail(self, error: Exception) -> None:
        """The database does not answer: streams end, and clients come again."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(error)


_watches: WeakKeyDictionary[asyncio.AbstractEventLoop, Watch] = WeakKeyDictionary()


def watch() -> Watch:
    """The one of this event loop."""
    loop = asyncio.get_running_loop()
    return _watches.setdefault(loop, Watch())
