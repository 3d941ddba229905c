"""Tables with keys of every kind on PostgreSQL and MariaDB, and a rule between two of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from apps.engine.spec import FieldMappingSpec
from apps.mappings.models import Mapping
from apps.mappings.services import save_mapping
from apps.rules.models import Rule
from apps.rules.services import save_rule
from apps.runs.models import Run
from apps.runs.services import request_run, work_until_finished
from apps.sources.models import Source
from apps.sources.services import discover, save_source
from tests.servers import (
    mariadb_connection,
    mariadb_database,
    postgresql_connection,
    postgresql_database,
)


@dataclass(frozen=True)
class Keys:
    """A table's key: columns by dialect, the n-th key (1…200) as SQL values, how it is cut."""

    columns: str
    key: str
    value: Callable[[int], str]
    cut: str = "range"
    right_columns: str = ""
    mariadb: str = ""

    @property
    def names(self) -> list[str]:
        return [name.strip() for name in self.key.split(",")]


def _word(n: int) -> str:
    """Texts that collations would not order as bytes are."""
    return f"'{'aAzZéßÖ_ 😀'[n % 10]}{n * 7919 % 1000:03}'"


INTEGER = Keys("a bigint", "a", lambda n: str(n * n * 1_000))
TEXT = Keys("a varchar(40)", "a", _word, mariadb="a varchar(40) CHARACTER SET utf8mb4")
UUID = Keys("a uuid", "a", lambda n: f"'{n * 2654435761 % 2**32:08x}-0000-4000-8000-{n:012}'")
DATE = Keys("a date", "a", lambda n: f"'{1800 + n}-0{1 + n % 9}-11'")
TIMESTAMP = Keys(
    "a timestamp", "a", lambda n: f"'2024-02-{1 + n % 28:02} 00:{n % 60:02}:{n * 13 % 60:02}.{n}'",
    mariadb="a datetime(6)",
)  # fmt: skip
COMPOSITE = Keys(
    "a varchar(40), b bigint", "a, b", lambda n: f"{_word(n % 3)}, {n}",
    mariadb="a varchar(40) CHARACTER SET utf8mb4, b bigint",
)  # fmt: skip
AS_TEXT = Keys("a bigint", "a", lambda n: f"'{n}'", cut="share", right_columns="a varchar(40)")
KINDS = {
    "integer": INTEGER,
    "text": TEXT,
    "uuid": UUID,
    "date": DATE,
    "timestamp": TIMESTAMP,
    "composite": COMPOSITE,
    "integer kept as text": AS_TEXT,
}


@contextmanager
def postgresql(columns: str, key: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    with (
        postgresql_database() as settings,
        postgresql_connection(settings) as connection,
    ):
        connection.execute(f"CREATE TABLE t ({columns}, v text, PRIMARY KEY ({key}))")
        yield "postgresql", settings, connection.execute


@contextmanager
def mariadb(columns: str, key: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    with mariadb_database() as settings, mariadb_connection(settings) as connection:
        connection.query(f"CREATE TABLE t ({columns}, v text, PRIMARY KEY ({key}))")
        yield "mysql", settings, connection.query


class Scene:
    """A rule between two tables `t` on servers, cut into partitions once both hold records."""

    def __init__(
        self, keys: Keys, left: Any, right: Any, *, two_way: bool = False, rows: int = 200
    ) -> None:
        self.keys = keys
        (_, _, self.on_left), (_, _, self.on_right) = left, right
        for n in range(1, rows + 1):
            self.on_left(f"INSERT INTO t VALUES ({keys.value(n)}, 'v{n}')")
        datasets = []
        for side, (connector, settings, execute) in (("left", left), ("right", right)):
            execute("ANALYZE t" if connector == "postgresql" else "ANALYZE TABLE t")
            source = save_source(Source(name=side, connector=connector), settings, actor=None)
            discover(source, actor=None)
            datasets.append(source.datasets.get(name="t"))
        mapping = Mapping(name="t", left=datasets[0], right=datasets[1])
        fields = [FieldMappingSpec(right=name, left=name) for name in [*keys.names, "v"]]
        save_mapping(mapping, fields, keys.names, actor=None)
        facts = {"direction": "two_way", "first_contact": "left"} if two_way else {}
        self.rule = Rule(name="t", mapping=mapping, max_deletes_percent=None, **facts)
        save_rule(self.rule, (), actor=None)

    def run(self, **options: Any) -> Run:
        return work_until_finished(request_run(self.rule, actor=None, **options))

    def edit(self, execute: Any, n: int, value: str) -> None:
        execute(f"UPDATE t SET v = '{value}' WHERE {self._named(n)}")

    def delete(self, execute: Any, n: int) -> None:
        execute(f"DELETE FROM t WHERE {self._named(n)}")

    def _named(self, n: int) -> str:
        values = self.keys.value(n).split(", ")
        pairs = zip(self.keys.names, values, strict=True)
        return " AND ".join(f"{name} = {value}" for name, value in pairs)


@contextmanager
def scene(keys: Keys, right_server: str = "postgresql", **options: Any) -> Iterator[Scene]:
    with ExitStack() as stack:
        left = stack.enter_context(postgresql(keys.columns, keys.key))
        if right_server == "mariadb":
            columns = keys.right_columns or keys.mariadb or keys.columns
            right = stack.enter_context(mariadb(columns, keys.key))
        else:
            columns = keys.right_columns or keys.columns
            right = stack.enter_context(postgresql(columns, keys.key))
        yield Scene(keys, left, right, **options)
