"""Which segments can hold a record: split block Bloom filters over key hashes.

A filter is a row of blocks of eight 32-bit words. The first half of a key's MD5 chooses the
block, five bits each of the second half one bit per word (Putze, Sanders and Singler, "Cache-,
hash- and space-efficient Bloom filters", 2007; Parquet's filters have the same shape). A test
reads one block of 32 bytes, which databases can cut out without reading the rest. With 16 bits
per key about one foreign key in a thousand passes.
"""

from __future__ import annotations

import struct
import threading

import duckdb
import pyarrow as pa

from apps.engine.database import fetch, open_database

BLOCK_BYTES = 32
_WORDS = 8
_KEYS_PER_BLOCK = 16
_HALF = struct.Struct("<QQ")
_BLOCK = struct.Struct("<8I")
_local = threading.local()


def block_count(keys: int) -> int:
    """Blocks of a filter for so many keys: a power of two."""
    return 1 << max(0, (keys - 1) // _KEYS_PER_BLOCK).bit_length()


def build(keys: pa.ChunkedArray, blocks: int) -> bytes:
    """The filter of these key texts; NULL and empty ones have no part in it."""
    connection = _connection()
    words = ", ".join(
        f"coalesce(bit_or(1::UINTEGER << CAST((h >> {5 * n}) & 31 AS UINTEGER)), 0)::UINTEGER"
        for n in range(_WORDS)
    )
    connection.register("input", pa.table({"key": keys}))
    try:
        table = fetch(
            connection,
            f"SELECT [{words}] AS block FROM range({blocks}) AS place(b) LEFT JOIN "  # noqa: S608  # nosec B608  # numbers of our own
            f"(SELECT CAST(m & {blocks - 1} AS BIGINT) AS b, CAST(m >> 64 AS UBIGINT) AS h FROM "
            "(SELECT md5_number(key) AS m FROM input WHERE key <> '')) USING (b) "
            "GROUP BY b ORDER BY b",
        )
    finally:
        connection.unregister("input")
    flat = table.column("block").combine_chunks().flatten()
    data = flat.buffers()[1]
    start = flat.offset * 4
    return bytes(data[start : start + blocks * BLOCK_BYTES])


def block_of(key_hash: bytes) -> int:
    """The number whose remainder by the count of blocks (a power of two) is a key's block."""
    return int(_HALF.unpack(key_hash)[0] & 0x7FFFFFFF)


def may_hold(block: bytes, key_hash: bytes) -> bool:
    """Whether the block that `block_of` chose lets the key pass."""
    bits = _HALF.unpack(key_hash)[1]
    return all(word >> (bits >> (5 * n) & 31) & 1 for n, word in enumerate(_BLOCK.unpack(block)))


def _connection() -> duckdb.DuckDBPyConnection:
    """One database per thread: a DuckDB connection is not for two threads at once."""
    connection: duckdb.DuckDBPyConnection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = _local.connection = open_database(memory_mb=256, keep_order=True)
    return connection
