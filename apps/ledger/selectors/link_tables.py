"""Reads of links: which records belong together, and how both were when they last agreed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa
from django.db import connection
from django.db.models import F, QuerySet

from apps.engine.types_sql import key_values
from apps.ledger.models import Link
from apps.ledger.selectors.keys import key_hash

LINK_BATCH = 50_000
IN_CHUNK = 500

LINK_COLUMNS = ("left_key", "right_key", "left_image", "right_image", "state")
LINKS = pa.schema([(name, pa.string()) for name in LINK_COLUMNS])
BASES = pa.schema([(name, pa.string()) for name in ("left_key", "right_key", "left", "right")])


def link_batches(rule_id: UUID) -> Iterator[pa.Table]:
    """All links of a rule as tables (schema `LINKS`), from one snapshot, in bounded memory."""
    rows = Link.objects.filter(rule_id=rule_id).values_list(*LINK_COLUMNS).order_by()
    read = _by_cursor if connection.vendor == "postgresql" else _by_iterator
    for page in read(rows):
        yield _table(page, LINKS)


def _by_cursor(rows: QuerySet[Any]) -> Iterator[list[Any]]:
    """Through a server-side cursor, past the ORM's objects.

    Outside a transaction it outlives its statement, so that the caller may write meanwhile.
    """
    sql, parameters = rows.query.sql_with_params()
    with connection.chunked_cursor() as cursor:
        cursor.execute(sql, parameters)
        while page := cursor.fetchmany(LINK_BATCH):
            yield page


def _by_iterator(rows: QuerySet[Any]) -> Iterator[list[Any]]:
    """By ranges of ids: an open SQLite cursor would stand in the way of our own writes."""
    last = 0
    while True:
        page = list(
            rows.filter(id__gt=last).order_by("id").values_list("id", *LINK_COLUMNS)[:LINK_BATCH]
        )
        if not page:
            return
        last = page[-1][0]
        yield [row[1:] for row in page]


def _table(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    columns = zip(*rows, strict=True) if rows else ([] for _ in schema)
    return pa.table([pa.array(c, pa.string()) for c in columns], schema=schema)


def _found(rule_id: UUID, side: str, keys: Sequence[str]) -> Iterator[QuerySet[Link]]:
    for start in range(0, len(keys), IN_CHUNK):
        hashes = [key_hash(key) for key in keys[start : start + IN_CHUNK]]
        yield Link.objects.filter(rule_id=rule_id, **{f"{side}_hash__in": hashes})


def links_of_left(rule_id: UUID, left_keys: Sequence[str]) -> pa.Table:
    """The links of these left keys (schema `LINKS`)."""
    found = _found(rule_id, "left", left_keys)
    return _table([row for rows in found for row in rows.values_list(*LINK_COLUMNS)], LINKS)


def links_of_right(rule_id: UUID, right_keys: Sequence[str]) -> pa.Table:
    """The links of these right keys (schema `LINKS`)."""
    found = _found(rule_id, "right", right_keys)
    return _table([row for rows in found for row in rows.values_list(*LINK_COLUMNS)], LINKS)


def bases_of(
    rule_id: UUID, left_keys: Sequence[str] = (), right_keys: Sequence[str] = ()
) -> pa.Table:
    """The bases of the links of these keys: left_key, right_key, left, right (images, JSON).

    left: the left view, right: the right record, as they were when they last agreed; NULL where
    the side had no record (held or marked links). Links that keep no base are left out.
    """
    found: dict[int, Link] = {}
    for side, keys in (("left", left_keys), ("right", right_keys)):
        for rows in _found(rule_id, side, keys):
            found.update((link.pk, link) for link in rows.exclude(sealed_base=None))
    opened = [(link, *link.base()) for link in found.values()]
    return _table(
        [(link.left_key, link.right_key, left, right) for link, left, right in opened], BASES
    )


def link_table(pairs: Sequence[tuple[str, str]]) -> pa.Table:
    """Pairs of keys as a table of links (schema `LINKS`) of which nothing else is known."""
    return _table([(left, right, "", "", Link.State.LIVE.value) for left, right in pairs], LINKS)


def link_count(rule_id: UUID) -> int:
    return Link.objects.filter(rule_id=rule_id).count()


def has_links(rule_id: UUID) -> bool:
    return Link.objects.filter(rule_id=rule_id).exists()


def has_crossed_links(rule_id: UUID) -> bool:
    """Whether some link's two keys differ."""
    return Link.objects.filter(rule_id=rule_id).exclude(left_hash=F("right_hash")).exists()


def link_lookup(rule_id: UUID) -> pa.Table:
    """The rule's links as a lookup: plain left key (one field) -> plain right key, as text."""
    keys: list[str] = []
    values: list[str] = []
    for table in link_batches(rule_id):
        lefts, rights = (table.column(name).to_pylist() for name in LINK_COLUMNS[:2])
        for left, right in zip(lefts, rights, strict=True):
            left_values, right_values = key_values(left), key_values(right)
            if len(left_values) == len(right_values) == 1 and left_values[0] is not None:
                keys.append(left_values[0])
                values.append(right_values[0] or "")
    return pa.table({"key": pa.array(keys, pa.string()), "value": pa.array(values, pa.string())})
