"""What is particular to SQLite: types that only suggest, and locks on files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import (
    ChangeBatch,
    CursorWindow,
    KeyRange,
    Operation,
    ReadRequest,
    Reference,
    StepStatus,
)
from apps.connectors.errors import (
    ConfigurationError,
    PermissionRefused,
    SchemaMismatch,
    TargetBusy,
)
from apps.connectors.sqlite import SqliteConnector, SqliteSettings
from apps.connectors.testing import (
    do_nothing,
    open_session,
    read_all,
    read_with_rejections,
    statuses,
)

Build = Callable[[str], SqliteConnector]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Runs a script in a fresh database and gives the connector to it."""

    def run(script: str) -> SqliteConnector:
        path = tmp_path / "source.db"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(script)
        return SqliteConnector(SqliteSettings(path=str(path)))

    return run


def test_declared_types_map_by_name_and_affinity(build: Build) -> None:
    connector = build(
        "CREATE TABLE t (a INTEGER, b BIGINT, c NVARCHAR(120), d DATETIME, e NUMERIC(10,2),"
        " f BOOLEAN, g DOUBLE PRECISION, h BLOB, i DATE, j JSON, k CLOB, l UUID, m NUMERIC)"
    )
    found = {f.name: str(f.type) for f in connector.describe("t").fields}
    assert found == {
        "a": "integer",
        "b": "integer",
        "c": "text(120)",
        "d": "timestamp",
        "e": "decimal(10,2)",
        "f": "boolean",
        "g": "float",
        "h": "bytes",
        "i": "date",
        "j": "json",
        "k": "text",
        "l": "uuid",
        "m": "decimal",
    }


def test_columns_without_a_type_take_that_of_their_content(build: Build) -> None:
    connector = build(
        "CREATE TABLE t (a, b, c, d); INSERT INTO t VALUES (1, 'x', 1.5, 1), (2, 'y', 2, 'z')"
    )
    found = [f.type for f in connector.describe("t").fields]
    assert found == [neutral.INTEGER, neutral.TEXT, neutral.FLOAT, neutral.TEXT]


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        ("INTEGER", "'abc'"),
        ("INTEGER", "1.5"),
        ("BOOLEAN", "7"),
        ("DATE", "'2023-02-29'"),
        ("DATE", "20240101"),
        ("DATETIME", "'yesterday'"),
        ("NUMERIC(10,2)", "0.999"),
        ("NUMERIC(10,2)", "'abc'"),
        ("TEXT", "x'ff'"),
        ("TEXT", "CAST(x'ff' AS TEXT)"),
        ("BLOB", "'text'"),
        ("REAL", "'abc'"),
        ("UUID", "'not-one'"),
        ("JSON", "'{'"),
    ],
)
def test_a_value_of_another_kind_rejects_its_record(
    build: Build, declared: str, value: str
) -> None:
    connector = build(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, v {declared});"
        f"INSERT INTO t VALUES (1, NULL), (2, {value}), (3, NULL)"
    )
    request = ReadRequest(connector.describe("t"), ("id", "v"))
    records, rejected = read_with_rejections(connector, request)
    assert records.column("id").to_pylist() == [1, 3]
    assert [(r.key, r.field, r.code) for r in rejected] == [({"id": 2}, "v", "record.malformed")]


def test_text_that_is_not_utf8_rejects_one_record_among_many(build: Build) -> None:
    connector = build(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)"
        " INSERT INTO t SELECT i, 'text ' || i FROM n;"
        "UPDATE t SET v = CAST(x'c328' AS TEXT) WHERE id IN (3210, 3333)"
    )
    request = ReadRequest(connector.describe("t"), ("id", "v"), batch_rows=700)
    records, rejected = read_with_rejections(connector, request)
    assert [r.key for r in rejected] == [{"id": 3210}, {"id": 3333}]
    expected = [n for n in range(1, 5001) if n not in (3210, 3333)]
    assert records.column("id").to_pylist() == expected


def test_reals_in_a_numeric_column_read_as_exact_decimals(build: Build) -> None:
    connector = build(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v NUMERIC(10,2));"
        "INSERT INTO t VALUES (1, 0.99), (2, 5), (3, '12.50'), (4, 99999999.99)"
    )
    read = read_all(connector, ReadRequest(connector.describe("t"), ("v",)))
    expected = [Decimal("0.99"), Decimal("5.00"), Decimal("12.50"), Decimal("99999999.99")]
    assert read.column("v").to_pylist() == expected


def test_what_sqlite_would_alter_is_refused(build: Build) -> None:
    connector = build("CREATE TABLE t (id INTEGER PRIMARY KEY, n NUMERIC(20,4), f DOUBLE)")
    rows = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "n": pa.array(
                [Decimal("1234567890123456.7891"), Decimal("0.1"), Decimal("1")],
                pa.decimal128(20, 4),
            ),
            "f": [1.0, float("nan"), 2.0],
        }
    )
    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(
            ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows), do_nothing
        )
    assert {r: (p.code, p.field) for r, p in result.exceptions.items()} == {
        0: ("record.out_of_range", "n"),
        1: ("record.out_of_range", "f"),
    }


def test_discovery_sees_keys_references_views_and_computed_fields(build: Build) -> None:
    connector = build(
        "CREATE TABLE a (x INTEGER, y TEXT, PRIMARY KEY (y, x)) WITHOUT ROWID;"
        "CREATE TABLE b (id INTEGER PRIMARY KEY, x INTEGER, y TEXT, u TEXT UNIQUE,"
        " g TEXT GENERATED ALWAYS AS (y || u), FOREIGN KEY (y, x) REFERENCES a);"
        "CREATE VIEW v AS SELECT id FROM b; INSERT INTO b (id) VALUES (1)"
    )
    a, b, v = connector.discover()
    assert a.key == ("y", "x")
    assert b.key == ("id",)
    assert b.unique_keys == (("u",),)
    assert b.references == (Reference(("y", "x"), "a", ("y", "x")),)
    assert b.field("id").server_assigned
    assert b.field("g").generated
    assert b.row_count == 1
    assert (v.format, v.writable) == ("view", False)


def test_tables_without_rowid_are_read_and_written(build: Build) -> None:
    connector = build("CREATE TABLE t (k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID")
    rows = pa.table({"k": ["a", "b"], "v": ["1", "2"]})
    with open_session(connector, connector.describe("t")) as session:
        batch = ChangeBatch(Operation.INSERT, rows.select(["k"]), None, rows)
        assert session.apply(batch, do_nothing).exceptions == {}
    assert read_all(connector, ReadRequest(connector.describe("t"), ("k", "v"))) == rows


def test_keys_in_other_spellings_are_found(build: Build) -> None:
    connector = build(
        "CREATE TABLE t (id UUID PRIMARY KEY, at TIMESTAMP);"
        "INSERT INTO t VALUES ('6BA7B810-9DAD-11D1-80B4-00C04FD430C8', '2024-02-29T10:00:00')"
    )
    dataset = connector.describe("t")
    (record,) = read_all(connector, ReadRequest(dataset, ("id", "at"))).to_pylist()
    for name in ("id", "at"):
        keys = pa.table({name: pa.array([record[name]], dataset.field(name).type.arrow)})
        assert read_all(connector, ReadRequest(dataset, ("id",), keys=keys)).num_rows == 1


def test_constraints_reject_only_their_record(build: Build) -> None:
    connector = build(
        "CREATE TABLE p (id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1);"
        "CREATE TABLE t (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p, u TEXT UNIQUE,"
        " c INTEGER CHECK (c > 0)); INSERT INTO t VALUES (1, 1, 'taken', 1)"
    )
    rows = pa.table(
        {
            "id": pa.array([2, 3, 4, 5], pa.int64()),
            "p": pa.array([1, 9, 1, 1], pa.int64()),
            "u": ["a", "b", "taken", "d"],
            "c": pa.array([1, 1, 1, 0], pa.int64()),
        }
    )
    with open_session(connector, connector.describe("t")) as session:
        result = session.apply(
            ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows), do_nothing
        )
    assert {r: p.code for r, p in result.exceptions.items()} == {
        1: "record.reference_missing",
        2: "record.duplicate",
        3: "record.invalid",
    }


def test_a_writer_waits_no_longer_than_its_lease(build: Build, tmp_path: Path) -> None:
    connector = build("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    rows = pa.table({"id": pa.array([1], pa.int64())})
    batch = ChangeBatch(Operation.INSERT, rows, None, rows)
    with closing(sqlite3.connect(tmp_path / "source.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        session = open_session(connector, connector.describe("t"), seconds=0.3)
        with session as opened, pytest.raises(TargetBusy):
            opened.apply(batch, do_nothing)


def test_the_lock_file_does_not_stay(build: Build, tmp_path: Path) -> None:
    connector = build("CREATE TABLE t (id INTEGER PRIMARY KEY)")
    with open_session(connector, connector.describe("t")):
        assert len(list(tmp_path.glob(".source.db.lockstep-*"))) == 1
    assert not list(tmp_path.glob(".source.db.lockstep-*"))


def test_views_and_read_only_sources_are_not_written(build: Build, tmp_path: Path) -> None:
    connector = build("CREATE TABLE t (id INTEGER PRIMARY KEY); CREATE VIEW v AS SELECT * FROM t")
    with pytest.raises(SchemaMismatch), open_session(connector, connector.describe("v")):
        pass
    guarded = SqliteConnector(SqliteSettings(path=str(tmp_path / "source.db"), read_only=True))
    with pytest.raises(PermissionRefused), open_session(guarded, guarded.describe("t")):
        pass


def test_the_connection_test_names_the_step_that_failed(build: Build, tmp_path: Path) -> None:
    steps = list(build("CREATE TABLE t (a)").check())
    assert [s.name for s in steps] == ["resolve", "connect", "tls", "sign_in", "read", "write"]
    assert {s.status for s in steps} == {StepStatus.OK}
    missing = list(SqliteConnector(SqliteSettings(path=str(tmp_path / "no.db"))).check())
    assert (missing[0].status, missing[1].status) == (StepStatus.FAILED, StepStatus.SKIPPED)
    assert missing[0].remedy
    (tmp_path / "text.db").write_text("this is not a database, whatever its name says" * 50)
    wrong = list(SqliteConnector(SqliteSettings(path=str(tmp_path / "text.db"))).check())
    assert wrong[1].status is StepStatus.FAILED
    assert "not a SQLite database" in wrong[1].message


def test_a_lost_update_by_another_session_is_stale(build: Build, tmp_path: Path) -> None:
    connector = build(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); INSERT INTO t VALUES (1, 'a')"
    )
    key = pa.table({"id": pa.array([1], pa.int64())})
    update = ChangeBatch(Operation.UPDATE, key, pa.table({"v": ["a"]}), pa.table({"v": ["b"]}))
    with closing(sqlite3.connect(tmp_path / "source.db")) as other:
        other.execute("UPDATE t SET v = 'moved'")
        other.commit()
    with open_session(connector, connector.describe("t")) as session:
        assert statuses(session.apply(update, do_nothing)) == ["stale"]


@pytest.mark.parametrize("rule", ["REPLACE", "IGNORE", "FAIL", "ROLLBACK"])
def test_what_the_table_does_on_conflict_costs_no_other_record(build: Build, rule: str) -> None:
    connector = build(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, u TEXT UNIQUE ON CONFLICT {rule});"
        "INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    )
    new = pa.table({"id": pa.array([3, 4], pa.int64()), "u": ["a", "c"]})
    insert = ChangeBatch(Operation.INSERT, new.select(["id"]), None, new)
    key = pa.table({"id": pa.array([2], pa.int64())})
    update = ChangeBatch(Operation.UPDATE, key, pa.table({"u": ["b"]}), pa.table({"u": ["a"]}))
    with open_session(connector, connector.describe("t")) as session:
        for batch, outcome in ((insert, ["rejected", "applied"]), (update, ["rejected"])):
            result = session.apply(batch, do_nothing)
            assert statuses(result) == outcome
            assert result.exceptions[0].code == "record.duplicate"
    read = read_all(connector, ReadRequest(connector.describe("t"), ("id", "u")))
    assert read.to_pylist() == [{"id": 1, "u": "a"}, {"id": 2, "u": "b"}, {"id": 4, "u": "c"}]


def test_triggers_keep_their_own_conflict_rules(build: Build, tmp_path: Path) -> None:
    connector = build(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE seen (v TEXT UNIQUE);"
        "CREATE TRIGGER note AFTER INSERT ON t BEGIN"
        " INSERT OR IGNORE INTO seen VALUES (new.v); END"
    )
    rows = pa.table({"id": pa.array([1, 2], pa.int64()), "v": ["a", "a"]})
    with open_session(connector, connector.describe("t")) as session:
        batch = ChangeBatch(Operation.INSERT, rows.select(["id"]), None, rows)
        assert session.apply(batch, do_nothing).exceptions == {}
    with closing(sqlite3.connect(tmp_path / "source.db")) as database:
        assert database.execute("SELECT v FROM seen").fetchall() == [("a",)]


def test_a_record_that_a_trigger_ignores_is_not_called_written(build: Build) -> None:
    guards = "".join(
        f"CREATE TRIGGER guard_{name} BEFORE {name} ON t WHEN {row}.v = 'no' "
        "BEGIN SELECT RAISE(IGNORE); END;"
        for name, row in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old"))
    )
    connector = build(
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT);"
        f"INSERT INTO t VALUES (1, 'no'), (2, 'a'), (3, 'b'); {guards}"
    )
    new = pa.table({"id": pa.array([7, 8, 9], pa.int64()), "v": ["x", "no", "y"]})
    both = pa.table({"id": pa.array([2, 3], pa.int64())})
    gone = pa.table({"id": pa.array([1, 3], pa.int64())})
    batches = [
        (ChangeBatch(Operation.INSERT, new.select(["id"]), None, new), 1),
        (
            ChangeBatch(
                Operation.UPDATE, both, pa.table({"v": ["a", "b"]}), pa.table({"v": ["no", "c"]})
            ),
            0,
        ),
        (ChangeBatch(Operation.DELETE, gone, pa.table({"v": ["no", "c"]})), 0),
    ]
    with open_session(connector, connector.describe("t")) as session:
        for batch, refused in batches:
            result = session.apply(batch, do_nothing)
            codes = {row: problem.code for row, problem in result.exceptions.items()}
            assert codes == {refused: "record.not_written"}
    read = read_all(connector, ReadRequest(connector.describe("t"), ("id", "v")))
    assert [tuple(row.values()) for row in read.to_pylist()] == [
        (1, "no"),
        (2, "a"),
        (7, "x"),
        (9, "y"),
    ]


@pytest.mark.parametrize(
    ("declared", "after", "older", "within"),
    [
        (
            "TIMESTAMP",
            datetime.fromisoformat("2026-01-01"),
            ["2025-12-31 23:59:59", "2025-12-31T23:59"],
            ["2026-01-01", "2026-01-01 00:00", "2026-01-01 00:00:00", "2026-01-01T00:00:00.000"],
        ),
        (
            "TIMESTAMP",
            datetime.fromisoformat("2026-01-01 10:00:00.123600"),
            ["2026-01-01 10:00:00.1", "2026-01-01T10:00:00"],
            ["2026-01-01 10:00:00.1236", "2026-01-01T10:00:00.123600", "2026-01-01 10:00:00.124"],
        ),
        (
            "TIMESTAMP",
            datetime.fromisoformat("2026-01-01 23:59:59.999999"),
            ["2026-01-01 23:59:59"],
            ["2026-01-01 23:59:59.999999", "2026-01-02"],
        ),
        (
            "TIMESTAMP",
            datetime.fromisoformat("0001-01-01"),
            [],
            ["0001-01-01 00:00:00", "9999-12-31 23:59:59.999999"],
        ),
        (
            "TIMESTAMPTZ",
            datetime(2026, 1, 1, 10, tzinfo=UTC),
            ["2026-01-01 09:59:59Z", "2026-01-01T11:00:00+02:00", "2026-01-01 10:30:00.5+01:00"],
            [
                "2026-01-01 10:00:00Z",
                "2026-01-01T10:00:00+00:00",
                "2026-01-01T12:00:00+02:00",
                "2026-01-01 05:00:00-05:00",
                "2026-01-01 12:00:00+02",
                "2026-01-01T12:00:00.000001+0200",
            ],
        ),
        ("DATE", date(2026, 1, 1), ["2025-12-31"], ["2026-01-01", "2026-01-02"]),
        ("TIME", time(10), ["09:59", "09:59:59.9"], ["10:00", "10:00:00", "10:00:00.000000"]),
        ("TIME", time(0), [], ["00:00", "00:00:00.1"]),
    ],
)
def test_a_cursor_compares_times_however_they_are_written(
    build: Build, declared: str, after: Any, older: list[str], within: list[str]
) -> None:
    values = [*older, *within]
    rows = ", ".join(f"({number}, '{value}')" for number, value in enumerate(values))
    connector = build(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, at {declared}); INSERT INTO t VALUES {rows}"
    )
    window = CursorWindow("at", after)
    request = ReadRequest(connector.describe("t"), ("id", "at"), cursor=window)
    records, rejected = read_with_rejections(connector, request)
    assert rejected == []
    assert records.column("id").to_pylist() == list(range(len(older), len(values)))


@pytest.mark.parametrize("declared", ["TIMESTAMP", "TIMESTAMPTZ", "DATE", "TIME"])
@pytest.mark.parametrize("value", ["''", "'01.01.2020'", "20200101", "2026.5", "x'30'"])
def test_a_cursor_that_is_no_time_stays_visible(build: Build, declared: str, value: str) -> None:
    connector = build(
        f"CREATE TABLE t (id INTEGER PRIMARY KEY, at {declared});"
        f"INSERT INTO t VALUES (1, {value}), (2, NULL)"
    )
    dataset = connector.describe("t")
    afters = {
        "TIMESTAMP": datetime.fromisoformat("2026-01-01"),
        "TIMESTAMPTZ": datetime(2026, 1, 1, tzinfo=UTC),
        "DATE": date(2026, 1, 1),
        "TIME": time(10),
    }
    request = ReadRequest(dataset, ("id", "at"), cursor=CursorWindow("at", afters[declared]))
    records, rejected = read_with_rejections(connector, request)
    assert records.column("id").to_pylist() == [2]
    assert [rejection.key for rejection in rejected] == [{"id": 1}]


def test_key_ranges_miss_nothing_that_is_no_integer(build: Build) -> None:
    connector = build(
        "CREATE TABLE t (id INT PRIMARY KEY, v TEXT); INSERT INTO t VALUES"
        " (NULL, 'null'), ('abc', 'text'), (6.5, 'real'), (x'ff', 'blob'),"
        " (1, 'a'), (6, 'b'), (12, 'c')"
    )
    dataset = connector.describe("t")
    bounds = connector.split(dataset, ("id",), 3).bounds
    assert bounds == ((6,), (12,))
    found = []
    for lower, upper in pairwise([None, *bounds, None]):
        part = KeyRange(("id",), lower, upper)
        records, rejected = read_with_rejections(
            connector, ReadRequest(dataset, ("id", "v"), part=part)
        )
        found.append((sorted(records.column("v").to_pylist()), len(rejected)))
    assert found == [(["a", "null"], 3), (["b"], 0), (["c"], 0)]


def test_a_key_without_integers_is_not_split(build: Build) -> None:
    connector = build("CREATE TABLE t (id INT PRIMARY KEY); INSERT INTO t VALUES ('a'), ('b')")
    assert connector.split(connector.describe("t"), ("id",), 3).bounds == ()


def test_a_path_that_depends_on_where_a_worker_starts_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite3.connect(tmp_path / "own.db").close()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="not absolute"):
        SqliteConnector(SqliteSettings(path="own.db")).discover()
