"""Record images: JSON texts of canonical strings, converted in bulk by DuckDB.

An image is `{"Name": "AC/DC", "Price": "0.99", "Gone": null}`: each value is a canonical text
(see `types_sql`) or null. Columns are renamed by position on the way in, because SQL names do
not tell `name` from `Name`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence

import duckdb
import pyarrow as pa

from apps.connectors.errors import MalformedRecord
from apps.connectors.types import NeutralType
from apps.engine.database import fetch, open_database
from apps.engine.types_sql import (
    canonical_sql,
    from_canonical_sql,
    json_string_sql,
    json_text,
    key_sql,
    key_text,
    literal,
)

_local = threading.local()


def encode_images(table: pa.Table, fields: Mapping[str, NeutralType]) -> list[str]:
    """The image of each row, with the fields in the order of `fields`."""
    images: list[str] = _encoded(table, fields, image_sql(_columns(fields))).to_pylist()
    return images


def image_hashes(table: pa.Table, fields: Mapping[str, NeutralType]) -> list[str]:
    """The as-written hash of each row: MD5 of its image with the fields sorted by name."""
    hashes: list[str] = _encoded(table, fields, hash_sql(_columns(fields))).to_pylist()
    return hashes


def canonical_texts(table: pa.Table, fields: Mapping[str, NeutralType]) -> pa.Table:
    """The same rows with every value as its canonical text."""
    select = ", ".join(
        f"{canonical_sql(column, neutral)} AS {column}" for _, column, neutral in _columns(fields)
    )
    result = _query(_positional(table, fields), f"SELECT {select} FROM input")
    return result.rename_columns(list(fields))


def image_hash(image: Mapping[str, str | None]) -> str:
    """The as-written hash of one image, as `image_hashes` gives it."""
    text = json_text(dict(sorted(image.items())))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def encode_keys(table: pa.Table, fields: Mapping[str, NeutralType]) -> list[str]:
    """The key text of each row, over `fields` in their order."""
    keys: list[str] = key_column(table, fields).to_pylist()
    return keys


def key_column(table: pa.Table, fields: Mapping[str, NeutralType]) -> pa.ChunkedArray:
    """The key text of each row, as `encode_keys` has it."""
    return _encoded(
        table, fields, key_sql([(column, neutral) for _, column, neutral in _columns(fields)])
    )


def masked(keys: pa.ChunkedArray, condition: str) -> pa.Array:
    """Whether each key text fulfils a condition: SQL of a column `key`."""
    table = pa.table({"key": keys.cast(pa.string())})
    return _query(table, f"SELECT {condition} AS kept FROM input").column(0).combine_chunks()


def decode_images(texts: Sequence[str], fields: Mapping[str, NeutralType]) -> pa.Table:
    """Typed columns of images; a field that an image lacks is NULL. Raises MalformedRecord."""
    pointers = ["/" + name.replace("~", "~0").replace("/", "~1") for name in fields]
    return _decoded(texts, fields, pointers)


def decode_keys(texts: Sequence[str], key_fields: Mapping[str, NeutralType]) -> pa.Table:
    """Typed columns of key texts. Raises MalformedRecord."""
    return _decoded(texts, key_fields, [f"/{place}" for place in range(len(key_fields))])


def image_sql(columns: Sequence[tuple[str, str, NeutralType]]) -> str:
    """SQL of the image of (name, SQL of the value, type) columns."""
    if not columns:
        return "'{}'"
    parts = []
    for place, (name, sql, neutral) in enumerate(columns):
        label = json_name(name)
        before = ("{" if place == 0 else ",") + label + ":"
        value = f"coalesce({json_string_sql(sql, neutral)}, 'null')"
        parts.append(f"{literal(before)} || {value}")
    return " || ".join(parts) + " || '}'"


def hash_sql(columns: Sequence[tuple[str, str, NeutralType]]) -> str:
    """SQL of the as-written hash of (name, SQL of the value, type) columns."""
    return f"md5({image_sql(sorted(columns, key=lambda column: column[0]))})"


def json_name(name: str) -> str:
    """A field's name as a JSON string."""
    return key_text([name])[1:-1]


def _columns(fields: Mapping[str, NeutralType]) -> list[tuple[str, str, NeutralType]]:
    return [(name, f"c{place}", neutral) for place, (name, neutral) in enumerate(fields.items())]


def _positional(table: pa.Table, fields: Mapping[str, NeutralType]) -> pa.Table:
    columns = [table.column(name).cast(neutral.arrow) for name, neutral in fields.items()]
    return pa.table(columns, names=[f"c{place}" for place in range(len(fields))])


def _encoded(table: pa.Table, fields: Mapping[str, NeutralType], sql: str) -> pa.ChunkedArray:
    if not fields:
        return pa.chunked_array([pa.array(["{}"] * table.num_rows, pa.string())])
    result = _query(_positional(table, fields), f"SELECT {sql} AS image FROM input")
    return result.column(0)


def _decoded(
    texts: Sequence[str], fields: Mapping[str, NeutralType], pointers: Sequence[str]
) -> pa.Table:
    schema = pa.schema([pa.field(name, neutral.arrow) for name, neutral in fields.items()])
    if not fields or not len(texts):
        return schema.empty_table()
    paths = "[" + ", ".join(literal(pointer) for pointer in pointers) + "]"
    select = ", ".join(
        f"{from_canonical_sql(f'v[{place + 1}]', neutral)} AS c{place}"
        for place, neutral in enumerate(fields.values())
    )
    source = pa.table({"text": pa.array(texts, pa.string())})
    try:
        result = _query(
            source,
            f"SELECT {select} FROM (SELECT json_extract_string(text, {paths}) AS v FROM input)",
        )
    except duckdb.Error as error:
        raise MalformedRecord("a stored image does not hold the types of its fields") from error
    return result.rename_columns(schema.names).cast(schema)


def _query(table: pa.Table, sql: str) -> pa.Table:
    connection = _connection()
    connection.register("input", table)
    try:
        return fetch(connection, sql)
    finally:
        connection.unregister("input")


def _connection() -> duckdb.DuckDBPyConnection:
    """One database per thread: a DuckDB connection is not for two threads at once."""
    connection: duckdb.DuckDBPyConnection | None = getattr(_local, "connection", None)
    if connection is None:
        connection = open_database(memory_mb=2048, threads=2, keep_order=True)
        _local.connection = connection
    return connection
