"""Records that swap unique values in tables with triggers, checks, foreign keys and odd indexes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors.base import ChangeBatch, Connector, Operation, WriteResult
from apps.connectors.exchanging import NO_ROOM
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.placeholders import placeholders
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.sqlite import SqliteConnector, SqliteSettings
from apps.connectors.testing import APPLIED, REJECTED, do_nothing, open_session, statuses
from apps.connectors.types import NeutralType
from tests.servers import (
    mariadb_connection,
    mariadb_database,
    postgresql_connection,
    postgresql_database,
)

Rows = Mapping[int, Sequence[Any]]
"""By `id` the values of the fields that are written."""


@dataclass(frozen=True)
class Place:
    """A database in which each test makes its table `t`."""

    name: str
    connector: Connector[Any]
    query: Callable[[str], list[tuple[Any, ...]]]

    def update(
        self, names: str, before: Rows, after: Rows, written: Sequence[Sequence[str]] = ()
    ) -> WriteResult:
        """Update the fields named of table `t`."""
        dataset = self.connector.describe("t")
        types = {name: dataset.field(name).type.arrow for name in names.split()}

        def image(rows: Rows) -> pa.Table:
            columns = zip(*(rows[number] for number in after), strict=True)
            return pa.table({n: pa.array(c, types[n]) for n, c in zip(types, columns, strict=True)})

        key = pa.table({"id": pa.array(list(after), pa.int64())})
        masks = tuple(map(tuple, written))
        batch = ChangeBatch(Operation.UPDATE, key, image(before), image(after), written=masks)
        with open_session(self.connector, dataset) as session:
            return session.apply(batch, do_nothing)

    def swap(self, a: Any, b: Any, name: str = "v") -> WriteResult:
        """Records 1 and 2 swap their values of one field."""
        return self.update(name, {1: [a], 2: [b]}, {1: [b], 2: [a]})

    def held(self, names: str = "v", table: str = "t") -> list[tuple[Any, ...]]:
        return self.query(f"SELECT {names} FROM {table} ORDER BY id")


@contextmanager
def sqlite(folder: Path) -> Iterator[Place]:
    path = folder / "swap.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        connector = SqliteConnector(SqliteSettings(path=str(path)))
        yield Place("sqlite", connector, lambda sql: list(connection.execute(sql)))


@contextmanager
def postgresql(folder: Path) -> Iterator[Place]:
    with postgresql_database() as settings, postgresql_connection(settings) as connection:

        def query(sql: str) -> list[tuple[Any, ...]]:
            done = connection.execute(sql.encode(), prepare=False)
            return done.fetchall() if done.description else []

        yield Place("postgresql", PostgresqlConnector(PostgresqlSettings(**settings)), query)


@contextmanager
def mariadb(folder: Path) -> Iterator[Place]:
    with mariadb_database() as settings, mariadb_connection(settings) as connection:

        def query(sql: str) -> list[tuple[Any, ...]]:
            with connection.cursor() as cursor:
                cursor.execute(sql)
                return [tuple(row) for row in cursor.fetchall()]

        yield Place("mariadb", MysqlConnector(MysqlSettings(**settings)), query)


_PLACES: dict[str, Any] = {"sqlite": sqlite, "postgresql": postgresql, "mariadb": mariadb}


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Place]:
    with _PLACES[request.param](tmp_path_factory.mktemp("swap")) as place:
        yield place


@pytest.fixture
def place(places: Place) -> Place:
    """The database without the tables, and what hangs on them, of the test before."""
    for kind, name in (("TABLE", "child"), ("TABLE", "t")):
        places.query(f"DROP {kind} IF EXISTS {name}")
    return places


def on(*names: str) -> pytest.MarkDecorator:
    marks = {"postgresql": pytest.mark.postgresql, "mariadb": pytest.mark.mariadb}
    found = [pytest.param(n, marks=[marks[n]] if n in marks else []) for n in names]
    return pytest.mark.parametrize("places", found, indirect=True)


EVERYWHERE = ("sqlite", "postgresql", "mariadb")


def make(place: Place, field: str, a: str = "'a'", b: str = "'b'") -> None:
    """Table `t` with two records; field: the declaration of `v`, and constraints."""
    place.query(f"CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER, v {field})")
    place.query(f"INSERT INTO t VALUES (1, 0, {a}), (2, 0, {b})")


def refuses(result: WriteResult) -> bool:
    """Whether nothing was written, with a word that says why."""
    codes = {problem.code for problem in result.exceptions.values()}
    return statuses(result) == [REJECTED] * 2 and codes == {"record.duplicate"}


KEEPS_THE_SECOND_VALUE = {
    "sqlite": """
        CREATE TRIGGER once AFTER UPDATE OF v ON t BEGIN
            UPDATE t SET n = old.n + 1, v = CASE WHEN old.n > 0 THEN old.v ELSE v END
            WHERE id = old.id;
        END
    """,
    "postgresql": """
        CREATE OR REPLACE FUNCTION once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            NEW.n := OLD.n + 1;
            IF OLD.n > 0 THEN NEW.v := OLD.v; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER once BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION once()
    """,
    "mariadb": """
        CREATE TRIGGER once BEFORE UPDATE ON t FOR EACH ROW
            SET NEW.n = OLD.n + 1, NEW.v = IF(OLD.n > 0, OLD.v, NEW.v)
    """,
}


@on(*EVERYWHERE)
@pytest.mark.parametrize("field", ["VARCHAR(40) UNIQUE", "VARCHAR(40) NOT NULL UNIQUE"])
def test_nothing_stays_of_what_was_held_for_a_moment(place: Place, field: str) -> None:
    make(place, field)
    place.query(KEEPS_THE_SECOND_VALUE[place.name])
    result = place.swap("a", "b")
    assert statuses(result) == [REJECTED] * 2
    assert place.held("v, n") == [("a", 0), ("b", 0)]


@on("postgresql")
def test_a_record_that_a_trigger_of_another_moves_is_stale(place: Place) -> None:
    make(place, "text UNIQUE")
    place.query(
        "CREATE OR REPLACE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN UPDATE t SET n = n + 1 WHERE id = 2; RETURN NEW; END $$;"
        "CREATE TRIGGER moves AFTER UPDATE ON t FOR EACH ROW WHEN (NEW.id = 1) "
        "EXECUTE FUNCTION moves()"
    )
    before = {1: ["a", 0], 2: ["b", 0]}
    result = place.update("v n", before, {1: ["b", 1], 2: ["a", 1]})
    assert {problem.code for problem in result.exceptions.values()} == {
        "record.stale",
        "record.duplicate",
    }
    assert place.held("v, n") == [("a", 0), ("b", 0)]


COUNTS = """
    CREATE OR REPLACE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        NEW.n := OLD.n + 10; RETURN NEW;
    END $$;
    CREATE TRIGGER counts BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION counts()
"""


@on("postgresql")
def test_a_version_that_a_trigger_counts_is_no_obstacle(place: Place) -> None:
    make(place, "text UNIQUE")
    place.query(COUNTS)
    before = {1: ["a", 0], 2: ["b", 0]}
    assert place.update("v n", before, {1: ["b", 1], 2: ["a", 1]}).exceptions == {}
    assert place.held() == [("b",), ("a",)]


@on("postgresql")
def test_what_a_record_does_not_write_stays_as_it_was_while_it_makes_room(place: Place) -> None:
    make(place, "text UNIQUE")
    place.query(COUNTS)
    before = {1: ["a", 0], 2: ["b", 0]}
    result = place.update("v n", before, {1: ["b", 0], 2: ["a", 0]}, [["v"], ["v"]])
    assert refuses(result)
    assert place.held("v, n") == [("a", 0), ("b", 0)]


CHILD = """
    CREATE TABLE child (id INTEGER PRIMARY KEY, v VARCHAR(40),
        FOREIGN KEY (v) REFERENCES t (v) ON UPDATE {action})
"""


def add_children(place: Place, action: str) -> None:
    place.query(CHILD.format(action=action))
    place.query("INSERT INTO child VALUES (1, 'a'), (2, 'b')")


@on(*EVERYWHERE)
def test_records_that_follow_a_value_follow_it_through_a_swap(place: Place) -> None:
    make(place, "VARCHAR(40) UNIQUE")
    add_children(place, "CASCADE")
    assert place.swap("a", "b").exceptions == {}
    assert place.held() == [("b",), ("a",)]
    assert place.held(table="child") == [("b",), ("a",)]


@on(*EVERYWHERE)
def test_records_that_follow_a_value_into_a_shorter_field_keep_it(place: Place) -> None:
    make(place, "VARCHAR(40) UNIQUE", "'aaaa'", "'bbbb'")
    place.query(CHILD.format(action="CASCADE").replace("40", "9"))
    place.query("INSERT INTO child VALUES (1, 'aaaa'), (2, 'bbbb')")
    assert place.swap("aaaa", "bbbb").exceptions == {}
    assert place.held() == place.held(table="child") == [("bbbb",), ("aaaa",)]


@on(*EVERYWHERE)
def test_values_that_others_would_follow_into_nothing_are_not_emptied(place: Place) -> None:
    make(place, "VARCHAR(40) UNIQUE CHECK (v IN ('a', 'b'))")
    add_children(place, "CASCADE")
    assert refuses(place.swap("a", "b"))
    assert place.held() == place.held(table="child") == [("a",), ("b",)]


BY_TRIGGER = {
    "sqlite": "CREATE TRIGGER follow AFTER UPDATE ON t BEGIN "
    "UPDATE child SET v = new.v WHERE v = old.v; END",
    "postgresql": "CREATE OR REPLACE FUNCTION follow() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN UPDATE child SET v = NEW.v WHERE v = OLD.v; RETURN NEW; END $$;"
    "CREATE TRIGGER follow AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION follow()",
    "mariadb": "CREATE TRIGGER follow AFTER UPDATE ON t FOR EACH ROW "
    "UPDATE child SET v = NEW.v WHERE v = OLD.v",
}


@on(*EVERYWHERE)
@pytest.mark.parametrize("check", ["", "CHECK (v IN ('a', 'b'))"])
def test_records_that_follow_by_a_trigger_are_not_led_into_nothing(
    place: Place, check: str
) -> None:
    make(place, f"VARCHAR(40) UNIQUE {check}")
    place.query("CREATE TABLE child (id INTEGER PRIMARY KEY, v VARCHAR(40))")
    place.query("INSERT INTO child VALUES (1, 'a'), (2, 'b')")
    place.query(BY_TRIGGER[place.name])
    result = place.swap("a", "b")
    assert refuses(result) if check else not result.exceptions
    kept = [("a",), ("b",)]
    assert place.held() == place.held(table="child") == (kept if check else kept[::-1])


@on("postgresql")
def test_an_error_of_a_triggers_own_refuses_the_value_for_a_moment_only(place: Place) -> None:
    make(place, "text NOT NULL UNIQUE", "'a@b'", "'b@b'")
    place.query(
        "CREATE OR REPLACE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "IF NEW.v NOT LIKE '%@%' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'UE001'; END IF; "
        "RETURN NEW; END $$;"
        "CREATE TRIGGER picky BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION picky()"
    )
    assert place.swap("a@b", "b@b").exceptions == {}
    assert place.held() == [("b@b",), ("a@b",)]


@on(*EVERYWHERE)
@pytest.mark.parametrize("action", ["SET NULL", "NO ACTION"])
def test_no_reference_is_lost_for_a_moment(place: Place, action: str) -> None:
    make(place, "VARCHAR(40) UNIQUE")
    add_children(place, action)
    assert statuses(place.swap("a", "b")) == [REJECTED] * 2
    assert place.held() == place.held(table="child") == [("a",), ("b",)]


@on("mariadb")
def test_a_user_who_sees_no_foreign_keys_empties_nothing(place: Place, places: Place) -> None:
    make(place, "VARCHAR(40) UNIQUE CHECK (v IN ('a', 'b'))")
    add_children(place, "CASCADE")
    database = place.query("SELECT DATABASE()")[0][0]
    user = database[-20:]
    place.query(f"CREATE USER {user} IDENTIFIED BY 'secret'")
    try:
        place.query(f"GRANT SELECT, UPDATE ON {database}.t TO {user}")
        place.query(f"GRANT CREATE TEMPORARY TABLES ON {database}.* TO {user}")
        settings = place.connector.settings.model_dump() | {"user": user, "password": "secret"}
        limited = Place("mariadb", MysqlConnector(MysqlSettings(**settings)), place.query)
        assert refuses(limited.swap("a", "b"))
    finally:
        place.query(f"DROP USER {user}")
    assert place.held() == place.held(table="child") == [("a",), ("b",)]


@on(*EVERYWHERE)
@pytest.mark.parametrize(
    ("field", "a", "b"),
    [
        ("NUMERIC(6,2) NOT NULL UNIQUE", Decimal("1.50"), Decimal("2.25")),
        ("NUMERIC(3,3) NOT NULL UNIQUE", Decimal("0.150"), Decimal("0.225")),
        ("NUMERIC(6,2) NOT NULL UNIQUE CHECK (v BETWEEN 0 AND 20)", Decimal(1), Decimal(2)),
        ("SMALLINT NOT NULL UNIQUE", 1, 2),
        ("INTEGER NOT NULL UNIQUE CHECK (v > 0)", 1, 2),
        ("INTEGER NOT NULL UNIQUE CHECK (v BETWEEN 0 AND 50)", 10, 20),
        ("DATE NOT NULL UNIQUE", date(2024, 2, 29), date(2024, 3, 1)),
        ("DATE NOT NULL UNIQUE CHECK (v > '2024-01-01')", date(2024, 2, 29), date(2024, 3, 1)),
        ("VARCHAR(3) NOT NULL UNIQUE", "ab", "abc"),
        ("VARCHAR(40) NOT NULL UNIQUE CHECK (v LIKE '%@%')", "a@b.org", "b@b.org"),
        ("VARCHAR(9) NOT NULL UNIQUE CHECK (v LIKE '%-%')", "A-12345", "B-12346"),
        ("VARCHAR(3) UNIQUE CHECK (v IN ('abc', 'abd'))", "abc", "abd"),
    ],
)
def test_values_of_narrow_fields_are_passed_on(place: Place, field: str, a: Any, b: Any) -> None:
    make(place, field, f"'{a}'", f"'{b}'")
    kept = place.held()
    assert place.swap(a, b).exceptions == {}
    assert place.held() == kept[::-1]


@on("postgresql", "mariadb")
@pytest.mark.parametrize(
    ("declared", "a", "b"),
    [
        ({"postgresql": "time(0)", "mariadb": "TIME"}, time(12), time(13)),
        (
            {"postgresql": "timestamptz(0)", "mariadb": "TIMESTAMP NULL DEFAULT NULL"},
            datetime(2024, 1, 1, tzinfo=UTC),
            datetime(2024, 1, 2, tzinfo=UTC),
        ),
        ({"postgresql": "bytea", "mariadb": "BINARY(4)"}, b"1234", b"1235"),
        ({"postgresql": "real", "mariadb": "FLOAT"}, 1.5, 2.5),
    ],
    ids=["time", "instant", "bytes", "float"],
)
def test_values_of_other_types_are_passed_on(
    place: Place, declared: dict[str, str], a: Any, b: Any
) -> None:
    field = f"{declared[place.name]} UNIQUE CHECK (v IS NOT NULL)"
    shown = [x.decode() if isinstance(x, bytes) else str(x).removesuffix("+00:00") for x in (a, b)]
    make(place, field, *(f"'{text}'" for text in shown))
    kept = place.held()
    assert place.swap(a, b).exceptions == {}
    assert place.held() == kept[::-1]


@on(*EVERYWHERE)
def test_a_target_that_lets_nothing_in_between_is_told_of_as_a_duplicate(place: Place) -> None:
    make(place, "VARCHAR(20) NOT NULL UNIQUE CHECK (v IN ('a', 'b'))")
    result = place.swap("a", "b")
    assert set(result.exceptions.values()) == {NO_ROOM}
    assert place.held() == [("a",), ("b",)]


@on(*EVERYWHERE)
def test_any_record_of_a_circle_may_make_room(place: Place) -> None:
    make(place, "VARCHAR(20) NOT NULL UNIQUE, CHECK (id <> 1 OR v IN ('a', 'b'))")
    assert place.swap("a", "b").exceptions == {}
    assert place.held() == [("b",), ("a",)]


@on(*EVERYWHERE)
def test_records_that_are_in_two_circles_make_room_together(place: Place) -> None:
    make(place, "VARCHAR(20) UNIQUE, w VARCHAR(20) UNIQUE", "'a', 'x'", "'b', 'y'")
    place.query("INSERT INTO t VALUES (3, 0, 'c', 'z')")
    before = {1: ["a", "x"], 2: ["b", "y"], 3: ["c", "z"]}
    after = {1: ["b", "x"], 2: ["a", "z"], 3: ["c", "y"]}
    assert place.update("v w", before, after).exceptions == {}
    assert place.held("v, w") == [("b", "x"), ("a", "z"), ("c", "y")]


IN_ANOTHER_CASE = {
    "sqlite": "VARCHAR(20) COLLATE NOCASE UNIQUE",
    "postgresql": "VARCHAR(20)",
    "mariadb": "VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci UNIQUE",
}


@on(*EVERYWHERE)
def test_values_that_only_the_target_takes_for_equal_are_passed_on(place: Place) -> None:
    make(place, IN_ANOTHER_CASE[place.name], "'Anna'", "'Bert'")
    if place.name == "postgresql":
        place.query("CREATE UNIQUE INDEX ON t (lower(v))")
    result = place.update("v", {1: ["Anna"], 2: ["Bert"]}, {1: ["bert"], 2: ["anna"]})
    assert result.exceptions == {}
    assert place.held() == [("bert",), ("anna",)]


@on("mariadb")
def test_values_with_blanks_and_accents_that_the_target_passes_over(place: Place) -> None:
    make(place, IN_ANOTHER_CASE[place.name], "'René'", "'Bert'")
    result = place.update("v", {1: ["René"], 2: ["Bert"]}, {1: ["bert "], 2: ["rene"]})
    assert result.exceptions == {}
    assert place.held() == [("bert ",), ("rene",)]


@on("postgresql", "mariadb")
def test_values_that_a_computed_field_keeps_unique_are_passed_on(place: Place) -> None:
    make(place, "VARCHAR(20)")
    place.query("ALTER TABLE t ADD c VARCHAR(20) GENERATED ALWAYS AS (lower(v)) STORED UNIQUE")
    assert place.swap("a", "b").exceptions == {}
    assert place.held() == [("b",), ("a",)]


@on("postgresql")
def test_values_that_exclude_one_another_are_passed_on(place: Place) -> None:
    make(place, "int4range, EXCLUDE USING gist (v WITH &&)", "'[1,5)'", "'[10,20)'")
    assert place.swap("[1,5)", "[10,20)").exceptions == {}
    assert place.held("v::text") == [("[10,20)",), ("[1,5)",)]


@on("sqlite", "postgresql")
@pytest.mark.parametrize("index", ["(v) WHERE n = 0", "(n, lower(v))", "(lower(v)) WHERE n = 0"])
def test_values_of_partial_indexes_and_expressions_are_passed_on(place: Place, index: str) -> None:
    make(place, "VARCHAR(20) NOT NULL")
    place.query(f"CREATE UNIQUE INDEX odd ON t {index}")
    assert place.swap("a", "b").exceptions == {}
    assert place.held() == [("b",), ("a",)]


@on(*EVERYWHERE)
def test_a_part_of_a_key_is_passed_on_within_its_other_part(place: Place) -> None:
    make(place, "VARCHAR(20), UNIQUE (n, v)")
    place.query("INSERT INTO t VALUES (3, 1, 'a'), (4, 1, 'b')")
    before = {1: ["a"], 2: ["b"], 3: ["a"], 4: ["b"]}
    after = {1: ["b"], 2: ["a"], 3: ["b"], 4: ["a"]}
    assert place.update("v", before, after).exceptions == {}
    assert place.held("n, v") == [(0, "b"), (0, "a"), (1, "b"), (1, "a")]


@on(*EVERYWHERE)
def test_each_record_writes_its_own_fields_only(place: Place) -> None:
    make(place, "VARCHAR(20) UNIQUE, w VARCHAR(20)", "'a', 'x'", "'b', 'y'")
    place.query("CREATE TABLE child (id INTEGER PRIMARY KEY)")
    only = {
        "sqlite": "CREATE TRIGGER w AFTER UPDATE OF w ON t BEGIN "
        "INSERT INTO child VALUES (new.id); END",
        "postgresql": "CREATE OR REPLACE FUNCTION w() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO child VALUES (NEW.id); RETURN NEW; END $$;"
        "CREATE TRIGGER w AFTER UPDATE OF w ON t FOR EACH ROW EXECUTE FUNCTION w()",
    }
    if place.name in only:
        place.query(only[place.name])
    before = {1: ["a", "x"], 2: ["b", "y"]}
    after = {1: ["b", "new"], 2: ["a", "y"]}
    result = place.update("v w", before, after, written=[["v", "w"], ["v"]])
    assert statuses(result) == [APPLIED] * 2
    assert place.held("v, w") == [("b", "new"), ("a", "y")]
    assert place.held("id", "child") == ([(1,)] if place.name in only else [])


@pytest.mark.parametrize(
    ("kind", "old"),
    [
        ("text", ""),
        ("text(1)", "a"),
        ("text(20)", "Straße 12"),
        ("decimal(1,0)", Decimal(9)),
        ("decimal(38,10)", Decimal("1234567890123456789012345678.0123456789")),
        ("decimal(20,0)", Decimal(2**64 - 1)),
        ("decimal", "12345678901234567890.012345678901234567891"),
        ("integer", 2**63 - 1),
        ("float", 0.0),
        ("date", date.max),
        ("timestamp", datetime.max),  # noqa: DTZ901 - wall clock
        ("timestamptz", datetime(1, 1, 1, tzinfo=UTC)),
        ("time", time.max),
        ("bytes", b""),
        ("uuid", "6ba7b810-9dad-11d1-80b4-00c04fd430c8"),
        ("boolean", True),
    ],
)
def test_a_placeholder_is_a_value_of_its_type_and_another_one(kind: str, old: Any) -> None:
    wanted = NeutralType.parse(kind)
    found = list(placeholders(wanted, old))
    assert found
    assert old not in found
    assert pa.array(found, wanted.arrow).null_count == 0
    if wanted.length:
        assert all(len(text) <= wanted.length for text in found)
