"""Moving a table's sequences past numbers that were written without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from apps.connectors.postgresql.connection import literal


def advance_sequence(
    connection: psycopg.Connection[Any],
    run: Callable[[str], psycopg.Cursor[Any]],
    table: str,
    column: str,
    highest: str,
) -> None:
    """Make the next number that the column's sequence gives out a new one.

    run: executes a statement on the connection; table: the qualified, quoted name; highest: the
    query that gives the highest number written. Nothing happens where there is no sequence.
    """
    found = run(f"SELECT pg_get_serial_sequence({literal(table)}, {literal(column)})").fetchone()
    if found is None or found[0] is None:
        return
    try:
        with connection.transaction():
            run(
                f"SELECT setval({literal(found[0])}::regclass, ({highest})) FROM {found[0]} "
                f"WHERE last_value < ({highest})"
            )
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.DataError):
        return  # a sequence that is not ours to move, or that ends before this number
