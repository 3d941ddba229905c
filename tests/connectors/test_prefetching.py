"""Reading ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from apps.connectors.prefetching import prefetched


def test_items_come_in_order() -> None:
    assert list(prefetched(iter(range(100)), depth=2)) == list(range(100))


def test_an_error_comes_after_the_items_before_it() -> None:
    def numbers() -> Iterator[int]:
        yield 1
        raise ZeroDivisionError

    ahead = prefetched(numbers(), depth=4)
    assert next(ahead) == 1
    with pytest.raises(ZeroDivisionError):
        next(ahead)


def test_no_more_than_the_depth_is_read_ahead() -> None:
    read: list[int] = []
    reached = threading.Event()

    def numbers() -> Iterator[int]:
        for number in range(100):
            read.append(number)
            if number == 3:
                reached.set()
            yield number

    ahead = prefetched(numbers(), depth=2)
    assert next(ahead) == 0
    assert reached.wait(5)
    assert len(read) == 4  # one taken, two waiting, one in hand
    ahead.close()  # type: ignore[attr-defined]
    assert len(read) == 4


def test_leaving_early_interrupts_a_read_that_waits() -> None:
    woken = threading.Event()

    def numbers() -> Iterator[int]:
        yield 1
        woken.wait(30)
        yield 2

    ahead = prefetched(numbers(), depth=2, interrupt=woken.set)
    assert next(ahead) == 1
    ahead.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name == "lockstep-prefetch"]
