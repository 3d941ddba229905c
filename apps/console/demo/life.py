"""What the CRM's users do meanwhile: correct, add and remove a few customers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from apps.console.demo import words
from apps.console.demo.platforms import BUYERS
from apps.core.clock import now


@dataclass(frozen=True, slots=True)
class Touched:
    """How many customers were edited, added and deleted."""

    edited: int
    added: int
    deleted: int


def touch(folder: Path) -> Touched:
    """Edit five customers, add two, delete one (of those who never ordered)."""
    moment = now().strftime("%Y-%m-%d %H:%M:%S")
    with closing(sqlite3.connect(folder / "crm.sqlite3", timeout=30)) as database, database:
        database.execute("BEGIN IMMEDIATE")
        edited = _edit(database, moment)
        added = _add(database, moment)
        deleted = database.execute(
            "DELETE FROM customers WHERE id = (SELECT max(id) FROM customers WHERE id > ? "
            "AND status <> 'closed' AND updated_at < ?)",
            (BUYERS, moment),
        ).rowcount
    return Touched(edited, added, deleted)


def _edit(database: sqlite3.Connection, moment: str) -> int:
    """Those who were left alone longest; one of them closes the account."""
    rows = database.execute(
        "SELECT id FROM customers WHERE status <> 'closed' ORDER BY updated_at, id LIMIT 5"
    ).fetchall()
    for place, (number,) in enumerate(rows):
        status = "closed" if place == 4 else "active"
        database.execute(
            "UPDATE customers SET phone = '+49 30 ' || (6660000 + id), "
            "newsletter = NOT newsletter, status = ?, updated_at = ? WHERE id = ?",
            (status, moment, number),
        )
    return len(rows)


def _add(database: sqlite3.Connection, moment: str) -> int:
    (highest,) = database.execute("SELECT coalesce(max(id), 0) FROM customers").fetchone()
    for number in (highest + 10, highest + 11):
        first = words.FIRST_NAMES[number % len(words.FIRST_NAMES)]
        last = words.LAST_NAMES[number % len(words.LAST_NAMES)]
        database.execute(
            "INSERT INTO customers VALUES (?, NULL, ?, ?, ?, NULL, 'NO', 'lead', 1, ?, ?)",
            (number, first, last, f"{first}.{last}.{number}@Example.org", moment[:10], moment),
        )
    return 2
