"""Digests of what only one platform has: its own types, collations, encodings and limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from apps.connectors.base import Connector, DigestsRefused, KeySpan
from apps.connectors.digests import condition_sql
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from tests.digests import digest_session, expected_digest, forms_of, row_digests
from tests.servers import (
    mariadb_connection,
    mariadb_database,
    postgresql_connection,
    postgresql_database,
)

WORDS = ["", "A", "B", "Z", "a", "a ", "aa", "b", "z", "Ä", "ß", "ä", "😀"]
Run = Callable[[str], Any]


@pytest.fixture(scope="module")
def postgresql() -> Iterator[tuple[PostgresqlConnector, Run]]:
    with postgresql_database() as settings, postgresql_connection(settings) as connection:
        yield (
            PostgresqlConnector(PostgresqlSettings(**settings)),
            lambda statement: connection.execute(statement.encode()),
        )


@pytest.fixture(scope="module")
def mariadb() -> Iterator[tuple[MysqlConnector, Run]]:
    with mariadb_database() as settings, mariadb_connection(settings) as connection:
        yield MysqlConnector(MysqlSettings(**settings)), connection.query


def digests_of(connector: Connector[Any], table: str, names: list[str]) -> tuple[Any, list[str]]:
    dataset = connector.describe(table)
    forms = [forms_of(connector, dataset.field(name))[0] for name in names]
    with digest_session(connector, dataset, list(zip(names, forms, strict=True))) as session:
        return row_digests(session), forms


def assert_bytewise(connector: Connector[Any], table: str, *, indexed: bool) -> None:
    """Whether the words of a key are in the order of their bytes, and by an index."""
    edges = [(word,) for word in WORDS[1:]]
    spans = [KeySpan(a, b) for a, b in zip([None, *edges], [*edges, None], strict=True)]
    with digest_session(connector, connector.describe(table)) as session:
        assert session.indexed is indexed
        assert [digest.rows for digest in session.digests(spans)] == [1] * len(WORDS)
        (bounds,) = session.sample_bounds([KeySpan()], len(WORDS), 1.0)
        assert [word for (word,) in bounds] == WORDS[1:]


def values(words: list[str]) -> str:
    return ", ".join(f"('{word}')" for word in words)


@pytest.mark.postgresql
class TestPostgresql:
    @pytest.mark.parametrize(
        ("collation", "indexed"), [("C", True), ("POSIX", True), ("und-x-icu", False)]
    )
    def test_text_keys_are_ordered_by_their_bytes(
        self, postgresql: tuple[PostgresqlConnector, Run], collation: str, indexed: bool
    ) -> None:
        connector, run = postgresql
        run("DROP TABLE IF EXISTS words")
        run(f'CREATE TABLE words (word text COLLATE "{collation}" PRIMARY KEY)')
        run(f"INSERT INTO words VALUES {values(WORDS)}")
        assert_bytewise(connector, "words", indexed=indexed)

    def test_a_span_is_found_through_the_index(
        self, postgresql: tuple[PostgresqlConnector, Run]
    ) -> None:
        connector, run = postgresql
        run('CREATE TABLE orders (shop text COLLATE "C", id int, PRIMARY KEY (shop, id))')
        run("INSERT INTO orders SELECT 'shop ' || n % 10, n FROM generate_series(1, 20000) n")
        run("ANALYZE orders")
        spans = [KeySpan(("shop 2", 12), ("shop 2", 500)), KeySpan(("shop 7", 1), ("shop 7", 900))]
        with connector.digest_session(request(connector, "orders")) as session:
            condition = condition_sql(session._key, spans)  # type: ignore[attr-defined]
            assert [digest.rows for digest in session.digests(spans)] == [49, 90]
        plan = run(f"EXPLAIN SELECT * FROM orders AS t WHERE {condition}").fetchall()
        assert "Seq Scan" not in str(plan)

    def test_native_types_have_the_texts_of_their_neutral_ones(
        self, postgresql: tuple[PostgresqlConnector, Run]
    ) -> None:
        connector, run = postgresql
        run("CREATE TYPE mood AS ENUM ('happy', 'so so')")
        run("CREATE DOMAIN price AS numeric(10,3)")
        run(
            "CREATE TABLE odd (id int PRIMARY KEY, fixed char(6), mood mood, price price, "
            "small smallint, single real, short timestamptz(0), address inet)"
        )
        run(
            "INSERT INTO odd VALUES (1, 'ab', 'so so', 1.500, -3, 0.1, "
            "'2024-03-31 03:30:00+02', '10.0.0.1')"
        )
        names = ["fixed", "mood", "price", "small", "single", "short", "address"]
        found, forms = digests_of(connector, "odd", names)
        texts = ["ab", "so so", "1.5", "-3", 0.10000000149011612, "2024-03-31 01:30:00+00"]
        texts_of_forms = [*texts, "10.0.0.1/32"]
        assert forms[4] == "ieee754"
        assert found == {1: expected_digest(without_forms(texts_of_forms, forms), with_text(forms))}

    def test_json_and_arrays_are_compared_between_two_of_a_kind(
        self, postgresql: tuple[PostgresqlConnector, Run]
    ) -> None:
        connector, run = postgresql
        run("CREATE TABLE documents (id int PRIMARY KEY, one json, many int[])")
        run("""INSERT INTO documents VALUES (1, '{"b": 1, "a": 2}', '{1,NULL}'),
               (2, '{"a":2,"b":1}', '{1,NULL}'), (3, '{"a":2,"b":"1"}', '{1}')""")
        found, forms = digests_of(connector, "documents", ["one", "many"])
        assert forms == ["postgresql:json", "postgresql:array"]
        assert found[1] == found[2] != found[3]

    def test_a_server_of_another_encoding_is_refused(
        self, postgresql: tuple[PostgresqlConnector, Run]
    ) -> None:
        connector, run = postgresql
        name = f"{connector.settings.database}_latin"
        run(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            settings = connector.settings.model_copy(update={"database": name})
            other = PostgresqlConnector(settings)
            with postgresql_connection(settings.model_dump()) as connection:
                connection.execute("CREATE TABLE words (word text PRIMARY KEY)")
            with (
                pytest.raises(DigestsRefused, match="LATIN1"),
                digest_session(other, other.describe("words")),
            ):
                pass
        finally:
            run(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.mariadb
class TestMariadb:
    @pytest.mark.parametrize(
        ("collation", "indexed"),
        [
            ("utf8mb4_nopad_bin", True),
            ("utf8mb4_general_nopad_ci", False),
            ("utf8mb4_unicode_nopad_ci", False),
        ],
    )
    def test_text_keys_are_ordered_by_their_bytes(
        self, mariadb: tuple[MysqlConnector, Run], collation: str, indexed: bool
    ) -> None:
        connector, run = mariadb
        run("DROP TABLE IF EXISTS words")
        run(f"CREATE TABLE words (word VARCHAR(20) COLLATE {collation}, KEY (word))")
        run(f"ALTER TABLE words MODIFY word VARCHAR(20) COLLATE {collation} NOT NULL")
        run(f"INSERT INTO words VALUES {values(WORDS)}")
        dataset = connector.describe("words")
        edges = [(word,) for word in WORDS[1:]]
        spans = [KeySpan(a, b) for a, b in zip([None, *edges], [*edges, None], strict=True)]
        with digest_session(connector, dataset, key=("word",)) as session:
            assert session.indexed is indexed
            assert [digest.rows for digest in session.digests(spans)] == [1] * len(WORDS)

    def test_a_column_of_another_charset_has_its_text_in_utf8(
        self, mariadb: tuple[MysqlConnector, Run]
    ) -> None:
        connector, run = mariadb
        run("CREATE TABLE latin (id INT PRIMARY KEY, word VARCHAR(9)) CHARSET latin1")
        run("INSERT INTO latin VALUES (1, 'Größe'), (2, '')")
        found, forms = digests_of(connector, "latin", ["word"])
        assert found == {1: expected_digest(["Größe"], forms), 2: expected_digest([""], forms)}

    def test_columns_of_several_collations_have_one_encoding(
        self, mariadb: tuple[MysqlConnector, Run]
    ) -> None:
        connector, run = mariadb
        run(
            "CREATE TABLE mixed (id INT PRIMARY KEY, one TEXT COLLATE utf8mb4_bin, "
            "two TEXT COLLATE utf8mb4_general_ci, three CHAR(9) CHARSET latin1, four TEXT "
            "CHARSET utf8mb3)"
        )
        run("INSERT INTO mixed VALUES (1, 'ä', 'Ä ', 'é', 'ü')")
        found, forms = digests_of(connector, "mixed", ["one", "two", "three", "four"])
        assert found == {1: expected_digest(["ä", "Ä ", "é", "ü"], forms)}

    def test_native_types_have_the_texts_of_their_neutral_ones(
        self, mariadb: tuple[MysqlConnector, Run]
    ) -> None:
        connector, run = mariadb
        run(
            "CREATE TABLE odd (id INT PRIMARY KEY, large BIGINT UNSIGNED, filled INT(8) ZEROFILL, "
            "born YEAR, flags BIT(4), flag BIT(1), fixed CHAR(6), padded BINARY(3), "
            "short DATETIME, zero DECIMAL(6,2), mood ENUM('happy', 'so so'))"
        )
        run(
            "INSERT INTO odd VALUES (1, 18446744073709551615, 42, 1999, b'101', b'1', 'ab', 'a', "
            "'2024-02-29 10:20:30', -0.001, 'so so')"
        )
        names = ["large", "filled", "born", "flags", "flag", "fixed", "padded", "short", "zero"]
        found, forms = digests_of(connector, "odd", [*names, "mood"])
        texts = ["18446744073709551615", "42", "1999", "5", "1", "ab", "x610000"]
        texts += ["2024-02-29 10:20:30", "0", "so so"]
        assert found == {1: expected_digest(without_forms(texts, forms), with_text(forms))}

    def test_a_record_too_large_to_encode_is_refused(
        self, mariadb: tuple[MysqlConnector, Run]
    ) -> None:
        connector, run = mariadb
        run("CREATE TABLE large (id INT PRIMARY KEY, one LONGTEXT, two LONGTEXT)")
        run("INSERT INTO large VALUES (1, '', ''), (2, 'small', 'small')")
        run("UPDATE large SET one = REPEAT('x', @@max_allowed_packet - 1000) WHERE id = 1")
        run("UPDATE large SET two = REPEAT('x', @@max_allowed_packet - 1000) WHERE id = 1")
        with digest_session(connector, connector.describe("large")) as session:
            with pytest.raises(DigestsRefused, match="max_allowed_packet"):
                session.digests([KeySpan()])
            rows = [row for batch in session.row_digests([KeySpan()]) for row in batch.to_pylist()]
        assert {row["id"]: row["digest"] is None for row in rows} == {1: True, 2: False}


def request(connector: Connector[Any], table: str) -> Any:
    dataset = connector.describe(table)
    return digest_session(connector, dataset)._request  # type: ignore[attr-defined]


def without_forms(texts: list[Any], forms: list[str]) -> list[Any]:
    """Values that `expected_digest` takes for these texts as they are."""
    return [
        value if form == "ieee754" else str(value) for value, form in zip(texts, forms, strict=True)
    ]


def with_text(forms: list[str]) -> list[str]:
    """Forms whose text is the value itself, with or without a length as before."""
    return ["uuid" if form not in {"text", "ieee754"} else form for form in forms]
