"""A client of Lockstep hub datasets: a copy in SQLite that works offline.

A reference: small, whole, and with nothing but the standard library. The protocol is described in
docs/reference/sync-protocol.md. One `Copy` is for one process at a time.

    copy = Copy("tasks.db", HttpTransport("https://lockstep.example", token, dataset_id))
    copy.edit("a1", set={"title": "Buy milk"})
    copy.sync()
    print(copy.get("a1"))
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

Record = dict[str, Any]
MOST_MUTATIONS = 500
PAGE = 1_000

TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS records (
    id TEXT PRIMARY KEY, rev INTEGER NOT NULL, data TEXT NOT NULL, copy INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS queue (
    mid INTEGER PRIMARY KEY, id TEXT NOT NULL, mutation TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS queue_by_record ON queue (id, mid);
"""


class Problem(Exception):
    """What the server refuses. `code` is stable, such as `hub.token_expired`."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(f"{status} {body.get('code')}: {body.get('detail')}")
        self.status = status
        self.code = str(body.get("code", ""))
        self.detail = str(body.get("detail", ""))


class Transport(Protocol):
    """Sends one request. Raises Problem, or OSError where no answer came."""

    def get(self, place: str, query: dict[str, Any]) -> dict[str, Any]: ...

    def post(self, place: str, body: dict[str, Any]) -> dict[str, Any]: ...


class HttpTransport:
    """Requests about one dataset."""

    def __init__(self, server: str, token: str, dataset_id: str, timeout: float = 30) -> None:
        self.base = f"{server.rstrip('/')}/api/v1/datasets/{dataset_id}"
        self.token = token
        self.timeout = timeout

    def get(self, place: str, query: dict[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in query.items() if value not in (None, "")}
        return self._send(f"{self.base}/{place}?{urllib.parse.urlencode(given)}", None)

    def post(self, place: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._send(f"{self.base}/{place}", dumped(body).encode())

    def _send(self, url: str, body: bytes | None) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(url, body, headers)  # noqa: S310  # the user's own server
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as answer:  # noqa: S310  # likewise
                return loaded(answer.read())
        except urllib.error.HTTPError as error:
            raise Problem(error.code, _problem(error.read())) from None


@dataclass(frozen=True)
class Notice:
    """An edit that did not simply get through: tell the user."""

    record_id: str
    status: str  # merged, conflict, rejected
    message: str
    fields: tuple[str, ...]


class Copy:
    """A copy of one hub dataset, and the edits that wait to be sent."""

    def __init__(
        self,
        path: str,
        transport: Transport,
        *,
        schema_version: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.transport = transport
        self.schema_version = schema_version
        self.clock = clock
        self.notices: list[Notice] = []
        self.db = sqlite3.connect(path)
        self.db.executescript(TABLES)
        with self.db:
            self._keep("replica", self._kept("replica") or str(uuid.uuid4()))

    # What the app sees

    def get(self, record_id: str) -> Record | None:
        """The record with the edits that wait; None: there is none."""
        found = self._stored(record_id)
        record = found[1] if found else None
        for mutation in self._waiting(record_id):
            record = applied(record, record_id, mutation)
        return record

    def ids(self) -> list[str]:
        """Of all records that there are."""
        known = self.db.execute("SELECT id FROM records UNION SELECT id FROM queue ORDER BY 1")
        return [key for (key,) in known.fetchall() if self.get(key) is not None]

    # Edits

    def edit(self, record_id: str, **operations: Any) -> int:
        """Queue an edit: `set`, `increment`, `add`, `remove`, each by field. Its number."""
        with self.db:
            mid = int(self._kept("last_mid") or 0) + 1
            found = self._stored(record_id)
            mutation = {"mid": mid, "id": record_id, "hlc": self._stamp(), **operations}
            if found:
                mutation["base_rev"] = found[0]
            base = self._base(record_id, operations.get("set", {}))
            if base:
                mutation["base"] = base
            self.db.execute(
                "INSERT INTO queue VALUES (?, ?, ?)", (mid, record_id, dumped(mutation))
            )
            self._keep("last_mid", str(mid))
        return mid

    def delete(self, record_id: str) -> int:
        """Queue a deletion. Its number."""
        return self.edit(record_id, delete=True)

    def _base(self, record_id: str, names: Any) -> Record:
        """Values before the edit of fields that an edit which waits has touched."""
        touched: set[str] = set()
        for mutation in self._waiting(record_id):
            for operation in ("set", "increment", "add", "remove"):
                touched |= mutation.get(operation, {}).keys()
        record = self.get(record_id) or {}
        return {name: record.get(name) for name in names if name in touched}

    def _stamp(self) -> str:
        """A hybrid logical clock: never twice the same, never back."""
        now = f"{int(self.clock() * 1000) << 16:016x}"
        stamp = max(now, f"{int(self._kept('stamp') or '0', 16) + 1:016x}")
        self._keep("stamp", stamp)
        return stamp

    # Sync

    def sync(self) -> None:
        """Push all that waits, then pull until the copy is whole."""
        while self.push():
            pass
        while self.pull():
            pass

    def push(self) -> bool:
        """Send the first edits that wait; whether more do. The same are sent until answered."""
        rows = self.db.execute("SELECT mutation FROM queue ORDER BY mid LIMIT ?", (MOST_MUTATIONS,))
        mutations = [loaded(text) for (text,) in rows.fetchall()]
        if not mutations:
            return False
        body = {"replica": self._kept("replica"), "mutations": mutations}
        if self.schema_version:
            body["schema_version"] = self.schema_version
        answer = self.transport.post("push", body)
        with self.db:
            for mutation, outcome in zip(mutations, answer["outcomes"], strict=True):
                self._settle(mutation, outcome)
        return self.db.execute("SELECT count(*) FROM queue").fetchone()[0] > 0

    def _settle(self, mutation: dict[str, Any], outcome: dict[str, Any]) -> None:
        """Forget an edit that was answered; take what the server has."""
        key = mutation["id"]
        self.db.execute("DELETE FROM queue WHERE mid = ?", (outcome["mid"],))
        found = self._stored(key)
        is_news = outcome["rev"] is None or found is None or outcome["rev"] > found[0]
        if outcome["status"] != "applied":
            fields = tuple(outcome.get("fields", ()))
            self.notices.append(Notice(key, outcome["status"], outcome.get("message", ""), fields))
            if is_news:
                self._store(key, outcome["rev"], outcome["record"])
            return
        if is_news:
            record = applied(found[1] if found else None, key, mutation)
            self._store(key, outcome["rev"], record)
        self._rebase(key, outcome["rev"])

    def _rebase(self, record_id: str, rev: int | None) -> None:
        """What waits was made on top of the edit that was applied: that is its base now."""
        for mutation in self._waiting(record_id):
            mutation["base_rev"] = rev
            self.db.execute(
                "UPDATE queue SET mutation = ? WHERE mid = ?", (dumped(mutation), mutation["mid"])
            )

    def pull(self) -> bool:
        """Take one page; whether there are more. Begins a new copy where the token is too old."""
        token = self._kept("token")
        query = {
            "since": token,
            "limit": PAGE,
            "replica": self._kept("replica"),
            "schema_version": self.schema_version,
        }
        try:
            page = self.transport.get("changes", query)
        except Problem as problem:
            if problem.code != "hub.token_expired" or not token:
                raise
            with self.db:
                self._keep("token", "")
            return True
        with self.db:
            self._take(page)
        return bool(page["has_more"])

    def _take(self, page: dict[str, Any]) -> None:
        number = int(self._kept("copy") or 0)
        if page["reset"]:
            number += 1
            self._keep("copy", str(number))
        for change in page["changes"]:
            if change["op"] == "put":
                found = self._stored(change["id"])
                if found is None or found[0] <= change["rev"]:
                    self._store(change["id"], change["rev"], change["data"])
                else:  # an answer to a push has brought something newer
                    self._store(change["id"], *found)
            else:
                self._store(change["id"], None, None)
        if not page["has_more"]:
            self.db.execute("DELETE FROM records WHERE copy < ?", (number,))
        self._keep("token", page["next"])

    def is_same(self) -> bool | None:
        """Whether the copy is what the server has; None: pull first."""
        said = self.transport.get("digest", {"since": self._kept("token")})
        if not said["up_to_date"]:
            return None
        rows = self.db.execute("SELECT id, data FROM records").fetchall()
        total = sum(digest_of(key, canonical(loaded(data))) for key, data in rows) % 2**60
        return (len(rows), f"{total:015x}") == (said["count"], said["digest"])

    # Storage

    def _kept(self, name: str) -> str | None:
        row = self.db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def _keep(self, name: str, value: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))

    def _stored(self, record_id: str) -> tuple[int, Record] | None:
        """What the server had when it was last asked: revision and record."""
        sql = "SELECT rev, data FROM records WHERE id = ?"
        row = self.db.execute(sql, (record_id,)).fetchone()
        return (row[0], loaded(row[1])) if row else None

    def _store(self, record_id: str, rev: int | None, record: Record | None) -> None:
        if record is None or rev is None:
            self.db.execute("DELETE FROM records WHERE id = ?", (record_id,))
            return
        copy = int(self._kept("copy") or 0)
        self.db.execute(
            "INSERT OR REPLACE INTO records VALUES (?, ?, ?, ?)",
            (record_id, rev, dumped(record), copy),
        )

    def _waiting(self, record_id: str) -> Iterator[dict[str, Any]]:
        sql = "SELECT mutation FROM queue WHERE id = ? ORDER BY mid"
        for (text,) in self.db.execute(sql, (record_id,)).fetchall():
            yield loaded(text)


def applied(record: Record | None, record_id: str, mutation: dict[str, Any]) -> Record | None:
    """A record after an edit of one's own."""
    if mutation.get("delete"):
        return None
    after: Record = dict(record) if record is not None else {"id": record_id}
    after |= mutation.get("set", {})
    for name, delta in mutation.get("increment", {}).items():
        held = after.get(name) or 0
        is_text = isinstance(held, str) or isinstance(delta, str)
        after[name] = str(Decimal(held) + Decimal(delta)) if is_text else held + delta
    for name, members in mutation.get("add", {}).items():
        held = list(after.get(name) or ())
        after[name] = held + [m for m in dict.fromkeys(members) if m not in held]
    for name, members in mutation.get("remove", {}).items():
        after[name] = [m for m in after.get(name) or () if m not in members]
    return {name: value for name, value in after.items() if value is not None}


# Canonical JSON, by which copies are compared


def digest_of(record_id: str, text: str) -> int:
    digest = hashlib.sha256(f"{record_id}\n{text}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 4


def canonical(value: Any) -> str:
    """Sorted names, no blanks, numbers in plain digits."""
    if isinstance(value, dict):
        inner = ",".join(f"{_quoted(name)}:{canonical(value[name])}" for name in sorted(value))
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{','.join(canonical(item) for item in value)}]"
    if isinstance(value, str):
        return _quoted(value)
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _number(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))


def _number(number: Decimal) -> str:
    if not number:
        return "0"
    sign, digits, exponent = number.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    exponent = int(exponent) + len(text) - len(text.rstrip("0"))
    text = text.rstrip("0")
    first = len(text) + exponent - 1  # the power of ten of the first digit
    if abs(first) > 40:
        mantissa = text[0] + (f".{text[1:]}" if len(text) > 1 else "")
        shown = f"{mantissa}e{first}"
    elif exponent >= 0:
        shown = text + "0" * exponent
    elif first >= 0:
        shown = f"{text[: first + 1]}.{text[first + 1 :]}"
    else:
        shown = f"0.{'0' * (-first - 1)}{text}"
    return f"-{shown}" if sign else shown


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# JSON, exactly


def loaded(text: str | bytes) -> Any:
    return json.loads(text, parse_float=Decimal)


def dumped(value: Any) -> str:
    return canonical(value)


def _problem(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
