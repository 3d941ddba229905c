"""DuckDB connections as the engine uses them: locked down, in memory, in UTC."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa


def open_database(
    *,
    memory_mb: int = 512,
    threads: int = 1,
    spill: Path | None = None,
    keep_order: bool = False,
) -> duckdb.DuckDBPyConnection:
    """A private in-memory database that cannot reach files, settings, network or extensions.

    spill: directory for encrypted temporary files; without it nothing is ever written to disk.
    keep_order: results have their rows in the order of the input.
    """
    connection = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": f"{memory_mb}MB",
            "threads": str(threads),
            "temp_directory": str(spill) if spill else "",
            "autoload_known_extensions": "false",
            "autoinstall_known_extensions": "false",
            "allow_community_extensions": "false",
            "python_enable_replacements": "false",
            "preserve_insertion_order": str(keep_order).lower(),
        },
    )
    if spill is not None:
        encrypt_spill(connection)
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def encrypt_spill(connection: duckdb.DuckDBPyConnection) -> None:
    """Encrypt temporary files with a key that never leaves this process.

    DuckDB writes encrypted files with the OpenSSL of its httpfs extension where that is
    installed, else with its own mbedTLS. It calls the latter unsafe because its random numbers
    are weaker; for files that live minutes in a private directory that is the better of the two
    choices left, the other being clear text.
    """
    try:
        connection.execute("LOAD httpfs")
    except duckdb.Error:
        connection.execute("SET force_mbedtls_unsafe = 'true'")
    connection.execute("SET temp_file_encryption = true")


def fetch(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The result of a query as an Arrow table."""
    return connection.sql(sql).to_arrow_table()
