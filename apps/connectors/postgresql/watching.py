"""Ending statements of a transaction whose lease runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import psycopg

from apps.connectors.errors import TargetBusy
from apps.connectors.lease_guard import LeaseGuard

_CANCEL_SECONDS = 5.0

_log = logging.getLogger(__name__)


class LeaseWatch:
    """Cancels what the connection runs once the lease is nearly over (`LeaseGuard`)."""

    def __init__(
        self, connection: psycopg.Connection[Any], lease_seconds: Callable[[], float]
    ) -> None:
        """lease_seconds: called from a thread of the watch's own."""
        self._connection = connection
        self._guard = LeaseGuard(lease_seconds, self.cancel)

    def start(self) -> None:
        self._guard.start()

    def stop(self) -> None:
        self._guard.stop()

    def check(self, where: str) -> None:
        """Raises TargetBusy when the lease has run out."""
        if self._guard.has_ended:
            raise TargetBusy("the lease is over", where=where)

    def cancel(self) -> None:
        """End what the connection runs."""
        try:
            self._connection.cancel_safe(timeout=_CANCEL_SECONDS)
        except psycopg.Error:
            _log.warning("a statement could not be cancelled")
