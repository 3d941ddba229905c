"""PostgreSQL tables as text that MariaDB loads: both connectors read the same, or it is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from apps.connectors import types as neutral
from apps.connectors.base import LoadRefused, ReadRequest
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.postgresql.mysql_text import mended
from apps.connectors.sql_values import decode
from apps.connectors.testing import do_nothing, read_all
from apps.connectors.testing.harness import ID, SAMPLES, field, same
from apps.connectors.types import NeutralType
from tests.conformance.harnesses.mariadb import MariadbHarness
from tests.conformance.harnesses.postgresql import PostgresqlHarness
from tests.servers import (
    mariadb_connection,
    mariadb_database,
    postgresql_connection,
    postgresql_database,
)

pytestmark = [pytest.mark.mariadb, pytest.mark.postgresql]


@pytest.fixture
def left_settings() -> Iterator[dict[str, Any]]:
    with postgresql_database() as found:
        yield found


@pytest.fixture
def right_settings() -> Iterator[dict[str, Any]]:
    with mariadb_database() as found:
        yield found


@pytest.fixture
def left(left_settings: dict[str, Any]) -> PostgresqlConnector:
    return PostgresqlConnector(PostgresqlSettings(**left_settings))


@pytest.fixture
def right(right_settings: dict[str, Any]) -> MysqlConnector:
    return MysqlConnector(MysqlSettings(**right_settings))


@pytest.fixture
def postgresql(left_settings: dict[str, Any]) -> Iterator[psycopg.Connection[Any]]:
    with postgresql_connection(left_settings) as connection:
        yield connection


@pytest.fixture
def mariadb(right_settings: dict[str, Any]) -> Iterator[Any]:
    with mariadb_connection(right_settings) as connection:
        yield connection


def relay(
    left: PostgresqlConnector,
    right: MysqlConnector,
    fields: Sequence[str],
    tables: tuple[str, str] = ("t", "t"),
) -> int:
    source, target = left.describe(tables[0]), right.describe(tables[1])
    lock = f"test:{right.settings.database}"
    with right.load_session(target, fields, lock=lock, lease_seconds=lambda: 60.0) as session:
        assert session.wire is not None
        assert session.wire.name in left.capabilities.exports
        with left.export(source, fields, session.wire, key=()) as export:
            session.relay(piece.data for piece in export.pieces())
        count = session.finish()
        session.commit(do_nothing)
    return count


def both(
    left: PostgresqlConnector,
    right: MysqlConnector,
    fields: Sequence[str],
    tables: tuple[str, str] = ("t", "t"),
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What each side reads, by the first field; the left in the storage of the right's types."""
    target = right.describe(tables[1])
    ours = read_all(left, ReadRequest(left.describe(tables[0]), tuple(fields)))
    theirs = read_all(right, ReadRequest(target, tuple(fields)))
    columns = {}
    for name in fields:
        decoded = decode(ours.column(name), target.field(name).type)
        assert not decoded.bad
        columns[name] = decoded.values
    return pa.table(columns).sort_by(fields[0]).to_pylist(), theirs.sort_by(fields[0]).to_pylist()


WITHOUT_A_FORM = {
    neutral.array(neutral.DATE),
    neutral.array(neutral.TIMESTAMPTZ),
    neutral.array(neutral.BYTES),
}


@pytest.mark.parametrize("kind", list(SAMPLES), ids=str)
def test_every_type_arrives_as_it_is(
    left_settings: dict[str, Any], right_settings: dict[str, Any], kind: NeutralType
) -> None:
    left, right = PostgresqlHarness(left_settings), MariadbHarness(right_settings)
    samples = [value for value in SAMPLES[kind] if value in right.samples(kind)]
    if not samples:
        pytest.skip("not claimed: MariaDB has no such type")
    samples.append(None)
    numbers = pa.array(range(len(samples)), pa.int64())
    rows = pa.table({"id": numbers, "value": pa.array(samples, kind.arrow)})
    fields = [ID, field("value", kind)]
    source = left.make(fields, ("id",), rows)
    target = right.make(fields, ("id",), rows.slice(0, 0))
    tables = source.name, target.name
    if kind in WITHOUT_A_FORM:
        with pytest.raises(LoadRefused, match="no exact form"):
            relay(left.connector, right.connector, ("id", "value"), tables)
        return
    assert relay(left.connector, right.connector, ("id", "value"), tables) == len(samples)
    ours, theirs = both(left.connector, right.connector, ("id", "value"), tables)
    assert len(ours) == len(samples)
    for our, their in zip(ours, theirs, strict=True):
        assert same(our["value"], their["value"])


PAIRS = [
    ("smallint", "(-32768), (NULL)", "SMALLINT"),
    ("integer", "(2147483647)", "DECIMAL(20,2)"),
    ("integer", "(2024)", "YEAR"),
    ("bigint", "(1099511627775)", "BIT(40)"),
    ("bigint", "(9223372036854775807)", "BIGINT UNSIGNED"),
    ("numeric(20,0)", "(18446744073709551615)", "BIGINT UNSIGNED"),
    ("numeric", "(1.10), (-0.05), (100)", "DECIMAL(12,2)"),
    ("boolean", "(true), (false), (NULL)", "TINYINT(1)"),
    ("boolean", "(true), (false), (NULL)", "BIT(1)"),
    ("real", "(0.1), (16777217), (1e-45)", "FLOAT"),
    ("real", "(0.1)", "DOUBLE"),
    ("float8", "(0.1), (-1e300), (5e-324)", "DOUBLE"),
    ("char(5)", "('ab'), ('')", "CHAR(5)"),
    ("varchar(9)", "(' a ')", "VARCHAR(9)"),
    ("text", r"(E'\v\f\b\r\n\t\\'), ('\v\f\b\N'), (''), ('NULL'), ('😀'), (NULL)", "TEXT"),
    ("text", r"('C:\files\vault\\v'), (E'\\\v\\\\f')", "LONGTEXT"),
    ("text", "('a'), ('b''c')", "ENUM('a','b''c')"),
    ("inet", "('10.0.0.1/8')", "VARCHAR(50)"),
    ("interval", "('1 day 02:00:00.5')", "VARCHAR(50)"),
    ("uuid", "('6ba7b810-9dad-11d1-80b4-00c04fd430c8')", "CHAR(36) CHARACTER SET ascii"),
    ("bytea", r"('\x00ff5c0a'), (''), (NULL)", "LONGBLOB"),
    ("bytea", r"('\x00ff5c')", "BINARY(3)"),
    ("date", "('0001-01-01'), ('9999-12-31'), (NULL)", "DATE"),
    ("time", "('23:59:59.999999'), ('00:00:00')", "TIME(6)"),
    ("timestamp", "('0001-01-01'), ('9999-12-31 23:59:59.999999')", "DATETIME(6)"),
    ("timestamp(0)", "('2024-02-29 23:59:59')", "DATETIME"),
    ("timestamptz", "('2024-02-29 23:59:59.1+05:30'), (NULL)", "TIMESTAMP(6) NULL"),
    ("timestamptz", "('2024-02-29 23:59:59+05:30')", "DATETIME"),
    ("json", """('{"b": 1.50,  "a": [1e2], "a": 2}'), ('null'), (NULL)""", "JSON"),
    ("jsonb", r"""('{"b": 1.50, "a": "\u000b \\ \t"}'), ('"\""')""", "JSON"),
    ("integer[]", "('{1,NULL,-3}'), ('{}'), (NULL)", "JSON"),
    ("float8[]", "('{0.1,1e300}')", "JSON"),
    ("numeric(12,4)[]", "('{0.0001,NULL,99999999.9999}')", "JSON"),
    ("boolean[]", "('{t,f,NULL}')", "JSON"),
    ("text[]", r"""('{"a,b",NULL,"\\ \" "}'), (ARRAY[E'\v\n'])""", "JSON"),
    ("char(3)[]", "('{a,b}')", "JSON"),
    ("uuid[]", "('{6ba7b810-9dad-11d1-80b4-00c04fd430c8}')", "JSON"),
    ("inet[]", "('{10.0.0.1}')", "JSON"),
]


@pytest.mark.parametrize(
    ("given", "values", "wanted"), PAIRS, ids=[f"{p[0]}-{p[2]}-{i}" for i, p in enumerate(PAIRS)]
)
def test_native_types_arrive_as_they_are(
    left: PostgresqlConnector,
    right: MysqlConnector,
    postgresql: psycopg.Connection[Any],
    mariadb: Any,
    given: str,
    values: str,
    wanted: str,
) -> None:
    postgresql.execute(f"CREATE TABLE t (n serial, v {given})".encode())
    postgresql.execute(f"INSERT INTO t (v) VALUES {values}".encode())
    mariadb.query(f"CREATE TABLE t (n INT, v {wanted})")
    assert relay(left, right, ("n", "v")) > 0
    ours, theirs = both(left, right, ("n", "v"))
    assert ours == theirs


REFUSED = [
    ("numeric", "(1.005)", "DECIMAL(12,2)"),
    ("numeric", "('NaN')", "DECIMAL(12,2)"),
    ("numeric(20,2)", "(1)", "BIGINT UNSIGNED"),
    ("numeric", "(1)", "BIGINT UNSIGNED"),
    ("bigint", "(-1)", "BIGINT UNSIGNED"),
    ("bigint", "(5)", "TINYINT(1)"),
    ("bigint", "(300)", "TINYINT"),
    ("bigint", "(5)", "VARCHAR(9)"),
    ("numeric(5,2)", "(1.5)", "INT"),
    ("float8", "('NaN')", "DOUBLE"),
    ("float8", "('-Infinity')", "DOUBLE"),
    ("float8", "(0.5)", "FLOAT"),
    ("float8", "(0.5)", "DECIMAL(5,2)"),
    ("real", "('Infinity')", "FLOAT"),
    ("text", "('a ')", "CHAR(5)"),
    ("text", "('abcdef')", "VARCHAR(5)"),
    ("text", "('A')", "ENUM('a')"),
    ("text", "('5')", "INT"),
    ("bytea", r"('\x00')", "BINARY(3)"),
    ("bytea", r"('\x00010203')", "VARBINARY(3)"),
    ("date", "('infinity')", "DATE"),
    ("date", "('0044-03-15 BC')", "DATE"),
    ("date", "('10000-01-01')", "DATE"),
    ("date", "('2024-01-01')", "DATETIME"),
    ("time", "('24:00:00')", "TIME(6)"),
    ("timestamp", "('-infinity')", "DATETIME(6)"),
    ("timestamp", "('0044-03-15 BC')", "DATETIME(6)"),
    ("timestamp", "('294276-12-31')", "DATETIME(6)"),
    ("timestamp", "('2024-01-01 00:00:00.5')", "DATETIME"),
    ("timestamp", "('2024-01-01')", "TIMESTAMP"),
    ("timestamptz", "('2039-01-01')", "TIMESTAMP NULL"),
    ("timestamptz", "('infinity')", "TIMESTAMP NULL"),
    ("json", r"""('"\ud800"')""", "JSON"),
    ("json", r"""('"\u0000"')""", "JSON"),
    ("jsonb", "('{}')", "LONGTEXT"),
    ("float8[]", "('{NaN}')", "JSON"),
    ("numeric(12,4)[]", "('{NaN}')", "JSON"),
    ("numeric[]", "('{1.5}')", "JSON"),
    ("integer[]", "('{{1,2},{3,4}}')", "JSON"),
    ("text[]", "('{{a,b}}')", "JSON"),
    ("timestamptz[]", "('{}')", "JSON"),
    ("json[]", "('{}')", "JSON"),
]


@pytest.mark.parametrize(
    ("given", "values", "wanted"),
    REFUSED,
    ids=[f"{p[0]}-{p[2]}-{i}" for i, p in enumerate(REFUSED)],
)
def test_what_might_arrive_as_something_else_is_refused(
    left: PostgresqlConnector,
    right: MysqlConnector,
    postgresql: psycopg.Connection[Any],
    mariadb: Any,
    given: str,
    values: str,
    wanted: str,
) -> None:
    postgresql.execute(f"CREATE TABLE t (v {given})".encode())
    postgresql.execute(f"INSERT INTO t (v) VALUES {values}".encode())
    mariadb.query(f"CREATE TABLE t (v {wanted})")
    with pytest.raises(LoadRefused):
        relay(left, right, ("v",))
    with mariadb.cursor() as cursor:
        assert cursor.execute("SELECT * FROM t") == 0


def test_keys_of_an_export_come_from_its_snapshot(
    left: PostgresqlConnector,
    right: MysqlConnector,
    postgresql: psycopg.Connection[Any],
    mariadb: Any,
) -> None:
    postgresql.execute("CREATE TABLE t (v int PRIMARY KEY, w text)")
    postgresql.execute("INSERT INTO t SELECT n, 'x' FROM generate_series(1, 1000) AS n")
    mariadb.query("CREATE TABLE t (v INT PRIMARY KEY, w VARCHAR(9))")
    target = right.describe("t")
    lock = f"test:{right.settings.database}"
    with right.load_session(target, ("v", "w"), lock=lock, lease_seconds=lambda: 60.0) as load:
        assert load.wire is not None
        with left.export(left.describe("t"), ("v", "w"), load.wire, key=("v",)) as export:
            postgresql.execute("DELETE FROM t WHERE v > 10")
            pieces = list(export.pieces())
            load.relay(piece.data for piece in pieces)
        keys = [key for piece in pieces for key in piece.keys.column("v").to_pylist()]
        assert load.finish() == 1000
        assert sorted(keys) == list(range(1, 1001))


@pytest.mark.parametrize(
    ("columns", "values", "mysql"),
    [
        ("a int, v text", "n, 'x'", "a INT, v TEXT"),
        ("a uuid, v text", "md5(n::text)::uuid, 'x'", "a CHAR(36), v TEXT"),
        ("a text, b bigint", "'k€ ' || n || ' ', n", "a VARCHAR(30), b BIGINT"),
    ],
)
def test_keys_are_cut_out_of_lines(
    left: PostgresqlConnector,
    right: MysqlConnector,
    postgresql: psycopg.Connection[Any],
    mariadb: Any,
    columns: str,
    values: str,
    mysql: str,
) -> None:
    postgresql.execute(f"CREATE TABLE t ({columns})".encode())
    postgresql.execute(f"INSERT INTO t SELECT {values} FROM generate_series(1, 9000) n".encode())
    mariadb.query(f"CREATE TABLE t ({mysql})")
    dataset = left.describe("t")
    key = tuple(name for name in dataset.field_names if name != "v")
    lock = f"test:{right.settings.database}"
    names = dataset.field_names
    with right.load_session(right.describe("t"), names, lock=lock, lease_seconds=minute) as load:
        assert load.wire is not None
        with left.export(dataset, names, load.wire, key=key) as export:
            cut = pa.Table.from_batches([piece.keys for piece in export.pieces()])
    assert cut.to_pylist() == read_all(left, ReadRequest(dataset, key)).to_pylist()


@pytest.mark.parametrize("value", ["NULL", r"E'a\tb'", r"E'a\\b'"])
def test_keys_with_escapes_refuse_the_export(
    left: PostgresqlConnector,
    right: MysqlConnector,
    postgresql: psycopg.Connection[Any],
    mariadb: Any,
    value: str,
) -> None:
    postgresql.execute(f"CREATE TABLE t AS SELECT {value}::text AS v".encode())
    mariadb.query("CREATE TABLE t (v VARCHAR(9))")
    lock = f"test:{right.settings.database}"
    with right.load_session(right.describe("t"), ("v",), lock=lock, lease_seconds=minute) as load:
        assert load.wire is not None
        with (
            pytest.raises(LoadRefused, match="plain form"),
            left.export(left.describe("t"), ("v",), load.wire, key=("v",)) as export,
        ):
            list(export.pieces())


def minute() -> float:
    return 60.0


def test_only_escapes_of_their_own_are_mended() -> None:
    escapes = re.compile(rb"\\([\s\S])")
    letters = {b"v": b"\v", b"f": b"\f"}

    def one_by_one(lines: bytes) -> bytes:
        return escapes.sub(lambda m: letters.get(m[1], m[0]), lines)

    tokens = [b"\\\\", b"\\v", b"\\f", b"\\n", b"\\N", b"v", b"f", b"\t", b"\n"]
    for first in tokens:
        for second in tokens:
            for third in tokens:
                lines = first + second + third
                assert mended(lines) == one_by_one(lines)
