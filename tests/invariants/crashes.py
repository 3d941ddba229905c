"""Crashing at the n-th step that touches a database: the platform's or the target's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from apps.connectors.sqlite import SqliteConnector
from apps.runs.models import Partition
from apps.runs.services import leasing


class Crash(BaseException):
    """The process is gone: nothing below may catch this."""


@contextmanager
def crash_at(step: int) -> Iterator[None]:
    """Raise Crash before or after the commit that comes at this step; 0 never crashes.

    Every transaction under a lease counts two steps (before and after its commit), and so does
    every batch written to the target.
    """
    left = [step]

    def tick() -> None:
        left[0] -= 1
        if left[0] == 0:
            raise Crash

    real_transaction = leasing.Lease.transaction
    real_session = SqliteConnector.write_session

    @contextmanager
    def transaction(self: leasing.Lease) -> Iterator[None]:
        with real_transaction(self):
            yield
            tick()
        tick()

    def write_session(self: SqliteConnector, *args: Any, **options: Any) -> Any:
        session = real_session(self, *args, **options)
        real_apply = session.apply

        def apply(batch: Any, fence: Any, **options: Any) -> Any:
            tick()
            result = real_apply(batch, fence, **options)
            tick()
            return result

        session.apply = apply  # type: ignore[method-assign]
        return session

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leasing.Lease, "transaction", transaction)
        patch.setattr(SqliteConnector, "write_session", write_session)
        yield


def forget_leases() -> None:
    """Time passes: the leases of dead workers run out."""
    Partition.objects.update(lease_until=None, not_before=None)
