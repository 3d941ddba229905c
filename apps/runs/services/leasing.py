"""Leases: the right to work on a partition, held by one worker at a time.

A lease has an owner, a fencing token that grows with each owner, and an expiry that a heartbeat
pushes back. A worker that was frozen past the expiry loses the partition to another one; when it
wakes up, its token is old and every write of it is refused (`Lease.fence`).
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, connection, transaction
from django.db.models import F, Q
from django.db.models.functions import Coalesce

from apps.connectors.errors import LeaseLost
from apps.core.clock import now
from apps.runs.models import Partition
from apps.runs.services.errors import RunCancelled
from apps.runs.services.places import Place, are_free, places_of

logger = logging.getLogger(__name__)


def worker_name() -> str:
    return f"{socket.gethostname()}:{os.getpid()}:{threading.get_ident()}"


@dataclass(slots=True)
class Lease:
    """One worker's right to one partition, and to the places that it takes."""

    partition_id: UUID
    owner: str
    token: int
    seconds: float
    places: tuple[Place, ...] = ()
    _renewed: float = field(default_factory=time.monotonic)
    _lost: bool = False

    def remaining(self) -> float:
        """Seconds left, by this machine's monotonic clock; never more than the database grants."""
        return 0.0 if self._lost else max(0.0, self._renewed + self.seconds - time.monotonic())

    def _mine(self) -> Any:
        return Partition.objects.filter(
            pk=self.partition_id, token=self.token, state__in=Partition.WORKABLE
        )

    def renew(self) -> None:
        """Push the expiry back. Raises LeaseLost."""
        moment = time.monotonic()
        if not self._mine().update(lease_until=now() + timedelta(seconds=self.seconds)):
            self._lost = True
            raise LeaseLost("another worker has taken this partition over")
        self._renewed = moment

    def fence(self) -> None:
        """Raises LeaseLost unless the lease is ours and has not run out."""
        if self.remaining() <= 0 or not self._mine().exists():
            self._lost = True
            raise LeaseLost("another worker has taken this partition over")

    def check(self) -> None:
        """Between batches: raises LeaseLost, or RunCancelled when somebody asked for that."""
        row = self._mine().values_list("run__cancel_requested_at", flat=True)[:1]
        found = list(row)
        if not found or self.remaining() <= 0:
            self._lost = True
            raise LeaseLost("another worker has taken this partition over")
        if found[0] is not None:
            raise RunCancelled("the run was cancelled")

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """A transaction on our own database that only the owner of the lease can commit."""
        with transaction.atomic():
            self.renew()
            yield

    def update(self, **values: Any) -> None:
        """Write to the partition's row. Raises LeaseLost."""
        if not self._mine().update(**values):
            self._lost = True
            raise LeaseLost("another worker has taken this partition over")


def acquire(partition_id: UUID, owner: str | None = None) -> Lease | None:
    """Take the partition if it waits for work, nobody holds it and limits leave it a place.

    One that finds no place waits for it: whoever leaves one sends it again (`places.offer`).
    """
    moment = now()
    seconds = float(settings.LOCKSTEP["LEASE_SECONDS"])
    name = owner or worker_name()
    free = Q(lease_until=None) | Q(lease_until__lt=moment)
    due = Q(not_before=None) | Q(not_before__lte=moment)
    places = places_of(partition_id)
    waiting = Partition.objects.filter(free, due, pk=partition_id, state__in=Partition.WORKABLE)
    with transaction.atomic():
        if places and not are_free(places, moment):
            waiting.update(place_wanted_at=Coalesce(F("place_wanted_at"), moment))
            return None
        taken = waiting.update(
            owner=name,
            token=F("token") + 1,
            attempts=F("attempts") + 1,
            lease_until=moment + timedelta(seconds=seconds),
            place_wanted_at=None,
        )
        if not taken:
            return None
        token = Partition.objects.values_list("token", flat=True).get(pk=partition_id)
    return Lease(partition_id, name, token, seconds, places)


def release(lease: Lease, **values: Any) -> bool:
    """Give the partition back. False, and nothing done, when the lease is lost already."""
    given_back = Partition.objects.filter(pk=lease.partition_id, token=lease.token).update(
        lease_until=None, owner="", **values
    )
    return bool(given_back)


@contextmanager
def heartbeat(lease: Lease) -> Iterator[None]:
    """Renew the lease in the background while the body runs."""
    stop = threading.Event()

    def beat() -> None:
        try:
            while not stop.wait(lease.seconds / 4):
                try:
                    lease.renew()
                except LeaseLost:
                    return
                except DatabaseError:
                    logger.warning("heartbeat of %s failed, trying again", lease.partition_id)
        finally:
            connection.close()

    # In-memory SQLite exists per thread's connection: tests that use it work without a heart.
    shared = not connection.settings_dict["NAME"].startswith("file:memorydb")
    thread = threading.Thread(target=beat, name="lease-heartbeat", daemon=True)
    if shared:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        if shared:
            thread.join(timeout=lease.seconds)
