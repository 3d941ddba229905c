"""The right to write a dataset: an advisory lock of the session, which the server frees when we
die."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import psycopg

from apps.connectors.errors import TargetBusy


def take_lock(
    connection: psycopg.Connection[Any],
    lock: str,
    lease_seconds: Callable[[], float],
    *,
    where: str,
) -> None:
    """Wait for the named lock for what is left of the lease. Raises TargetBusy."""
    wait = max(int(lease_seconds() * 1000), 1)
    connection.execute("SELECT set_config('lock_timeout', %s, false)", (f"{wait}ms",))
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", (_number(lock),))
    except psycopg.errors.LockNotAvailable:
        raise TargetBusy("another writer holds this target's lock", where=where) from None


def _number(lock: str) -> int:
    digest = hashlib.blake2b(lock.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
