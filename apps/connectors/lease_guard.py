"""Ends a long statement when the lease that it runs under ends.

Other statements get a deadline from the server. A load takes as long as its data, and its lease
is renewed meanwhile, so the lease itself is watched: as long as it is renewed, nothing happens.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)

_MARGIN_SHARE = 0.2
_LONGEST_PAUSE, _SHORTEST_PAUSE = 1.0, 0.02  # seconds


class LeaseGuard:
    """Calls `end` once, in a thread of its own, when a fifth of the lease or less is left."""

    def __init__(self, lease_seconds: Callable[[], float], end: Callable[[], None]) -> None:
        self._lease_seconds = lease_seconds
        self._end = end
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lease-guard", daemon=True)
        self.has_ended = False

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Afterwards `end` is neither called nor running."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _left(self) -> float:
        try:
            return self._lease_seconds()
        except Exception:
            _log.exception("what is left of a lease could not be found out")
            return 0.0

    def _watch(self) -> None:
        longest = 0.0
        pause = 0.0
        while not self._stopped.wait(pause):
            left = self._left()
            longest = max(longest, left)
            spare = left - longest * _MARGIN_SHARE
            if spare <= 0:
                self.has_ended = True
                self._end()
                return
            pause = min(max(spare, _SHORTEST_PAUSE), _LONGEST_PAUSE)
