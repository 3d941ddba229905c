"""Filling empty MariaDB tables: exact or refused, whole or not at all, by batches and by bytes."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pymysql.err
import pytest

from apps.connectors.base import DatasetSchema, LoadRefused, LoadSession, ReadRequest
from apps.connectors.errors import ConnectionLost, LockstepError, TargetBusy
from apps.connectors.lease_guard import LeaseGuard
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.mysql.connection import connect_as
from apps.connectors.mysql.infile import InfileConnection, packets
from apps.connectors.testing import do_nothing, open_session, read_all
from apps.connectors.testing.harness import ID, SAMPLES, field, same
from apps.connectors.types import NeutralType
from tests.conformance.harnesses.mariadb import MariadbHarness
from tests.servers import mariadb_connection, mariadb_database

pytestmark = pytest.mark.mariadb


@pytest.fixture
def settings() -> Iterator[dict[str, Any]]:
    with mariadb_database() as found:
        yield found


@pytest.fixture
def database(settings: dict[str, Any]) -> Iterator[Any]:
    with mariadb_connection(settings) as connection:
        yield connection


@pytest.fixture
def connector(settings: dict[str, Any]) -> MysqlConnector:
    return MysqlConnector(MysqlSettings(**settings))


def lock_of(connector: MysqlConnector) -> str:
    """One per test: the server has one set of locks for all databases."""
    return f"test:{connector.settings.database}"


def open_load(
    connector: MysqlConnector,
    fields: Sequence[str] = ("v",),
    *,
    table: str = "t",
    seconds: Any = 60,
) -> AbstractContextManager[LoadSession]:
    left = seconds if callable(seconds) else lambda: float(seconds)
    dataset = connector.describe(table)
    return connector.load_session(dataset, fields, lock=lock_of(connector), lease_seconds=left)


def relay(connector: MysqlConnector, text: bytes, fields: Sequence[str] = ("v",)) -> int:
    with open_load(connector, fields) as session:
        session.relay(iter([text]))
        count = session.finish()
        session.commit(do_nothing)
    return count


def write(connector: MysqlConnector, records: pa.Table) -> int:
    with open_load(connector, records.column_names) as session:
        for batch in records.to_batches():
            session.write(batch)
        count = session.finish()
        session.commit(do_nothing)
    return count


def values(connector: MysqlConnector, name: str = "v") -> list[Any]:
    found: list[Any] = (
        read_all(connector, ReadRequest(connector.describe("t"), (name,))).column(name).to_pylist()
    )
    return found


def rows(database: Any) -> int:
    with database.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM t")
        return int(cursor.fetchone()[0])


# What comes in comes out.


@pytest.mark.parametrize("kind", list(SAMPLES), ids=str)
def test_written_values_read_back_as_those_of_the_stream_lane(
    settings: dict[str, Any], kind: NeutralType
) -> None:
    harness = MariadbHarness(settings)
    samples = [*harness.samples(kind), None]
    if len(samples) == 1:
        pytest.skip("not claimed: MariaDB has no such type")
    numbers = pa.array(range(len(samples)), pa.int64())
    records = pa.table({"id": numbers, "value": pa.array(samples, kind.arrow)})
    streamed = harness.make([ID, field("value", kind)], ("id",), records)
    loaded = harness.make([ID, field("value", kind)], ("id",), records.slice(0, 0))
    connector = harness.connector
    with connector.load_session(
        loaded, ("id", "value"), lock=f"test:{loaded.name}", lease_seconds=lambda: 60.0
    ) as session:
        for batch in records.to_batches(max_chunksize=2):
            session.write(batch)
        assert session.finish() == records.num_rows
        session.commit(do_nothing)

    def found(dataset: DatasetSchema) -> list[Any]:
        table = read_all(connector, ReadRequest(dataset, ("id", "value"))).sort_by("id")
        values: list[Any] = table.column("value").to_pylist()
        return values

    assert len(found(loaded)) == records.num_rows
    assert all(same(a, b) for a, b in zip(found(loaded), found(streamed), strict=True))


TEXTS = [
    "", " ", "a ", "\\", "\\N", "NULL", "\\v\\f\\b", "\v\f\b\r\n\t\0\x1a", "😀", "'\"`", None,
    "\\\\\t\\\n", "e\u0301", "\u2028",
]  # fmt: skip


def test_every_character_of_a_text_survives(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v VARCHAR(40) COLLATE utf8mb4_nopad_bin, w LONGTEXT)")
    records = pa.table({"v": pa.array(TEXTS, pa.string()), "w": pa.array(TEXTS, pa.string())})
    assert write(connector, records) == len(TEXTS)
    assert (values(connector, "v"), values(connector, "w")) == (TEXTS, TEXTS)


def test_bytes_survive(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v VARBINARY(300), w BLOB NOT NULL)")
    given = [b"", bytes(range(256)), None, b"\\N", b"\0"]
    sliced = pa.table(
        {"v": pa.array([b"x", *given], pa.binary()), "w": pa.array([b"y"] * 6, pa.binary())}
    ).slice(1)
    write(connector, sliced)
    assert values(connector) == given
    assert values(connector, "w") == [b"y"] * 5


def test_a_large_record_and_many_batches_fit_into_packets(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (v LONGTEXT)")
    large = "ü\t" * 3_000_000
    with open_load(connector) as session:
        for text in ("a", large, "b"):
            session.write(pa.record_batch({"v": pa.array([text] * 2)}))
        assert session.finish() == 6
        session.commit(do_nothing)
    assert values(connector) == ["a", "a", large, large, "b", "b"]


@pytest.mark.parametrize("size", [1, 3, 8, 16, 64])
def test_packets_are_never_empty_nor_too_large(size: int) -> None:
    pieces = [b"ab", b"", b"c" * 17, b"", b"d", b"e" * 8, b"f" * 100]
    cut = list(packets(pieces, size))
    assert b"".join(cut) == b"".join(pieces)
    assert all(0 < len(packet) <= size for packet in cut)
    assert list(packets([b"", b""], size)) == []


def test_an_export_without_records_loads_nothing(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT)")
    assert relay(connector, b"") == 0
    with open_load(connector) as session:
        session.write(pa.record_batch({"v": pa.array([], pa.int64())}))
        assert session.finish() == 0
        session.commit(do_nothing)


EXACT = [
    ("TINYINT", b"-128\n127\n\\N\n", [-128, 127, None]),
    ("BIGINT UNSIGNED", b"18446744073709551615\n", ["18446744073709551615"]),
    ("INT(6) ZEROFILL", b"42\n", [42]),
    ("DECIMAL(12,2)", b"1.9900\n-0.10\n", ["1.99", "-0.10"]),
    ("DOUBLE", b"5e-324\n1.7976931348623157e+308\n0.1\n", [5e-324, 1.7976931348623157e308, 0.1]),
    ("FLOAT", b"0.10000000149011612\n", [0.10000000149011612]),
    ("TINYINT(1)", b"1\n0\n\\N\n", [True, False, None]),
    ("BIT(1)", b"1\n0\n\\N\n", [True, False, None]),
    ("BIT(40)", b"1099511627775\n", [2**40 - 1]),
    ("BIT(64)", b"18446744073709551615\n", ["18446744073709551615"]),
    ("YEAR", b"1901\n2155\n\\N\n", [1901, 2155, None]),
    ("CHAR(3)", b"ab\n\n a\n\\N\n", ["ab", "", " a", None]),
    ("VARCHAR(3)", b"ab \n   \n", ["ab ", "   "]),
    ("VARCHAR(3) CHARACTER SET latin1", "é€\n".encode(), ["é€"]),
    ("BINARY(3)", b"616263\n\\N\n", [b"abc", None]),
    ("ENUM('it''s','é','')", "it's\né\n\n\\N\n".encode(), ["it's", "é", "", None]),
    ("DATE", b"0001-01-01\n9999-12-31\n", ["0001-01-01", "9999-12-31"]),
    ("DATETIME", b"2024-02-29 23:59:59\n\\N\n", ["2024-02-29 23:59:59", "None"]),
    ("DATETIME(3)", b"2024-02-29 23:59:59.12\n", ["2024-02-29 23:59:59.120000"]),
    ("TIME", b"23:59:59\n", ["23:59:59"]),
    ("TIMESTAMP(6) NULL", b"2038-01-19 03:14:07.999999\n", ["2038-01-19 03:14:07.999999+00:00"]),
    ("JSON", b'{"b": 1.50, "a": 1}\nnull\n\\N\n', ['{"a":1,"b":1.5}', "null", None]),
    ("UUID", b"6ba7b810-9dad-11d1-80b4-00c04fd430c8\n", ["6ba7b810-9dad-11d1-80b4-00c04fd430c8"]),
]


@pytest.mark.parametrize(("declared", "text", "expected"), EXACT, ids=[e[0] for e in EXACT])
def test_relayed_values_are_taken_as_they_are(
    connector: MysqlConnector, database: Any, declared: str, text: bytes, expected: list[Any]
) -> None:
    database.query(f"CREATE TABLE t (v {declared})")
    assert relay(connector, text) == len(expected)
    found = values(connector)
    assert [x if type(x) is type(y) else str(x) for x, y in zip(found, expected, strict=True)] == (
        expected
    )


def test_what_was_loaded_can_be_relayed_to_an_equal_table(
    connector: MysqlConnector, database: Any
) -> None:
    """Both ways in give the same: the text that `write` makes is what `relay` takes."""
    database.query("CREATE TABLE t (v VARCHAR(40), n DECIMAL(9,3), d DATETIME(3), b BLOB)")
    seen: list[bytes] = []
    original = InfileConnection.load

    def spy(self: InfileConnection, statement: str, pieces: Any, **more: Any) -> Any:
        kept = list(pieces)
        seen.extend(kept)
        return original(self, statement, kept, **more)

    records = pa.table(
        {
            "v": pa.array(TEXTS, pa.string()),
            "n": pa.array([None, *range(len(TEXTS) - 1)]).cast(pa.decimal128(22, 3)),
            "d": pa.array([0] * len(TEXTS), pa.timestamp("us")),
            "b": pa.array([None if t is None else t.encode() for t in TEXTS], pa.binary()),
        }
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InfileConnection, "load", spy)
        write(connector, records)
    names = tuple(records.column_names)
    first = read_all(connector, ReadRequest(connector.describe("t"), names))
    database.query("TRUNCATE t")
    relay(connector, b"".join(seen), names)
    assert read_all(connector, ReadRequest(connector.describe("t"), names)) == first


# What might not be exact is refused, and nothing of it stays.

ALTERED = [
    ("TINYINT", b"999\n"),
    ("TINYINT", b"xyz\n"),
    ("TINYINT", b"\n"),
    ("TINYINT", b"5x\n"),
    ("TINYINT NOT NULL", b"\\N\n"),
    ("INT AUTO_INCREMENT PRIMARY KEY", b"\\N\n"),
    ("BIGINT UNSIGNED", b"-1\n"),
    ("BIGINT UNSIGNED", b"18446744073709551616\n"),
    ("DECIMAL(12,2)", b"1.999\n"),
    ("DECIMAL(12,2)", b"12345678901.5\n"),
    ("DECIMAL(12,2)", b"NaN\n"),
    ("DECIMAL(12,2)", b"Infinity\n"),
    ("DOUBLE", b"NaN\n"),
    ("DOUBLE", b"-Infinity\n"),
    ("DOUBLE", b"1e999\n"),
    ("FLOAT", b"1e300\n"),
    ("BIT(1)", b"2\n"),
    ("BIT(3)", b"-1\n"),
    ("YEAR", b"99\n"),
    ("YEAR", b"0\n"),
    ("VARCHAR(3)", b"abcd\n"),
    ("VARCHAR(3)", b"ab   \n"),
    ("CHAR(3)", b"ab \n"),
    ("CHAR(3)", b" \n"),
    ("TINYTEXT", b"a" * 256 + b"\n"),
    ("TINYTEXT", b"a" * 255 + b" \n"),
    ("VARCHAR(9) CHARACTER SET latin1", "日\n".encode()),
    ("VARCHAR(9) CHARACTER SET utf8mb3", "😀\n".encode()),
    ("VARCHAR(9)", b"a\xffb\n"),
    ("VARCHAR(9)", b"\xc0\x80\n"),
    ("VARCHAR(9)", b"a\tb\n"),
    ("VARBINARY(3)", b"61626364\n"),
    ("BINARY(3)", b"6162\n"),
    ("TINYBLOB", b"61" * 256 + b"\n"),
    ("ENUM('a','b')", b"A\n"),
    ("ENUM('a','b')", b"1\n"),
    ("ENUM('a','b')", b"a \n"),
    ("ENUM('a','b')", b"\n"),
    ("DATE", b"2024-02-30\n"),
    ("DATE", b"0000-00-00\n"),
    ("DATE", b"infinity\n"),
    ("DATE", b"0044-03-15 BC\n"),
    ("DATE", b"10000-01-01\n"),
    ("DATETIME", b"2024-02-29 23:59:59.9\n"),
    ("DATETIME(3)", b"2024-02-29 23:59:59.1234\n"),
    ("DATETIME(6)", b"294276-12-31 00:00:00\n"),
    ("DATETIME(6)", b"0044-03-15 00:00:00 BC\n"),
    ("TIMESTAMP(6) NULL", b"2038-01-19 03:14:08\n"),
    ("TIMESTAMP(6) NULL", b"1970-01-01 00:00:00\n"),
    ("TIMESTAMP NOT NULL", b"\\N\n"),
    ("TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP", b"\\N\n"),
    ("TIME", b"23:59:59.5\n"),
    ("TIME(6)", b"24:00:00\n"),
    ("JSON", b'{"a":1\n'),
    ("UUID", b"x\n"),
    ("INT CHECK (v > 0)", b"0\n"),
    ("INT UNIQUE", b"7\n7\n"),
    ("VARCHAR(9) COLLATE utf8mb4_general_ci PRIMARY KEY", b"a\nA\n"),
    ("VARCHAR(9) COLLATE utf8mb4_general_ci UNIQUE", b"a\na \n"),
    ("INT, w INT AS (v) STORED, CHECK (w > 0)", b"0\n"),
    ("INT, FOREIGN KEY (v) REFERENCES p (id)", b"5\n"),
]


@pytest.mark.parametrize(("declared", "text"), ALTERED, ids=[f"{d}-{t[:24]!r}" for d, t in ALTERED])
def test_what_the_server_would_alter_is_refused_and_taken_back(
    connector: MysqlConnector, database: Any, declared: str, text: bytes
) -> None:
    database.query("CREATE TABLE p (id INT PRIMARY KEY)")
    database.query(f"CREATE TABLE t (v {declared})")
    with pytest.raises(LoadRefused) as refused:
        relay(connector, text)
    assert rows(database) == 0
    value = text.split(b"\n", 1)[0].decode("utf-8", "replace")
    assert len(value) < 3 or value not in refused.value.reason


def test_a_record_without_its_end_is_refused(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v VARCHAR(9))")
    with pytest.raises(LoadRefused, match="left records out"):
        relay(connector, b"a\nb")
    assert rows(database) == 0


def test_one_bad_record_among_many_takes_all_back(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT PRIMARY KEY, w VARCHAR(3))")
    many = pa.table({"v": pa.array(range(70_000)), "w": ["abc"] * 69_999 + ["abcd"]})
    with pytest.raises(LoadRefused, match=r"does not fit the field \('w'\)"):
        write(connector, many)
    assert rows(database) == 0
    assert write(connector, many.slice(0, 60_000)) == 60_000


UNFIT = [
    ("FLOAT", pa.array([0.1])),
    ("DOUBLE", pa.array([float("nan")])),
    ("DOUBLE", pa.array([float("inf")])),
    ("DATETIME(3)", pa.array([1], pa.timestamp("us"))),
    ("DATETIME", pa.array([500_000], pa.timestamp("us"))),
    ("TIME(1)", pa.array([50_000], pa.time64("us"))),
    ("DECIMAL(5,2)", pa.array(["1.005"])),
    ("CHAR(3)", pa.array(["a "])),
    ("BINARY(2)", pa.array([b"a"])),
    ("VARCHAR(3)", pa.array(["abcd"])),
    ("TINYINT", pa.array([128])),
]


@pytest.mark.parametrize(("declared", "column"), UNFIT, ids=[u[0] for u in UNFIT])
def test_batches_that_do_not_fit_are_refused(
    connector: MysqlConnector, database: Any, declared: str, column: pa.Array
) -> None:
    database.query(f"CREATE TABLE t (v {declared})")
    with pytest.raises(LoadRefused):
        write(connector, pa.table({"v": column}))
    assert rows(database) == 0


# Tables that are not filled this way.

REFUSED = [
    ("v INT", "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 1", "a trigger"),
    ("v INT", "INSERT INTO t VALUES (1)", "not empty"),
    ("v INT, w INT NOT NULL", "", "'w' needs a value"),
    ("w INT, v INT AS (w) STORED", "", "computed"),
    ("v SET('a','b')", "", "in silence"),
    ("v INET6", "", "in silence"),
    ("v DOUBLE(5,2)", "", "in silence"),
    ("v VARCHAR(9) CHARACTER SET sjis", "", "character set"),
    ("v INT", "ALTER TABLE t ENGINE = MyISAM", "InnoDB"),
    ("v INT", "ALTER TABLE t ADD SYSTEM VERSIONING", "InnoDB"),
]


@pytest.mark.parametrize(
    ("columns", "then", "reason"), REFUSED, ids=[f"{r[0]}-{r[2]}" for r in REFUSED]
)
def test_tables_on_which_something_acts_are_refused(
    connector: MysqlConnector, database: Any, columns: str, then: str, reason: str
) -> None:
    database.query(f"CREATE TABLE t ({columns})")
    if then:
        database.query(then)
    with pytest.raises(LoadRefused, match=reason), open_load(connector):
        pass


def test_fields_left_out_may_have_a_default(connector: MysqlConnector, database: Any) -> None:
    database.query(
        "CREATE TABLE t (id INT AUTO_INCREMENT PRIMARY KEY, v INT, w INT NOT NULL DEFAULT 5,"
        " x INT, g INT AS (v + 1) STORED)"
    )
    relay(connector, b"7\n")
    with database.cursor() as cursor:
        cursor.execute("SELECT id, v, w, x, g FROM t")
        assert cursor.fetchall() == ((1, 7, 5, None, 8),)


def test_a_user_who_cannot_see_triggers_does_not_load(
    settings: dict[str, Any], connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (v INT)")
    name, schema = f"u{settings['database'][-12:]}", settings["database"].replace("_", "\\_")
    database.query(f"CREATE USER {name}@'%' IDENTIFIED BY 'x'")
    try:
        database.query(f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{schema}`.* TO {name}@'%'")
        limited = MysqlConnector(MysqlSettings(**{**settings, "user": name, "password": "x"}))
        with pytest.raises(LoadRefused, match="GRANT TRIGGER"):
            relay(limited, b"1\n")
        database.query(f"GRANT TRIGGER ON `{schema}`.* TO {name}@'%'")
        assert relay(limited, b"1\n") == 1
    finally:
        database.query(f"DROP USER {name}@'%'")


def test_a_server_that_takes_no_files_is_told_apart(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (v INT)")

    def forbid(*_: Any, **__: Any) -> Any:
        raise pymysql.err.OperationalError(4166, "The used command is not allowed")

    with pytest.MonkeyPatch.context() as patch, open_load(connector) as session:
        patch.setattr(InfileConnection, "load", forbid)
        with pytest.raises(LoadRefused, match="SET GLOBAL local_infile"):
            session.relay(iter([b"1\n"]))


# All or nothing, and nobody in between.


def test_nothing_is_seen_before_the_commit_and_nothing_stays_without_it(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (v INT PRIMARY KEY)")
    with open_load(connector) as session:
        session.relay(iter([b"1\n2\n"]))
        assert session.finish() == 2
        assert rows(database) == 0
    assert rows(database) == 0
    with open_load(connector) as session:
        session.write(pa.record_batch({"v": pa.array([1])}))
        assert rows(database) == 0
    assert rows(database) == 0


def test_the_fence_comes_last(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT)")

    def lost() -> None:
        assert rows(database) == 0
        raise LockstepError("the lease is lost")

    def load() -> None:
        with open_load(connector) as session:
            session.relay(iter([b"1\n"]))
            session.finish()
            session.commit(lost)

    with pytest.raises(LockstepError, match="lost"):
        load()
    assert rows(database) == 0


@pytest.mark.parametrize("key", ["PRIMARY KEY", "UNIQUE", ""], ids=["primary", "unique", "none"])
def test_other_inserts_wait_until_the_end(
    connector: MysqlConnector, database: Any, key: str
) -> None:
    database.query(f"CREATE TABLE t (v INT {key}, w INT, KEY (w))")
    database.query("SET innodb_lock_wait_timeout = 1")
    with open_load(connector, ("v", "w")) as session:
        for other in (0, 3, 9):
            with pytest.raises(pymysql.err.OperationalError, match="Lock wait"):
                database.query(f"INSERT INTO t VALUES ({other}, 1)")
        session.relay(iter([b"1\t1\n5\t5\n"]))
        for other in (0, 3, 9):
            with pytest.raises(pymysql.err.OperationalError, match="Lock wait"):
                database.query(f"INSERT INTO t VALUES ({other}, 1)")
        assert session.finish() == 2
        session.commit(do_nothing)
    database.query("INSERT INTO t VALUES (9, 1)")
    assert rows(database) == 3


def test_a_writer_in_the_table_makes_it_busy(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT PRIMARY KEY)")
    database.begin()
    database.query("INSERT INTO t VALUES (1)")
    with pytest.raises(TargetBusy), open_load(connector, seconds=1):
        pass
    database.rollback()


def test_writers_and_loads_share_the_lock(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT PRIMARY KEY)")
    dataset = connector.describe("t")
    with (
        open_session(connector, dataset, lock=lock_of(connector)),
        pytest.raises(TargetBusy),
        open_load(connector, seconds=0.5),
    ):
        pass


BATCH = pa.record_batch({"v": pa.array(["abcdefgh"] * 20_000)})


def cut_while_relaying(session: LoadSession, cut: Callable[[], None]) -> None:
    def pieces() -> Iterator[bytes]:
        for number in range(50):
            if number == 5:
                cut()
            yield b"abcdefgh\n" * 20_000

    session.relay(pieces())


def cut_while_writing(session: LoadSession, cut: Callable[[], None]) -> None:
    for number in range(50):
        if number == 5:
            cut()
        session.write(BATCH)
    session.finish()


def cut_before_the_end(session: LoadSession, cut: Callable[[], None]) -> None:
    session.write(BATCH)
    cut()
    session.finish()


def cut_before_the_commit(session: LoadSession, cut: Callable[[], None]) -> None:
    session.write(BATCH)
    session.finish()
    cut()
    session.commit(do_nothing)


@pytest.mark.parametrize(
    "load", [cut_while_relaying, cut_while_writing, cut_before_the_end, cut_before_the_commit]
)
def test_a_cut_connection_leaves_nothing(
    settings: dict[str, Any],
    connector: MysqlConnector,
    database: Any,
    load: Callable[[LoadSession, Callable[[], None]], None],
) -> None:
    database.query("CREATE TABLE t (v VARCHAR(9))")
    harness = MariadbHarness(settings)

    def try_to_load() -> None:
        with open_load(connector) as session:
            load(session, lambda: harness.cut_connections(connector.describe("t")))

    with pytest.raises(ConnectionLost):
        try_to_load()
    assert connector.count(connector.describe("t")) == 0


def test_a_source_that_breaks_off_leaves_nothing(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT)")

    def pieces() -> Iterator[bytes]:
        yield b"1\n" * 10_000
        raise ConnectionLost("the source is gone")

    with pytest.raises(ConnectionLost, match="source is gone"), open_load(connector) as session:
        session.relay(pieces())
    assert rows(database) == 0


def slowly(seconds: float) -> Iterator[bytes]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        yield b"1\n" * 10_000
        time.sleep(0.2)


def test_a_load_may_take_longer_than_its_lease_when_that_is_renewed(
    connector: MysqlConnector, database: Any
) -> None:
    database.query("CREATE TABLE t (v INT)")
    began = time.monotonic()
    with open_load(connector, seconds=lambda: 1 - (time.monotonic() - began) % 0.5) as session:
        session.relay(slowly(2.5))
        assert session.finish() > 0


def test_a_load_ends_with_its_lease(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT)")
    began = time.monotonic()

    def load() -> None:
        with open_load(connector, seconds=lambda: 3 - (time.monotonic() - began)) as session:
            session.relay(slowly(30))

    with pytest.raises(TargetBusy, match="lease"):
        load()
    assert time.monotonic() - began < 15
    assert rows(database) == 0


def test_the_guard_of_a_lease_acts_once_and_only_when_little_is_left() -> None:
    left, ended = [1.0], threading.Event()
    guard = LeaseGuard(lambda: left[0], ended.set)
    guard.start()
    assert not ended.wait(0.2)
    left[0] = 0.1
    assert ended.wait(2)
    guard.stop()
    assert guard.has_ended


def test_a_lease_that_cannot_be_asked_for_counts_as_over() -> None:
    def broken() -> float:
        raise LockstepError("the platform's database is gone")

    ended = threading.Event()
    guard = LeaseGuard(broken, ended.set)
    guard.start()
    assert ended.wait(2)
    guard.stop()


def test_a_trigger_cannot_come_in_between(connector: MysqlConnector, database: Any) -> None:
    database.query("CREATE TABLE t (v INT)")
    database.query("SET lock_wait_timeout = 1")
    create = "CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.v = 1"
    with open_load(connector) as session:
        with pytest.raises(pymysql.err.OperationalError, match="Lock wait"):
            database.query(create)
        session.relay(iter([b"7\n"]))
        session.finish()
        session.commit(do_nothing)
    assert values(connector) == [7]


# A server gets what we send, never what it asks for.


def packet(number: int, payload: bytes) -> bytes:
    return struct.pack("<I", len(payload))[:3] + bytes([number]) + payload


GREETING = (
    b"\x0a10.11.0-MariaDB\0" + struct.pack("<I", 7) + b"12345678\0" + struct.pack("<H", 0xF7FE)
    + b"\x21\x02\x00" + struct.pack("<H", 0x000F) + b"\x15" + b"\0" * 10 + b"123456789012\0"
    + b"mysql_native_password\0"
)  # fmt: skip
OK = b"\0\0\0\x02\0\0\0"


class HostileServer:
    """Answers the first statement that has these words by asking for a file."""

    def __init__(self, path: Path, words: bytes) -> None:
        self.received = b""
        self._path = path
        self._words = words
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        client.settimeout(5)
        client.sendall(packet(0, GREETING))
        client.recv(65536)
        client.sendall(packet(2, OK))
        asked = False
        with client, suppress(OSError):
            while data := client.recv(65536):
                if asked:
                    self.received += data
                    continue
                asked = self._words in data
                answer = b"\xfb" + str(self._path).encode() if asked else OK
                client.sendall(packet(1, answer))

    def close(self) -> bytes:
        self._thread.join(10)
        self._socket.close()
        return self.received


@pytest.mark.parametrize("words", [b"sql_mode", b"SELECT 1", b"SELECT 2"])
def test_no_file_is_sent_to_a_server_that_asks_for_one(tmp_path: Path, words: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of this machine")
    server = HostileServer(secret, words)
    settings = MysqlSettings(
        host="127.0.0.1", port=server.port, database="d", user="u", tls="disable"
    )

    def ask() -> None:
        with closing(connect_as(InfileConnection, settings)) as connection:
            connection.query("SELECT 1")
            connection.query("SELECT 2")

    with pytest.raises(RuntimeError, match="local_infile option is false"):
        ask()
    assert b"secret of this machine" not in server.close()


def test_a_server_that_names_another_file_gets_our_records(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("the secret of this machine")
    server = HostileServer(secret, b"LOAD DATA")
    settings = MysqlSettings(
        host="127.0.0.1", port=server.port, database="d", user="u", tls="disable"
    )
    connection = connect_as(InfileConnection, settings)
    threading.Timer(1.0, connection.cut).start()
    with pytest.raises(pymysql.err.MySQLError):
        connection.load("LOAD DATA …", [b"our records\n"], largest_packet=2**24)
    received = server.close()
    assert b"our records" in received
    assert b"secret of this machine" not in received
