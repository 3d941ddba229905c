"""Writers that edit a table of people without pause, and the journal of what they did.

Every text that is written is unique, so that it can be looked for afterwards. A writer reads the
record that it edits under a lock first: the journal knows which texts a writer removed itself. All
other texts that are missing in the end were overwritten by somebody else.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg

from bench.scene import Table, database_url

TEXTS = ("name", "email", "city", "note")
PEOPLE = Table(
    "people",
    """
    CREATE TABLE people (
        id bigint PRIMARY KEY, name text, email text, city text, note text,
        points bigint NOT NULL DEFAULT 0,
        changed_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
    """
    INSERT INTO people (id, name, email, city, note, changed_at)
    SELECT n, 'name ' || n, 'email ' || n, 'city ' || n, 'note ' || n, '2026-01-01 00:00:00Z'
    FROM generate_series(1, %(rows)s) AS n
    """,
)
INSERT = "INSERT INTO people (id, name, email, city, note) VALUES (%s, %s, %s, %s, %s)"
FIRST_OWN_KEY = 1_000_000


@dataclass(frozen=True, slots=True)
class Written:
    """A text that a side acknowledged; since: when the acknowledgement was here (Unix time)."""

    side: str
    key: int
    field: str
    text: str
    since: float


@dataclass(slots=True)
class Journal:
    """What the writers of both sides did and got acknowledged.

    removed: texts that a writer overwrote or deleted on a side, by (side, text), with the time at
    which that began; points: sum of the increments by key; is_there: whether a writer's last word
    about a record of a side was that it is there.
    """

    written: list[Written] = field(default_factory=list)
    removed: dict[tuple[str, str], float] = field(default_factory=dict)
    points: Counter[int] = field(default_factory=Counter)
    is_there: dict[tuple[str, int], bool] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(
        self,
        what: str,
        side: str,
        key: int,
        began: float,
        texts: dict[str, str],
        removed: dict[str, str | None],
        commit: Callable[[], None],
    ) -> None:
        """Commit a transaction and note it: texts written and removed, by field.

        Both under one lock, so that two writers of a record are noted in the order in which they
        committed.
        """
        with self.lock:
            commit()
            moment = time.time()
            self.counts[what] += 1
            self.written += [Written(side, key, f, text, moment) for f, text in texts.items()]
            self.removed |= {(side, text): began for text in removed.values() if text is not None}
            if what != "update":
                self.is_there[side, key] = what == "insert"

    def count_points(self, key: int, points: int) -> None:
        with self.lock:
            self.counts["increment"] += 1
            self.points[key] += points


class Writer(threading.Thread):
    """Edits one side until it is told to stop.

    Keys up to half of `rows` are never deleted; their points are counted up and down. The others
    are updated, deleted and made again; each writer makes records with keys of its own, too.
    """

    def __init__(
        self,
        number: int,
        side: str,
        database: str,
        rows: int,
        journal: Journal,
        stop: threading.Event,
    ) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.side = side
        self.database = database
        self.rows = rows
        self.journal = journal
        self.stop = stop
        self.random = random.Random(number)
        self.made = 0
        self.problem: Exception | None = None

    def run(self) -> None:
        steps = (self._edit_record, self._increment, self._make_record, self._delete_record)
        try:
            with psycopg.connect(database_url(self.database)) as connection:
                while not self.stop.is_set():
                    (step,) = self.random.choices(steps, weights=(60, 20, 10, 10))
                    step(connection)
        except Exception as problem:  # the measurement is void: said by whoever waits for us
            self.problem = problem

    def _texts(self, names: list[str]) -> dict[str, str]:
        self.made += 1
        return {name: f"{name} {self.number}.{self.made}" for name in names}

    def _any_key(self, first: int = 1) -> int:
        if self.random.random() < 0.1:
            offset = FIRST_OWN_KEY * self.random.randint(1, 4)
            return offset + self.random.randint(0, 50)
        return self.random.randint(first, self.rows)

    def _edit_record(self, connection: psycopg.Connection) -> None:
        key, began = self._any_key(), time.time()
        texts = self._texts(self.random.sample(TEXTS, self.random.choice((1, 1, 2))))
        before = _locked(connection, key)
        if before is None:
            connection.rollback()
            return
        columns = ", ".join(f"{name} = %s" for name in texts)
        connection.execute(
            f"UPDATE people SET {columns}, changed_at = clock_timestamp() WHERE id = %s",
            [*texts.values(), key],
        )
        removed = {name: before[name] for name in texts}
        self.journal.note("update", self.side, key, began, texts, removed, connection.commit)

    def _increment(self, connection: psycopg.Connection) -> None:
        key = self.random.randint(1, self.rows // 2)
        points = self.random.choice((-2, -1, 1, 2, 3))
        connection.execute("UPDATE people SET points = points + %s WHERE id = %s", (points, key))
        connection.commit()
        self.journal.count_points(key, points)

    def _make_record(self, connection: psycopg.Connection) -> None:
        key, began = self._any_key(self.rows // 2 + 1), time.time()
        texts = self._texts(list(TEXTS))
        done = connection.execute(f"{INSERT} ON CONFLICT DO NOTHING", [key, *texts.values()])
        if not done.rowcount:
            connection.rollback()
            return
        self.journal.note("insert", self.side, key, began, texts, {}, connection.commit)

    def _delete_record(self, connection: psycopg.Connection) -> None:
        key, began = self._any_key(self.rows // 2 + 1), time.time()
        before = _locked(connection, key)
        if before is None:  # it may be made at any moment: what nobody locked, nobody deletes
            connection.rollback()
            return
        connection.execute("DELETE FROM people WHERE id = %s", (key,))
        self.journal.note("delete", self.side, key, began, {}, before, connection.commit)


def _locked(connection: psycopg.Connection, key: int) -> dict[str, str | None] | None:
    """The record's texts by field, locked until the transaction ends; None: there is none."""
    row = connection.execute(
        f"SELECT {', '.join(TEXTS)} FROM people WHERE id = %s FOR UPDATE", (key,)
    ).fetchone()
    return None if row is None else dict(zip(TEXTS, row, strict=True))


def edit(
    left: str, right: str, *, writers: int, rows: int, seconds: float, meanwhile: Callable[[], None]
) -> Journal:
    """Let writers edit both databases in turn for so long; `meanwhile` is called again and again.

    Raises what stopped a writer.
    """
    journal, stop = Journal(), threading.Event()
    sides = (("left", left), ("right", right))
    threads = [Writer(n, *sides[n % 2], rows, journal, stop) for n in range(writers)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and all(thread.is_alive() for thread in threads):
        meanwhile()
        time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join()
        if thread.problem is not None:
            raise thread.problem
    return journal
