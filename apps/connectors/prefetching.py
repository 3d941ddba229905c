"""Reading ahead, so that a source and a target work at the same time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


class _Producer(threading.Thread):
    def __init__(self, items: Iterator[object], depth: int) -> None:
        super().__init__(name="lockstep-prefetch", daemon=True)
        self._items = items
        self._stopped = threading.Event()
        self.queue: queue.Queue[tuple[object, BaseException | None, bool]] = queue.Queue(depth)

    def run(self) -> None:
        failure: BaseException | None = None
        try:
            for item in self._items:
                if not self._put((item, None, False)):
                    return
        except BaseException as error:
            failure = error
        self._put((None, failure, True))

    def _put(self, entry: tuple[object, BaseException | None, bool]) -> bool:
        while not self._stopped.is_set():
            try:
                self.queue.put(entry, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def stop(self) -> None:
        self._stopped.set()


def prefetched(
    items: Iterator[T], *, depth: int, interrupt: Callable[[], None] = lambda: None
) -> Iterator[T]:
    """The same items, up to `depth` of them read ahead on a thread of their own.

    interrupt: called from the caller's thread when it stops early, so that a read that waits
    comes to an end. Whatever reading raises is raised here.
    """
    producer = _Producer(items, depth)
    producer.start()
    finished = False
    try:
        while True:
            item, failure, finished = producer.queue.get()
            if failure is not None:
                raise failure
            if finished:
                return
            yield item  # type: ignore[misc]
    finally:
        producer.stop()
        if not finished:
            interrupt()
        producer.join()
