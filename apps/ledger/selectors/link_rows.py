"""Fetching the rows of links as Arrow tables, without a Python object per value.

From PostgreSQL they come through ADBC, which makes columns of the binary COPY. A right key or
image that equals the left one is not sent, nor is the state of a live link: that is most of what
there is to send.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any
from uuid import UUID

import adbc_driver_postgresql.dbapi as adbc
import pyarrow as pa
import pyarrow.compute as pc
from django.db import OperationalError, connection
from psycopg.conninfo import make_conninfo

from apps.ledger.models import Link

BATCH_BYTES = 4 * 1_048_576
IN_CHUNK = 500
ARRAY_CHUNK = 10_000
_LIVE = Link.State.LIVE.value
_GONE = Link.State.GONE.value
_SENT = {
    "left_key": "left_key",
    "right_key": "CASE WHEN right_hash <> left_hash THEN right_key END",
    "left_image": "left_image",
    "right_image": "CASE WHEN right_image <> left_image THEN right_image END",
    "state": f"CASE WHEN state <> '{_LIVE}' THEN state END",
}
_IMAGES = ("left_image", "right_image")
_COLUMNS = [field.attname for field in Link._meta.concrete_fields]
_OPTIONS = frozenset({"host", "port", "dbname", "user", "password", "options", "client_encoding"})


def copied_links(rule_id: UUID, schema: pa.Schema, *, images: bool) -> Iterator[pa.Table]:
    """All links of a rule as tables of this schema; without `images` these columns are empty.

    They come through a connection of their own, so that the caller may use the usual one
    meanwhile; what it has not committed is not seen. Raises OperationalError.
    """
    names = [name for name in schema.names if images or name not in _IMAGES]
    columns = ", ".join(f"{_SENT[name]} AS {name}" for name in names)
    query = (
        f"SELECT {columns} FROM {Link._meta.db_table} "  # noqa: S608  # nosec B608  # names of our own model
        f"WHERE rule_id = '{rule_id}' AND state <> '{_GONE}'"
    )
    for batch in _streamed(query):
        yield _completed(batch, schema)


def links_of_hashes(rule_id: UUID, side: str, hashes: Sequence[bytes]) -> Iterator[Link]:
    """The links whose key of `side` has one of these hashes."""
    for row in rows_of_hashes(rule_id, side, hashes, _COLUMNS):
        link = Link(*row)
        link._state.adding = False
        yield link


def rows_of_hashes(
    rule_id: UUID,
    side: str,
    hashes: Sequence[bytes],
    columns: Sequence[str],
    *,
    gone: bool = False,
) -> Iterator[Sequence[Any]]:
    """These columns of the links whose key of `side` has one of these hashes.

    gone: with the rows that say that there is no link any more.
    """
    if connection.vendor == "postgresql":
        yield from _by_arrays(rule_id, side, hashes, columns, gone=gone)
        return
    for start in range(0, len(hashes), IN_CHUNK):
        chunk = {f"{side}_hash__in": hashes[start : start + IN_CHUNK]}
        rows = Link.objects.filter(rule_id=rule_id, **chunk)
        yield from (rows if gone else rows.exclude(state=_GONE)).values_list(*columns)


def _by_arrays(
    rule_id: UUID, side: str, hashes: Sequence[bytes], columns: Sequence[str], *, gone: bool
) -> Iterator[Sequence[Any]]:
    """One text is bound at a time: drivers take long over thousands of values.

    A planner that knows nothing of the table yet, as in a rule's first large run, goes by the
    rule alone if it sees how many hashes there are, and reads all of its links for each list.
    """
    query = (
        f"SELECT {', '.join(columns)} FROM {Link._meta.db_table} "  # noqa: S608  # nosec B608  # names of our own model
        f"WHERE rule_id = %s AND {side}_hash = ANY("
        "ARRAY(SELECT decode(h, 'hex') FROM unnest(string_to_array(%s, ',')) AS h))"
        + ("" if gone else f" AND state <> '{_GONE}'")
    )
    for start in range(0, len(hashes), ARRAY_CHUNK):
        listed = ",".join([value.hex() for value in hashes[start : start + ARRAY_CHUNK]])
        with connection.cursor() as cursor:
            cursor.execute(query, [rule_id, listed])
            yield from cursor.fetchall()


def _streamed(query: str) -> Iterator[pa.RecordBatch]:
    """Raises OperationalError, as Django does."""
    size = {"adbc.postgresql.batch_size_hint_bytes": str(BATCH_BYTES)}
    try:
        with closing(adbc.connect(_conninfo())) as own, own.cursor() as cursor:
            cursor.adbc_statement.set_options(**size)
            cursor.execute(query)
            yield from cursor.fetch_record_batch()
    except (adbc.Error, OSError) as error:
        raise OperationalError("the platform's database did not hand over its links") from error


def _conninfo() -> str:
    """How the platform's own database is reached, for libpq."""
    parameters = connection.get_connection_params()
    known = {
        name: value
        for name, value in parameters.items()
        if (name in _OPTIONS or name.startswith("ssl")) and value not in (None, "")
    }
    return make_conninfo(**known)


def _completed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.Table:
    """Put back what was not sent."""
    nothing = pa.array([""] * batch.num_rows, pa.string())
    sent = {
        name: column.cast(pa.string())
        for name, column in zip(batch.schema.names, batch.columns, strict=True)
    }
    columns = {name: sent.get(name, nothing) for name in schema.names}
    for side in ("key", "image"):
        columns[f"right_{side}"] = pc.coalesce(columns[f"right_{side}"], columns[f"left_{side}"])
    columns["state"] = pc.fill_null(columns["state"], _LIVE)
    return pa.table(list(columns.values()), schema=schema)
