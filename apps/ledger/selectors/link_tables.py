"""Reads of links: which records belong together, and how both were when they last agreed.

Links have two shelves (`models.Link`): every function here reads both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

import pyarrow as pa
from django.db import connection
from django.db.models import Count, F, Q, QuerySet

from apps.connectors.types import NeutralType
from apps.engine.codec import decode_images
from apps.engine.types_sql import key_values
from apps.ledger.models import Link
from apps.ledger.selectors.keys import key_hash
from apps.ledger.selectors.link_rows import copied_links, links_of_hashes, rows_of_hashes
from apps.ledger.selectors.linked import (
    BASES,
    LINK_COLUMNS,
    LINKS,
    KeptLink,
    SegmentLinks,
)

LINK_BATCH = 50_000
BASED_PAGE = 10_000
MOST_BASED_ROWS = 200_000
"""Bases in rows are opened one by one: beyond so many, their hashes are compared instead."""


def link_batches(rule_id: UUID, *, images: bool = True) -> Iterator[pa.Table]:
    """All links of a rule as tables (schema `LINKS`), in bounded memory.

    images: whether the images are needed; else they may be empty. Close it where reading may
    stop early: it may hold a connection.
    """
    yield from _row_batches(rule_id, images=images)
    yield from SegmentLinks(rule_id).batches(images=images)


def _row_batches(rule_id: UUID, *, images: bool) -> Iterator[pa.Table]:
    if connection.vendor == "postgresql" and not connection.in_atomic_block:
        yield from copied_links(rule_id, LINKS, images=images)
        return
    rows = _live(rule_id).values_list(*LINK_COLUMNS).order_by()
    read = _by_cursor if connection.vendor == "postgresql" else _by_iterator
    for page in read(rows):
        yield _table(page, LINKS)


def based_link_batches(
    rule_id: UUID, types: Mapping[str, NeutralType]
) -> Iterator[pa.Table] | None:
    """All links with the values of their bases; None where these are not kept as such values.

    types: of the mapped right fields. Columns left_key, right_key, state, even (whether both
    images of the base are equal), and a column for each of the fields, NULL where they are not.
    """
    kept = SegmentLinks(rule_id)
    if not kept.hold_values(types) or _live(rule_id).count() > MOST_BASED_ROWS:
        return None
    return _based_batches(rule_id, kept, types)


def _based_batches(
    rule_id: UUID, kept: SegmentLinks, types: Mapping[str, NeutralType]
) -> Iterator[pa.Table]:
    for keys, values in kept.values(types):
        rows = keys.num_rows
        even = pa.repeat(pa.scalar(values is not None), rows)
        state = pa.repeat(pa.scalar(Link.State.LIVE.value), rows)
        yield _with_values(keys, state, even, values, types)
    rows_of_rule = _live(rule_id).order_by("pk")
    last = 0
    while page := list(rows_of_rule.filter(pk__gt=last)[:BASED_PAGE]):
        last = page[-1].pk
        yield _based_page(page, types)


def _based_page(page: Sequence[Link], types: Mapping[str, NeutralType]) -> pa.Table:
    bases = [link.base() for link in page]
    even = [left is not None and left == right for left, right in bases]
    images = [left if same and left else "{}" for same, (left, _) in zip(even, bases, strict=True)]
    keys = pa.table(
        {
            "left_key": [link.left_key for link in page],
            "right_key": [link.right_key for link in page],
        }
    )
    state = pa.array([link.state for link in page], pa.string())
    values = decode_images(images, types)
    return _with_values(keys, state, pa.array(even, pa.bool_()), values, types)


def _with_values(
    keys: pa.Table,
    state: pa.Array,
    even: pa.Array,
    values: pa.Table | None,
    types: Mapping[str, NeutralType],
) -> pa.Table:
    columns = [
        pa.nulls(keys.num_rows, neutral.arrow) if values is None else values.column(name)
        for name, neutral in types.items()
    ]
    names = ["left_key", "right_key", "state", "even", *types]
    return pa.table([*keys.columns, state, even, *columns], names=names)


def _live(rule_id: UUID) -> QuerySet[Link]:
    return Link.objects.filter(rule_id=rule_id).exclude(state=Link.State.GONE)


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


def _found(rule_id: UUID, side: str, keys: Sequence[str]) -> Iterator[Link]:
    return links_of_hashes(rule_id, side, [key_hash(key) for key in keys])


def links_of_left(
    rule_id: UUID, left_keys: Sequence[str], *, kept: SegmentLinks | None = None
) -> pa.Table:
    """The links of these left keys (schema `LINKS`). kept: those in segments, read ahead."""
    return _links_of(_kept(rule_id, kept), "left", left_keys)


def links_of_right(
    rule_id: UUID,
    right_keys: Sequence[str],
    *,
    but: Collection[str] = (),
    kept: SegmentLinks | None = None,
) -> pa.Table:
    """The links of these right keys (schema `LINKS`).

    but: left keys whose links are known already, and need not be found again.
    """
    return _links_of(_kept(rule_id, kept), "right", right_keys, but)


def _kept(rule_id: UUID, kept: SegmentLinks | None) -> SegmentLinks:
    return SegmentLinks(rule_id) if kept is None else kept


def _links_of(
    kept: SegmentLinks, side: str, keys: Sequence[str], known: Collection[str] = ()
) -> pa.Table:
    hashes = [key_hash(key) for key in keys]
    rows = _table(list(rows_of_hashes(kept.rule_id, side, hashes, LINK_COLUMNS)), LINKS)
    if known and not kept.cross:  # both keys of a link are the same
        keys = sorted(set(keys) - set(known))
    return pa.concat_tables([rows, kept.table_of(side, keys)])


def links_named(rule_id: UUID, *, left_key: str = "", right_key: str = "") -> list[Link | KeptLink]:
    """The links of a record, known by either key, those of rows first."""
    found: list[Link | KeptLink] = []
    kept = SegmentLinks(rule_id)
    for side, key in (("left", left_key), ("right", right_key)):
        if key:
            found += sorted(_found(rule_id, side, [key]), key=lambda link: link.pk)
            found += kept.of(side, [key])
    pairs = {(link.left_key, link.right_key): link for link in reversed(found)}
    return list(reversed(pairs.values()))


def bases_of(
    rule_id: UUID, left_keys: Sequence[str], *, kept: SegmentLinks | None = None
) -> pa.Table:
    """The bases of the links of these keys: left_key, right_key, left, right (images, JSON).

    left: the left view, right: the right record, as they were when they last agreed; NULL where
    the side had no record (held or marked links). Links that keep no base are left out.
    kept: links in segments, read ahead.
    """
    rows = [
        (link.left_key, link.right_key, *link.base())
        for link in _found(rule_id, "left", left_keys)
        if link.has_base
    ]
    in_segments = _kept(rule_id, kept).bases_of("left", left_keys)
    return pa.concat_tables([_table(rows, BASES), in_segments])


def link_table(pairs: Sequence[tuple[str, str]]) -> pa.Table:
    """Pairs of keys as a table of links (schema `LINKS`) of which nothing else is known."""
    return _table([(left, right, "", "", Link.State.LIVE.value) for left, right in pairs], LINKS)


def link_count(rule_id: UUID) -> int:
    return _live(rule_id).count() + SegmentLinks(rule_id).count()


def link_floor(rule_id: UUID) -> int:
    """How many links the rule has at least, told without looking at all of them."""
    kept = SegmentLinks(rule_id)
    if not kept:
        return _live(rule_id).count()
    counted = Link.objects.filter(rule_id=rule_id).aggregate(
        rows=Count("pk"), live=Count("pk", filter=~Q(state=Link.State.GONE))
    )
    return int(counted["live"]) + kept.at_least(counted["rows"])


def has_links(rule_id: UUID) -> bool:
    if _live(rule_id).exists():
        return True
    return SegmentLinks(rule_id).any()


def has_crossed_links(rule_id: UUID) -> bool:
    """Whether some link's two keys differ."""
    crossed = _live(rule_id).exclude(left_hash=F("right_hash"))
    return crossed.exists() or SegmentLinks(rule_id).cross


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
