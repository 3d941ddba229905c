"""Whether a transaction was committed, asked afterwards: the server remembers it for a while.

A number counts only for the start of the server that gave it. After a restart, or from a standby
that took over, the answer is that nobody knows: a commit may not have reached it.
"""

from __future__ import annotations

from typing import Any

import psycopg

_STARTED = "extract(epoch FROM pg_postmaster_start_time())::text"
_STATUS = {"committed": True, "aborted": False}


def current_transaction(connection: psycopg.Connection[Any]) -> str:
    """The number of the running transaction and the start of its server, with a blank between."""
    row = connection.execute(f"SELECT txid_current()::text || ' ' || {_STARTED}").fetchone()
    return str(row[0]) if row else ""


def was_committed(connection: psycopg.Connection[Any], transaction: str) -> bool | None:
    """Whether it was committed; None: the server cannot tell (any more)."""
    number, _, started = transaction.partition(" ")
    row = connection.execute(
        f"SELECT CASE WHEN {_STARTED} = %s THEN txid_status(%s::bigint) END", (started, number)
    ).fetchone()
    return _STATUS.get(row[0]) if row else None
