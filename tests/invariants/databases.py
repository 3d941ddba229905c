"""Platforms in real databases: the connectors read and write, people use plain SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from apps.connectors.base import Connector, Fence, WriteResult, WriteStatus
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.sqlite import SqliteConnector, SqliteSettings
from apps.ledger.selectors import PlannedChange
from apps.runs.services.reading import SideReader
from apps.runs.services.writing import SideWriter
from tests.invariants.platforms import FIELD_TYPES, Note, Outcome, Platform, texts_of
from tests.invariants.setups import CUT_TO, TYPES, Alters, Record, dataset
from tests.servers import (
    mariadb_connection,
    mariadb_database,
    postgresql_connection,
    postgresql_database,
)

_ORDER = ("delete", "update", "insert")


class DatabasePlatform(Platform):
    """A table. A context manager: its write session stays open.

    connection: of the people, in autocommit; mark: how its driver writes a parameter.
    """

    def __init__(
        self, connector: Connector[Any], connection: Any, mark: str, name: str, alters: Alters
    ) -> None:
        self.is_lossy = alters.is_lossy
        self._connection, self._mark, self._name = connection, mark, name
        connector.create_dataset(dataset(name).schema())
        for statement in _TRIGGERS[type(connector)](name, alters):
            self._run(statement)
        self._dataset = connector.describe(name)
        self._reader = SideReader(connector, self._dataset, ("id",))
        self._writer = SideWriter(self._reader, FIELD_TYPES, lock=name)

    def __enter__(self) -> DatabasePlatform:
        self._stack = ExitStack()
        self._session = self._stack.enter_context(self._writer.session(lambda: 3600.0))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def records(self) -> dict[str, Record]:
        return texts_of(self.read()[0])

    def read(self) -> tuple[pa.Table, dict[str, Record]]:
        batches = [batch.records for batch in self._reader.everything(tuple(TYPES))]
        table = pa.Table.from_batches(batches) if batches else _nothing()
        return table, texts_of(table)

    def record(self, key: str) -> Record | None:
        cursor = self._run(f"SELECT {', '.join(TYPES)} FROM {self._name} WHERE id = {key[2:-2]}")
        row = cursor.fetchone()
        if row is None:
            return None
        return {n: None if v is None else str(v) for n, v in zip(TYPES, row, strict=True)}

    def person_writes(self, key: str, values: Mapping[str, str | None]) -> None:
        names, values = list(values), {n: _native(n, v) for n, v in values.items()}
        if self.record(key) is None:
            marks = ", ".join([self._mark] * len(names))
            sql = f"INSERT INTO {self._name} ({', '.join(names)}) VALUES ({marks})"
        else:
            sets = ", ".join(f"{name} = {self._mark}" for name in names)
            sql = f"UPDATE {self._name} SET {sets} WHERE id = {key[2:-2]}"
        self._run(sql, *values.values())

    def person_deletes(self, key: str) -> None:
        self._run(f"DELETE FROM {self._name} WHERE id = {key[2:-2]}")

    def clear(self) -> None:
        self._run(f"DELETE FROM {self._name}")

    def _run(self, sql: str, *values: Any) -> Any:
        cursor = self._connection.cursor()
        cursor.execute(sql, values)
        return cursor

    def write(
        self,
        changes: Sequence[PlannedChange],
        returning: Sequence[str],
        *,
        in_doubt: bool,
        fence: Fence,
        note: Note,
    ) -> Outcome:
        """As a partition does: changes that are alike go into one batch of the connector."""
        outcome = Outcome()
        for alike in _groups(changes):
            self._session.apply(
                self._writer.batch(alike, in_doubt=in_doubt),
                fence,
                returning=returning,
                note=partial(_told, alike, outcome, note),
            )
        return outcome


def _told(
    changes: Sequence[PlannedChange], outcome: Outcome, note: Note, result: WriteResult
) -> None:
    """Add what one batch of the connector comes to, and pass it on."""
    for row, problem in result.exceptions.items():
        if problem.status is WriteStatus.ALREADY:
            outcome.already.add(changes[row].sequence)
        else:
            outcome.problems[changes[row].sequence] = problem
    if changes[0].operation != "delete":
        assert result.stored is not None
        images = texts_of(result.stored)
        for change in changes:
            if change.sequence not in outcome.problems:
                outcome.stored[change.sequence] = images[change.key_after]
    note(changes, outcome)


def _nothing() -> pa.Table:
    return pa.schema([(n, t.arrow) for n, t in FIELD_TYPES.items()]).empty_table()


def _native(name: str, value: str | None) -> Any:
    if value is None or TYPES[name] == "text":
        return value
    return int(value) if TYPES[name] == "integer" else value.replace("T", " ")


def _groups(changes: Sequence[PlannedChange]) -> list[list[PlannedChange]]:
    groups: dict[tuple[int, tuple[str, ...]], list[PlannedChange]] = {}
    for change in changes:
        alike = (_ORDER.index(change.operation), change.fields)
        groups.setdefault(alike, []).append(change)
    return [groups[alike] for alike in sorted(groups)]


def _altered(alters: Alters) -> dict[str, str]:
    """SQL of what a trigger makes of each field; {} stands for the row."""
    found = {name: f"SUBSTR({{}}{name}, 1, {CUT_TO})" for name in alters.cut}
    found |= {name: f"UPPER({{}}{name})" for name in alters.upper}
    return found | ({"stamp": "CONCAT('stamp of ', {}a)"} if alters.touches else {})


def _sqlite_triggers(name: str, alters: Alters) -> Iterator[str]:
    altered = {n: sql.format("") for n, sql in _altered(alters).items()}
    altered |= {"stamp": "'stamp of ' || a"} if alters.touches else {}
    sets = ", ".join(f"{field} = {sql}" for field, sql in altered.items())
    for event in ("INSERT", "UPDATE") if altered else ():
        yield (
            f"CREATE TRIGGER {name}_{event} AFTER {event} ON {name} "
            f"BEGIN UPDATE {name} SET {sets} WHERE id = NEW.id; END"
        )


def _postgresql_triggers(name: str, alters: Alters) -> Iterator[str]:
    altered = {n: sql.format("NEW.") for n, sql in _altered(alters).items()}
    if altered:
        sets = "; ".join(f"NEW.{field} := {sql}" for field, sql in altered.items())
        yield (
            f"CREATE FUNCTION {name}_alter() RETURNS trigger LANGUAGE plpgsql "
            f"AS $$ BEGIN {sets}; RETURN NEW; END $$"
        )
        yield (
            f"CREATE TRIGGER {name}_alter BEFORE INSERT OR UPDATE ON {name} "
            f"FOR EACH ROW EXECUTE FUNCTION {name}_alter()"
        )


def _mariadb_triggers(name: str, alters: Alters) -> Iterator[str]:
    altered = {n: sql.format("NEW.") for n, sql in _altered(alters).items()}
    sets = ", ".join(f"NEW.{field} = {sql}" for field, sql in altered.items())
    for event in ("INSERT", "UPDATE") if altered else ():
        yield f"CREATE TRIGGER {name}_{event} BEFORE {event} ON {name} FOR EACH ROW SET {sets}"


_TRIGGERS = {
    SqliteConnector: _sqlite_triggers,
    PostgresqlConnector: _postgresql_triggers,
    MysqlConnector: _mariadb_triggers,
}


@contextmanager
def platforms(kind: str, folder: Path, alters: Sequence[Alters]) -> Iterator[list[Platform]]:
    """Tables of their own in a fresh database of this kind, one per platform."""
    with ExitStack() as stack:
        connector, connection, mark = stack.enter_context(_KINDS[kind](folder))
        yield [
            stack.enter_context(
                DatabasePlatform(connector, connection, mark, f"records_{number}", one)
            )
            for number, one in enumerate(alters)
        ]


@contextmanager
def _sqlite(folder: Path) -> Iterator[tuple[Connector[Any], Any, str]]:
    path = folder / "histories.db"
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = OFF")
        yield SqliteConnector(SqliteSettings(path=str(path))), connection, "?"


@contextmanager
def _postgresql(folder: Path) -> Iterator[tuple[Connector[Any], Any, str]]:
    with postgresql_database() as settings, postgresql_connection(settings) as connection:
        yield PostgresqlConnector(PostgresqlSettings(**settings)), connection, "%s"


@contextmanager
def _mariadb(folder: Path) -> Iterator[tuple[Connector[Any], Any, str]]:
    with mariadb_database() as settings, mariadb_connection(settings) as connection:
        yield MysqlConnector(MysqlSettings(**settings)), connection, "%s"


_KINDS = {"sqlite": _sqlite, "postgresql": _postgresql, "mariadb": _mariadb}
