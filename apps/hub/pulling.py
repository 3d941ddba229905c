"""Pages of changes for replicas, and the digest by which they see that they hold the same.

Numbers are committed in their order (`services.storing`), so whoever has read up to a number has
missed nothing below it. A page is put together from the stored texts of records: none of them is
parsed, unless the dataset is sealed.

While a replica follows, its page holds the records whose last write lies beyond its number: those
in its scopes as they are, deleted ones as deletions. Records that have left one of its scopes, and
are in none of them, come as `leave`. The records are read first, then the exits up to the number
that the records were read to: what is read of both is complete up to there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
from django.db.models import Count as Counted
from django.db.models import F, Q, QuerySet, Sum

from apps.core.protected import ErasedValueError
from apps.hub.bodies import DIGEST_BITS, opened, record_place
from apps.hub.errors import SchemaOutdated, TokenExpired
from apps.hub.models import HostedDataset, HostedRecord, ScopeExit
from apps.hub.models import Sequence as Counter
from apps.hub.selectors import Access
from apps.hub.tokens import ALL, Phase, Place, Scopes, read, scopes_named, turned_to, written

MOST = 10_000
_HALF = DIGEST_BITS // 2


@dataclass(frozen=True, slots=True)
class Page:
    """items: the changes as pieces of JSON; number: where the replica is afterwards."""

    items: list[str]
    token: str
    has_more: bool
    is_reset: bool
    schema: int
    number: int

    def rendered(self) -> bytes:
        """The page as JSON."""
        head = orjson.dumps(
            {
                "next": self.token,
                "has_more": self.has_more,
                "reset": self.is_reset,
                "schema_version": self.schema,
            }
        ).decode()
        return f'{{"changes":[{",".join(self.items)}],{head[1:]}'.encode()


def require_schema(hosted: HostedDataset, number: int | None) -> None:
    """Raise SchemaOutdated where a client knows only a schema from before a breaking change."""
    if number is not None and number < hosted.oldest_schema:
        raise SchemaOutdated(f"schema {number} is from before a change that breaks it")


def pull(hosted: HostedDataset, access: Access, since: str, limit: int) -> Page:
    """The page after a token; without one, the first of a new copy. Raises TokenExpired."""
    counter = Counter.objects.get(hosted=hosted)
    schema = hosted.schema_number
    place = read(since, hosted.pk) if since else Place(counter.last, schema)
    if since:
        _require_remembered(hosted, place, counter)
    place = replace(turned_to(place, access), schema=schema)
    items: list[str] = []
    puller = _Puller(hosted, access.scopes, counter.last)
    has_more = True
    while has_more and len(items) < limit:
        place, has_more = puller.step(place, limit - len(items), items)
    token = written(place, hosted.pk)
    return Page(items, token, has_more, not since, schema, place.number)


def _require_remembered(hosted: HostedDataset, place: Place, counter: Counter) -> None:
    if place.number < counter.forgotten or place.number > counter.last:
        raise TokenExpired("deletions since this token are not remembered any more")
    if place.schema < hosted.oldest_schema:
        raise TokenExpired("the schema has changed since this token in a way that breaks it")


class _Puller:
    """Steps of one pull. head: the number that was committed when it began."""

    def __init__(self, hosted: HostedDataset, target: Scopes, head: int) -> None:
        self.hosted = hosted
        self.target = target
        self.head = head
        self.rows = HostedRecord.objects.filter(hosted=hosted)
        self.exits = ScopeExit.objects.filter(hosted=hosted)

    def step(self, place: Place, limit: int, items: list[str]) -> tuple[Place, bool]:
        """Add up to `limit` items of one phase; the place then, and whether there may be more."""
        if place.phase is Phase.DROP:
            return self._drop(place, limit, items), True
        if place.phase is Phase.FILL:
            return self._fill(place, limit, items), True
        return self._follow(place, limit, items)

    def _drop(self, place: Place, limit: int, items: list[str]) -> Place:
        """Records that the replica may hold, and is to hold no longer."""
        lost = Q() if place.possible == ALL else _in(scopes_named(place.possible))
        beyond = Q() if place.after is None else Q(key__gt=place.after)
        gone = self.rows.filter(lost, beyond).values_list("key", flat=True)
        left = self.exits.filter(lost, beyond, revision__gt=place.number)
        found = list(gone.union(left.values_list("key", flat=True)).order_by("key")[:limit])
        inside = self.rows.filter(_in(self.target), key__in=found, is_deleted=False)
        kept = set(inside.values_list("key", flat=True)) if found else set()
        items += [_left(key, place.number) for key in found if key not in kept]
        if len(found) == limit:
            return replace(place, after=found[-1])
        return replace(place, phase=Phase.FILL, after=None)

    def _fill(self, place: Place, limit: int, items: list[str]) -> Place:
        """Records of scopes that the replica is to have and has not yet."""
        rows = self.rows.filter(_in(self.target), is_deleted=False)
        if place.after is not None:
            rows = rows.filter(key__gt=place.after)
        complete = scopes_named(place.complete)
        if complete is None:
            rows = rows.none()
        elif complete:
            rows = rows.exclude(scope__in=complete)
        found = list(_columns(rows.order_by("key"))[:limit])
        items += self._rendered(found)
        if len(found) == limit:
            return replace(place, after=found[-1][0])
        whole = place.target
        return replace(place, phase=Phase.FOLLOW, after=None, complete=whole, possible=whole)

    def _follow(self, place: Place, limit: int, items: list[str]) -> tuple[Place, bool]:
        rows = self.rows.filter(_in(self.target), revision__gt=place.number)
        found = list(_columns(rows.order_by("revision"))[: limit + 1])
        bound = max(self.head, found[-1][1] if found else 0)
        if len(found) > limit:
            bound = found[limit][1]
        exits = self._exits(place.number, bound, limit + 1)
        merged = list(heapq.merge(_numbered(found, self._rendered(found)), exits))
        items += [text for _, text in merged[:limit]]
        if len(merged) > limit:
            return replace(place, number=merged[limit - 1][0]), True
        return replace(place, number=max(bound, place.number)), False

    def _exits(self, after: int, bound: int, limit: int) -> list[tuple[int, str]]:
        """Records that have left one of the replica's scopes, and are in none of them."""
        if self.target is None or not self.target:
            return []
        exits = self.exits.filter(
            _in(self.target), revision__gt=after, revision__lte=bound
        ).order_by("revision")
        found = list(exits.values_list("revision", "key")[:limit])
        inside = self.rows.filter(_in(self.target), key__in={key for _, key in found})
        kept = set(inside.values_list("key", flat=True)) if found else set()
        return [(number, _left(key, number)) for number, key in found if key not in kept]

    def _rendered(self, found: Iterable[tuple[Any, ...]]) -> Iterator[str]:
        for key, revision, is_deleted, body, sealed in found:
            name = orjson.dumps(key).decode()
            if is_deleted:
                yield f'{{"id":{name},"rev":{revision},"op":"delete"}}'
                continue
            if sealed is not None:
                body = _unsealed(self.hosted, key, sealed)
            yield f'{{"id":{name},"rev":{revision},"op":"put","data":{body}}}'


def _numbered(found: list[tuple[Any, ...]], texts: Iterable[str]) -> Iterator[tuple[int, str]]:
    for row, text in zip(found, texts, strict=True):
        yield row[1], text


def _columns(rows: QuerySet[HostedRecord]) -> Any:
    return rows.values_list("key", "revision", "is_deleted", "body", "sealed_body")


def _in(scopes: Scopes) -> Q:
    return Q() if scopes is None else Q(scope__in=scopes)


def _left(key: str, revision: int) -> str:
    return f'{{"id":{orjson.dumps(key).decode()},"rev":{revision},"op":"leave"}}'


def _unsealed(hosted: HostedDataset, key: str, sealed: bytes) -> str:
    try:
        return opened(None, sealed, record_place(hosted.pk, key)) or "{}"
    except ErasedValueError:
        return "{}"


@dataclass(frozen=True, slots=True)
class Digest:
    """What a copy must come to. is_current: whether a token is as far as what was counted."""

    count: int
    digest: str
    is_current: bool | None


def digest(hosted: HostedDataset, access: Access, since: str) -> Digest:
    """Count and digest of the records that an account sees, and whether a token is up to them.

    The digest is the sum of the digests of the records (`bodies.digest_of`), modulo 2^60.
    """
    rows = HostedRecord.objects.filter(_in(access.scopes), hosted=hosted, is_deleted=False)
    while True:
        before = Counter.objects.get(hosted=hosted).last
        sums = rows.aggregate(
            count=Counted("pk"),
            high=Sum(F("digest").bitrightshift(_HALF)),
            low=Sum(F("digest").bitand((1 << _HALF) - 1)),
        )
        if Counter.objects.get(hosted=hosted).last == before:
            break
    total = ((int(sums["high"] or 0) << _HALF) + int(sums["low"] or 0)) % (1 << DIGEST_BITS)
    is_current = None
    if since:
        place = read(since, hosted.pk)
        is_settled = place.phase is Phase.FOLLOW and place.target == turned_to(place, access).target
        is_current = is_settled and place.number >= before
    return Digest(sums["count"], f"{total:015x}", is_current)
