"""The physical limits: what the databases' own tools need for the same records."""

from __future__ import annotations

import subprocess

import adbc_driver_postgresql.dbapi as adbc
import duckdb
import pyarrow as pa

from bench.scene import database_url
from bench.suite.platforms import Platform, pipe, psql

TEXT_COLUMNS = (
    "id, token, name, email, country, balance, score, active::int, born, "
    "created_at AT TIME ZONE 'UTC', updated_at, tags"
)


def copy_copy(platform: Platform) -> None:
    """Binary COPY out, binary COPY into a table with its key."""
    made = platform.made
    pipe(
        psql(made.left, "COPY customers TO STDOUT (FORMAT binary)"),
        psql(made.right, "COPY customers FROM STDIN (FORMAT binary)"),
    )


def copy_load_data(platform: Platform) -> None:
    """Text COPY out, LOAD DATA into a MariaDB table with its key."""
    values = platform.mariadb
    client = ["mariadb", "-h", values["host"], "-P", str(values["port"]), "-u", values["user"]]
    client += [f"-p{values['password']}"] if values.get("password") else []
    load = (
        "SET time_zone = '+00:00'; LOAD DATA LOCAL INFILE '/dev/stdin' INTO TABLE limit_clients "
        "CHARACTER SET utf8mb4"
    )
    pipe(
        psql(platform.made.left, f"COPY (SELECT {TEXT_COLUMNS} FROM customers) TO STDOUT"),
        [*client, "--local-infile=1", values["database"], "-e", load],
    )


def copy_upsert(platform: Platform, since: str) -> None:
    """The changed rows by COPY into a temporary table, then one upsert."""
    made = platform.made
    columns = [
        "id", "token", "name", "email", "country", "balance",
        "score", "active", "born", "created_at", "updated_at", "tags",
    ]  # fmt: skip
    sets = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
    where = f"updated_at > timestamp '{since}'"
    pipe(
        psql(made.left, f"COPY (SELECT * FROM customers WHERE {where}) TO STDOUT (FORMAT binary)"),
        psql(
            made.right,
            "BEGIN",
            "CREATE TEMP TABLE changed (LIKE customers) ON COMMIT DROP",
            "COPY changed FROM STDIN (FORMAT binary)",
            f"INSERT INTO customers SELECT * FROM changed ON CONFLICT (id) DO UPDATE SET {sets}",
            "COMMIT",
        ),
    )


def read_both(platform: Platform) -> None:
    """Both tables read once by COPY, by two psql processes in turn."""
    made = platform.made
    for database, table in ((made.left, "customers"), (made.right, "clients")):
        subprocess.run(
            psql(database, f"COPY {table} TO STDOUT (FORMAT binary)"),
            stdout=subprocess.DEVNULL,
            check=True,
        )


def read_and_join(platform: Platform) -> int:
    """Both tables read as Arrow, hashed and joined in DuckDB; returns how many differ."""
    made = platform.made
    tables = {
        name: _as_arrow(database, query)
        for name, database, query in (
            ("l", made.left, f"SELECT {_plain()} FROM customers"),
            ("r", made.right, f"SELECT {_plain(renamed=True)} FROM clients"),
        )
    }
    connection = duckdb.connect()
    for name, table in tables.items():
        connection.register(name, table)
    hashed = "SELECT c0 AS k, hash(*COLUMNS(*)) AS h FROM {}"
    found = connection.sql(
        f"SELECT count(*) FROM ({hashed.format('l')}) l FULL JOIN ({hashed.format('r')}) r "
        "USING (k) WHERE l.h IS DISTINCT FROM r.h"
    ).fetchall()
    return int(found[0][0])


def _plain(*, renamed: bool = False) -> str:
    """The columns in types that Arrow holds as they are."""
    from bench.suite.tables import RENAMES

    texts = {"token", "balance", "tags", "country"}
    chosen = []
    for place, (own, other) in enumerate(RENAMES.items()):
        name = own if renamed else other
        chosen.append(f"{name}{'::text' if other in texts else ''} AS c{place}")
    return ", ".join(chosen)


def _as_arrow(database: str, query: str) -> pa.Table:
    with adbc.connect(database_url(database)) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetch_arrow_table()
