"""The example of docs/how-to/connect-rest.md: its API, its database, and its rule."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from apps.rules.configuration import apply, read_file
from apps.rules.models import Rule
from apps.runs.models import Run, RunStatus
from apps.runs.services import request_run, work_until_finished
from tests.connectors.rest.server import Api, Asked, Reply
from tests.platforms import lines

DOCS = Path(__file__).resolve().parents[3] / "docs" / "how-to"


class Shop:
    """The API of the example."""

    def __init__(self, api: Api) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.keys: dict[str, int] = {}
        self.written = 0
        api.handle = self.answer

    def put(self, number: int | None = None, **values: Any) -> dict[str, Any]:
        self.written += 1
        number = number or max(self.rows, default=0) + 1
        row = self.rows.setdefault(number, {"id": number, "name": "", "email": None, "points": 0})
        row.update(values, updated_at=f"2024-01-01T00:00:{self.written % 60:02}Z", v=self.written)
        return row

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != "Bearer t0ken":
            return Reply(401)
        if asked.path == "/customers":
            return self._created(asked) if asked.method == "POST" else self._list(asked)
        row = self.rows.get(int(asked.path.rpartition("/")[2]))
        if row is None:
            return Reply(404)
        if asked.method != "GET" and asked.headers.get("if-match") != f'"{row["v"]}"':
            return Reply(412)
        if asked.method == "DELETE":
            del self.rows[row["id"]]
            return Reply(204)
        if asked.method == "PATCH":
            row = self.put(row["id"], **asked.body)
        return Reply(body=row, headers={"ETag": f'"{row["v"]}"'})

    def _created(self, asked: Asked) -> Reply:
        key = asked.headers["idempotency-key"]
        if key not in self.keys:
            self.keys[key] = self.put(**asked.body)["id"]
        return Reply(201, self.rows[self.keys[key]])

    def _list(self, asked: Asked) -> Reply:
        wanted, after = asked.params.get("email"), int(asked.params.get("after", 0))
        rows = [row for number, row in sorted(self.rows.items()) if number > after]
        rows = [row for row in rows if wanted in (None, row["email"])]
        following = rows[1]["id"] if len(rows) > 2 else None
        return Reply(body={"data": rows[:2], "next": following})


class Example:
    """Both sides, and the rule that keeps them in step."""

    def __init__(self, api: Api, folder: Path) -> None:
        self.api, self.shop, self.path = api, Shop(api), folder / "office.db"
        self.sql(
            "CREATE TABLE clients (id INTEGER PRIMARY KEY, full_name TEXT NOT NULL, mail TEXT, "
            "town TEXT, points INTEGER)"
        )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with sqlite3.connect(self.path) as database:
            return database.execute(statement).fetchall()

    def office(self) -> list[tuple[Any, ...]]:
        return self.sql("SELECT full_name, mail, town, points FROM clients ORDER BY mail")

    def shop_rows(self) -> list[tuple[Any, ...]]:
        rows = self.shop.rows.values()
        found = [
            (r["name"], r["email"], (r.get("address") or {}).get("city"), r["points"]) for r in rows
        ]
        return sorted(found, key=lambda row: str(row[1]))

    def run(self) -> Run:
        run = work_until_finished(request_run(Rule.objects.get(), actor=None))
        assert run.status == RunStatus.SUCCEEDED, lines(run)
        return run


def configured(api: Api, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Example:
    """Both sides with some customers, and the file of the page applied."""
    found = Example(api, folder)
    monkeypatch.setenv("SHOP_API_URL", api.url)
    monkeypatch.setenv("SHOP_API_TOKEN", "t0ken")
    monkeypatch.setenv("OFFICE_FILE", str(found.path))
    found.shop.put(name="Ada", email="ada@x.example", points=5, address={"city": "Bonn"})
    found.shop.put(name="Bob", email="bob@x.example")
    found.shop.put(name="Cid", email="cid@x.example")
    found.sql("INSERT INTO clients VALUES (70, 'Bob', 'bob@x.example', NULL, 0)")
    found.sql("INSERT INTO clients VALUES (71, 'Dan', 'dan@x.example', 'Kiel', 1)")
    apply(read_file(DOCS / "connect-rest.yaml"), actor=None)
    return found
