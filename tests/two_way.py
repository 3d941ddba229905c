"""A CRM and a billing system that a two-way rule keeps in step, and conflicts of every kind."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
import pyarrow as pa

from apps.engine.spec import FieldMappingSpec, FieldPolicySpec
from apps.engine.types_sql import key_text
from apps.ledger.models import Conflict
from apps.ledger.services import WorkIdentity, record_conflicts
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from tests.platforms import sqlite_source

CONTACTS = """
    CREATE TABLE contacts (
        id INTEGER PRIMARY KEY, name TEXT, mail TEXT, phone TEXT, credit NUMERIC(10,2),
        edited TIMESTAMP
    )
"""
ACCOUNTS = """
    CREATE TABLE accounts (
        account_id INTEGER PRIMARY KEY, display_name TEXT, email_address TEXT, phone TEXT,
        credit NUMERIC(10,2), edited TIMESTAMP
    )
"""
FIELDS = (
    FieldMappingSpec(right="account_id", left="id"),
    FieldMappingSpec(right="display_name", left="name"),
    FieldMappingSpec(right="email_address", left="mail"),
    FieldMappingSpec(right="phone", left="phone"),
    FieldMappingSpec(right="credit", left="credit"),
    FieldMappingSpec(right="edited", left="edited"),
)
CONFLICTS = pa.schema(
    [(name, pa.string()) for name in ("kind", "left_key", "right_key", "left", "right")]
    + [("fields", pa.list_(pa.string())), ("base_left", pa.string()), ("base_right", pa.string())]
    + [("candidates", pa.list_(pa.string()))]
    + [(name, pa.timestamp("us", "UTC")) for name in ("left_changed_at", "right_changed_at")]
)

Image = dict[str, str | None]


def key(value: object) -> str:
    return key_text([str(value)])


def account(number: int, **changes: str | None) -> Image:
    """A record in right space."""
    image: Image = {
        "account_id": str(number),
        "display_name": f"Maria Lopez {number}",
        "email_address": f"m.lopez{number}@example.com",
        "phone": f"+34 911 555 {number:03d}",
        "credit": "120.5",
    }
    return image | changes


@dataclass
class TwoWay:
    """CRM contacts on the left, Billing accounts on the right."""

    folder: Path
    name: str = "Customers"
    policies: Sequence[FieldPolicySpec] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.left_path = self.folder / f"{self.name}-crm.db"
        self.right_path = self.folder / f"{self.name}-billing.db"
        prefix = "" if self.name == "Customers" else f"{self.name} "
        left = sqlite_source(f"{prefix}CRM", self.left_path, CONTACTS)
        right = sqlite_source(f"{prefix}Billing", self.right_path, ACCOUNTS)
        self.mapping = Mapping(name=self.name, left=left.datasets.get(), right=right.datasets.get())
        save_mapping(self.mapping, FIELDS, ["account_id"], actor=None)
        self.rule = Rule(
            name=self.name,
            mapping=self.mapping,
            **{"direction": Rule.Direction.TWO_WAY, "policy": "ask", **self.facts},
        )
        save_rule(self.rule, [], self.policies, actor=None)

    def on_left(self, sql: str, *values: Any) -> None:
        self._run(self.left_path, sql, values)

    def on_right(self, sql: str, *values: Any) -> None:
        self._run(self.right_path, sql, values)

    @staticmethod
    def _run(path: Path, sql: str, values: Sequence[Any]) -> None:
        with sqlite3.connect(path, timeout=30) as database:
            database.execute(sql, values)
        database.close()

    def add_contacts(self, count: int, start: int = 1) -> None:
        """Contacts in the CRM; the next run brings them to Billing."""
        for number in range(start, start + count):
            self.on_left(
                "INSERT INTO contacts VALUES (?, ?, ?, ?, ?, ?)",
                number,
                f"Maria Lopez {number}",
                f"m.lopez{number}@example.com",
                f"+34 911 555 {number:03d}",
                "120.50",
                "2026-11-01 10:00:00",
            )

    def contacts(self) -> list[tuple[Any, ...]]:
        return self._rows(self.left_path, "SELECT * FROM contacts ORDER BY id")

    def accounts(self) -> list[tuple[Any, ...]]:
        return self._rows(self.right_path, "SELECT * FROM accounts ORDER BY account_id")

    @staticmethod
    def _rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(path, timeout=30) as database:
            found = list(database.execute(sql))
        database.close()
        return found

    def run(self, **options: Any) -> Run:
        """Request a run and work it in this process until it is finished or waits."""
        return work_until_finished(request_run(self.rule, actor=None, **options))

    def meet(self, *rows: dict[str, Any]) -> list[Conflict]:
        """Record conflicts as a run would that met them; the last one comes back first."""
        filled = [self._row(**row) for row in rows]
        table = pa.Table.from_pylist(filled, schema=CONFLICTS)
        record_conflicts(WorkIdentity(self.rule.pk, uuid4(), uuid4()), table)
        known = {
            (c.kind, c.left_key or c.right_key): c
            for c in Conflict.objects.filter(rule_id=self.rule.pk)
        }
        return [known[row["kind"], row["left_key"] or row["right_key"]] for row in filled[::-1]]

    @staticmethod
    def _row(**row: Any) -> dict[str, Any]:
        row = {"left_key": None, "right_key": None, "fields": [], **row}
        for name in ("left", "right", "base_left", "base_right"):
            if isinstance(row.get(name), dict):
                row[name] = orjson.dumps(row[name]).decode()
        return row

    def disagreement(self, number: int, left: Image, right: Image, **more: Any) -> dict[str, Any]:
        """Both sides changed the same fields of this record."""
        base = account(number)
        return {
            "kind": "fields",
            "left_key": key(number),
            "right_key": key(number),
            "fields": sorted(set(left) & set(right)),
            "left": base | left,
            "right": base | right,
            "base_left": base,
            "base_right": base,
            "left_changed_at": datetime(2026, 11, 20, 10, 14, tzinfo=UTC),
            "right_changed_at": datetime(2026, 11, 20, 10, 31, tzinfo=UTC),
            **more,
        }

    def of_every_kind(self) -> list[Conflict]:
        """One conflict of each kind, and a few more of the most frequent one."""
        name, mail, phone, credit = "display_name", "email_address", "phone", "credit"
        return self.meet(
            {"kind": "in_doubt", "left_key": key(90), "left": account(90)},
            {
                "kind": "unique",
                "left_key": key(80),
                "right_key": key(80),
                "fields": [mail],
                "left": account(80, email_address="taken@example.com"),
                "right": account(80),
                "base_left": account(80),
                "base_right": account(80),
            },
            {
                "kind": "match",
                "left_key": key(70),
                "left": account(70),
                "candidates": [key(701), key(702)],
            },
            {
                "kind": "delete",
                "left_key": key(60),
                "right_key": key(60),
                "right": account(60),
                "base_left": account(60),
                "base_right": account(60),
            },
            {
                "kind": "edit_delete",
                "left_key": key(50),
                "right_key": key(50),
                "left": account(50, phone="+34 600 000 000"),
                "base_left": account(50),
                "base_right": account(50),
                "left_changed_at": datetime(2026, 11, 21, 9, 0, tzinfo=UTC),
            },
            {
                "kind": "first_contact",
                "left_key": key(40),
                "right_key": key(40),
                "fields": [name],
                "left": account(40, display_name="Ana Torres"),
                "right": account(40, display_name="TORRES, Ana"),
            },
            self.disagreement(3, {credit: "130.0"}, {credit: "99.9"}),
            self.disagreement(2, {phone: "+34 911 555 200"}, {phone: None}),
            self.disagreement(
                1,
                {name: "Maria López 1", mail: "maria@lopez.example"},
                {name: "Lopez, Maria", mail: "m.lopez1@example.org"},
            ),
        )
