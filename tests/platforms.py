"""Small real platforms for tests: SQLite files with tables, and a rule between two of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apps.engine.spec import CheckSpec, FieldMappingSpec
from apps.ledger.models import Change, Conflict, Rejection
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from apps.sources.models import Source
from apps.sources.services import discover, save_source

PLAIN_FIELDS = (
    FieldMappingSpec(right="client_id", left="id"),
    FieldMappingSpec(right="full_name", left="name"),
    FieldMappingSpec(right="mail", left="email"),
    FieldMappingSpec(right="balance", left="balance"),
)
"""The same without expressions: such rules need no child process, which makes tests quicker."""

CUSTOMERS = """
    CREATE TABLE customers (
        id INTEGER PRIMARY KEY, name TEXT, email TEXT, balance NUMERIC(10,2), changed TIMESTAMP
    )
"""
CLIENTS = """
    CREATE TABLE clients (
        client_id INTEGER PRIMARY KEY, full_name VARCHAR(40) NOT NULL, mail TEXT UNIQUE,
        balance NUMERIC(10,2), note TEXT DEFAULT 'own', gone BOOLEAN DEFAULT 0
    )
"""
FIELDS = (
    FieldMappingSpec(right="client_id", left="id"),
    FieldMappingSpec(right="full_name", to_right="trim(name)"),
    FieldMappingSpec(right="mail", to_right="lower(email)"),
    FieldMappingSpec(right="balance", left="balance"),
)


def sqlite_source(name: str, path: Path, *statements: str) -> Source:
    """A source over a new SQLite file in which `statements` were run; already discovered."""
    with sqlite3.connect(path) as database:
        for statement in statements:
            database.execute(statement)
    made = Source(name=name, connector="sqlite")
    source = save_source(made, {"path": str(path)}, actor=None)
    discover(source, actor=None)
    return source


@dataclass
class Pair:
    """Customers on the left, clients on the right, and a rule that keeps them in step."""

    folder: Path
    name: str = "pair"
    fields: Sequence[FieldMappingSpec] = FIELDS
    checks: Sequence[CheckSpec] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    clients_sql: str = CLIENTS

    def __post_init__(self) -> None:
        self.left_path = self.folder / f"{self.name}-left.db"
        self.right_path = self.folder / f"{self.name}-right.db"
        left = sqlite_source(f"{self.name} left", self.left_path, CUSTOMERS)
        right = self.right_source()
        self.mapping = Mapping(name=self.name, left=left.datasets.get(), right=right.datasets.get())
        save_mapping(self.mapping, self.fields, ["client_id"], actor=None)
        self.rule = Rule(name=self.name, mapping=self.mapping, **self.facts)
        save_rule(self.rule, self.checks, actor=None)

    def right_source(self) -> Source:
        """The platform of the clients, already discovered."""
        return sqlite_source(f"{self.name} right", self.right_path, self.clients_sql)

    def on_left(self, sql: str, *values: Any) -> None:
        with sqlite3.connect(self.left_path, timeout=30) as database:
            database.execute(sql, values)
        database.close()

    def on_right(self, sql: str, *values: Any) -> None:
        with sqlite3.connect(self.right_path, timeout=30) as database:
            database.execute(sql, values)
        database.close()

    def add_customers(self, count: int, start: int = 1) -> None:
        rows = [
            (n, f" Name {n} ", f"N{n}@Example.org", f"{n}.50", f"2026-01-01 00:00:{n % 60:02d}")
            for n in range(start, start + count)
        ]
        with sqlite3.connect(self.left_path, timeout=30) as database:
            database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", rows)
        database.close()

    def clients(self) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.right_path, timeout=30) as database:
            sql = "SELECT client_id, full_name, mail, balance FROM clients ORDER BY client_id"
            return list(database.execute(sql))

    def run(self, **options: Any) -> Run:
        """Request a run and work it in this process until it is finished."""
        run = request_run(self.rule, actor=None, **options)
        return work_until_finished(run)

    def changes(self, run: Run) -> list[Change]:
        return list(Change.objects.filter(run_id=run.pk).order_by("id"))

    def open_rejections(self) -> list[Rejection]:
        return list(Rejection.objects.filter(rule_id=self.rule.pk, state="open"))


@dataclass
class TwoWayPair(Pair):
    """The same tables, kept in step both ways."""

    fields: Sequence[FieldMappingSpec] = PLAIN_FIELDS

    def __post_init__(self) -> None:
        defaults = {"direction": "two_way", "first_contact": "left"}
        self.facts = {**defaults, "max_deletes_percent": None, **self.facts}
        super().__post_init__()

    def customers(self) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.left_path, timeout=30) as database:
            sql = "SELECT id, name, email, balance FROM customers ORDER BY id"
            return list(database.execute(sql))

    def conflicts(self) -> list[Conflict]:
        return list(Conflict.objects.filter(rule_id=self.rule.pk, state="open"))


def lines(run: Run) -> str:
    """The run's log as text: what a failing test shows."""
    return "\n".join(f"{line.level}: {line.message}" for line in run.log.all())
