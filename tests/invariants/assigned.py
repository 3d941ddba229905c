"""People on two platforms that give out their own keys; one of them keeps mails unique."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from apps.ledger.models import Conflict, Rejection
from apps.ledger.selectors import link_batches
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from bench.accounting import read_kept
from tests.invariants.crashes import Crash, crash_at, forget_leases
from tests.platforms import PLAIN_FIELDS, TwoWayPair

MAILS = ("ann@x.org", "bob@x.org", "cid@x.org", None)
MOST_RUNS = 6
COLUMNS = {
    "left": ("customers", "id", "name", "email"),
    "right": ("clients", "client_id", "full_name", "mail"),
}
SHOUTS = """
    CREATE TRIGGER shouts AFTER INSERT ON clients
    BEGIN UPDATE clients SET full_name = upper(full_name) WHERE client_id = new.client_id; END
"""
Row = tuple[Any, ...]


@dataclass
class Assigned:
    """A pair whose keys each side assigns, and what people wrote into it.

    written: side and name of each text that a side acknowledged; removed: those that a person took
    away again there.
    """

    folder: Path
    name: str
    random: Random
    written: set[tuple[str, str]] = field(default_factory=set)
    removed: set[tuple[str, str]] = field(default_factory=set)
    number: int = 0

    def __post_init__(self) -> None:
        facts = {"policy": self.random.choice(("left", "right")), "refuse_empty_source": False}
        fields = PLAIN_FIELDS[1:]
        self.pair = TwoWayPair(self.folder, name=self.name, fields=fields, facts=facts)
        if self.random.random() < 0.5:
            self.pair.on_right(SHOUTS)

    def rows(self, side: str) -> dict[int, Row]:
        """Name, mail and balance by key."""
        found = self.pair.customers() if side == "left" else self.pair.clients()
        return {row[0]: row[1:] for row in found}

    def edit(self) -> None:
        """A person creates, edits or deletes a record on one of the sides."""
        side = self.random.choice(("left", "right"))
        rows = self.rows(side)
        if not rows or self.random.random() < 0.4:
            self._create(side)
            return
        key = self.random.choice(sorted(rows))
        kind = self.random.choice(("name", "name", "mail", "delete"))
        getattr(self, f"_{kind}")(side, key, rows[key][0])

    def _token(self) -> str:
        self.number += 1
        return f"T{self.number}."  # capitals: a trigger may make them

    def _execute(self, side: str, sql: str, *values: Any) -> bool:
        """Whether the side took it: it may say that a mail address is taken."""
        table, key, name, mail = COLUMNS[side]
        run = self.pair.on_left if side == "left" else self.pair.on_right
        try:
            run(sql.format(table=table, key=key, name=name, mail=mail), *values)
        except sqlite3.IntegrityError:
            return False
        return True

    def _create(self, side: str) -> None:
        token, mail = self._token(), self.random.choice(MAILS)
        sql = "INSERT INTO {table} ({name}, {mail}, balance) VALUES (?, ?, ?)"
        if self._execute(side, sql, token, mail, self.number):
            self.written.add((side, token))

    def _name(self, side: str, key: int, old: str) -> None:
        token = self._token()
        if self._execute(side, "UPDATE {table} SET {name} = ? WHERE {key} = ?", token, key):
            self.written.add((side, token))
            self.removed.add((side, old))

    def _mail(self, side: str, key: int, _: str) -> None:
        mail = self.random.choice(MAILS)
        self._execute(side, "UPDATE {table} SET {mail} = ? WHERE {key} = ?", mail, key)

    def _delete(self, side: str, key: int, old: str) -> None:
        if self._execute(side, "DELETE FROM {table} WHERE {key} = ?", key):
            self.removed.add((side, old))

    def run(self, crash: int) -> Run:
        """A run whose worker may die at this step; another one takes over."""
        asked = request_run(self.pair.rule, actor=None)
        try:
            with crash_at(crash):
                work_until_finished(asked)
        except Crash:
            forget_leases()
        return work_until_finished(asked)

    def come_to_rest(self) -> Run:
        """Runs until nothing is written any more, or the most that it may take."""
        for _ in range(MOST_RUNS):
            run = self.run(0)
            if not run.written:
                break
        return run

    def failures(self) -> Iterator[str]:
        """What does not hold though it must, when both sides are at rest."""
        sides = {side: self.rows(side) for side in COLUMNS}
        yield from self._unequal(sides)
        for side, rows in sides.items():
            names = [row[0] for row in rows.values()]
            yield from (f"{n} is twice on the {side}" for n in set(names) if names.count(n) > 1)
        kept = read_kept(self.pair.rule.pk)
        there = {(side, row[0]) for side, rows in sides.items() for row in rows.values()}
        for side, token in self.written - self.removed - there:
            if token not in kept.overwritten[side]:
                yield f"{token} of the {side} is lost"

    def _unequal(self, sides: dict[str, dict[int, Row]]) -> Iterator[str]:
        """Linked records are equal and others have no counterpart, but what waits for a person."""
        waiting = {side: set(_waiting(self.pair, side)) for side in sides}
        alone = {side: set(rows) for side, rows in sides.items()}
        for left, right in _links(self.pair):
            alone["left"].discard(left)
            alone["right"].discard(right)
            waits = left in waiting["left"] or right in waiting["right"]
            if not waits and sides["left"].get(left) != sides["right"].get(right):
                yield f"{left} and {right}: {sides['left'].get(left)} {sides['right'].get(right)}"
        for side, keys in alone.items():
            yield from (f"{side} {key} is nobody's" for key in keys - waiting[side])


def _links(pair: TwoWayPair) -> Iterator[tuple[int, int]]:
    for links in link_batches(pair.rule.pk):
        for row in links.to_pylist():
            yield _number(row["left_key"]), _number(row["right_key"])


def _waiting(pair: TwoWayPair, side: str) -> Iterator[int]:
    """Keys of the records that are in an open conflict or rejection."""
    for conflict in Conflict.objects.filter(rule_id=pair.rule.pk, state="open"):
        keys = [getattr(conflict, f"{side}_key")]
        yield from (_number(key) for key in keys if key)
    for rejection in Rejection.objects.filter(rule_id=pair.rule.pk, state="open"):
        own = rejection.left_key if side == "left" else rejection.position.rpartition(" ")[2]
        if own.startswith("["):
            yield _number(own)


def _number(key: str) -> int:
    return int(key[2:-2])
