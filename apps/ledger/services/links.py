"""Links: what belongs together, and the base of both sides.

A change that was written patches the base of its link: for the fields that it brought into step,
the left view and the right record afterwards (decision 3). Two changes of one record, one per
side, patch different fields, so that either may fail alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
from django.db import IntegrityError, transaction

from apps.core.bulk import bulk_insert, bulk_upsert
from apps.engine.codec import image_hash
from apps.engine.types_sql import json_text
from apps.ledger.models import NO_RECORD, Change, Image, Link, Operation, Side, seal_base
from apps.ledger.selectors.keys import key_hash
from apps.ledger.selectors.link_rows import IN_CHUNK, links_of_hashes, rows_of_hashes
from apps.ledger.selectors.linked import KeptLink, SegmentLinks
from apps.ledger.selectors.plans import PlannedChange
from apps.ledger.services.work import WorkIdentity

LINK_COLUMNS = (
    "rule_id",
    "left_key",
    "right_key",
    "left_hash",
    "right_hash",
    "left_image",
    "right_image",
    "sealed_base",
    "state",
    "run_id",
)
REFRESHED = ("left_key", "left_hash", "left_image", "right_image", "sealed_base", "state", "run_id")
IDENTITY = ("rule_id", "right_hash")
_GONE = Link.State.GONE.value


@dataclass(frozen=True, slots=True)
class Stored:
    """What a write itself gave back, where it differs from what was sent or was not known.

    own_key:    key on the side it was written to, if the target assigned it, else empty;
    after:      the fields written, as stored (JSON, in that side's space); empty: as sent;
    image_hash: hash of the whole record as stored (one-way rules); empty: as planned;
    base_left, base_right: the patch to the base with what is stored; empty: as planned.
    """

    own_key: str = ""
    after: str = ""
    image_hash: str = ""
    base_left: str = ""
    base_right: str = ""


NOTHING_STORED = Stored()


@dataclass(slots=True)
class _Pair:
    """A link on its way into the table.

    known: it is there already, as the row with this `pk` or, without one, in a segment.
    """

    left_key: str
    right_key: str
    left: Image | None = None
    right: Image | None = None
    left_image: str = ""
    right_image: str = ""
    state: str = Link.State.LIVE.value
    has_base: bool = False
    known: bool = False
    pk: int | None = None
    gone: bool = False

    def row(self, work: WorkIdentity) -> tuple[Any, ...]:
        sealed = None
        if self.has_base:
            left, self.left_image = _text(self.left), _hash(self.left)
            right, self.right_image = left, self.left_image
            if self.right != self.left:
                right, self.right_image = _text(self.right), _hash(self.right)
            identity = Link.identity(work.rule_id, self.left_key, self.right_key)
            sealed = seal_base(left, right, identity)
        return (
            *_identity(work.rule_id, self.left_key, self.right_key),
            self.left_image,
            self.right_image,
            sealed,
            self.state,
            work.run_id,
        )


def _text(image: Image | None) -> str | None:
    return None if image is None else json_text(image)


def _hash(image: Image | None) -> str:
    return "" if image is None else image_hash(image)


def store_links(
    work: WorkIdentity, pairs: Iterable[tuple[str, str, str]], *, first_links: bool = False
) -> None:
    """Link left_key, right_key, image triples of equal records, or refresh the links there are.

    first_links: the rule had no links before this run, so none can lead elsewhere.
    """
    made = (
        _Pair(left, right, left_image=image or "", right_image=image or "")
        for left, right, image in pairs
    )
    _write(work, [pair.row(work) for pair in made], first_links=first_links)


def refresh_links(work: WorkIdentity, table: pa.Table, *, first_links: bool = False) -> None:
    """Set the whole base of links, made where they are new: agreed, or equal at first contact.

    table: as `Reconciler.refreshes` yields it: left_key, right_key, base_left, base_right (images
    in right space as JSON; NULL: there is no record on that side), left_image, right_image (their
    hashes; where a column lacks, they are found out).
    """
    rows = list(_based_rows(work, table, Link.State.LIVE.value))
    _write(work, rows, first_links=first_links)


def hold_links(work: WorkIdentity, table: pa.Table) -> None:
    """Hold links as they are now: nothing flows until a side differs from its image.

    table: as `refresh_links` takes it. A link that is gone is made again.
    """
    _write(work, list(_based_rows(work, table, Link.State.HELD.value)), first_links=False)


def _based_rows(work: WorkIdentity, table: pa.Table, state: str) -> Iterator[tuple[Any, ...]]:
    columns = [
        table.column(name).to_pylist()
        for name in ("left_key", "right_key", "base_left", "base_right")
    ]
    columns += [
        table.column(name).to_pylist() if name in table.column_names else [None] * table.num_rows
        for name in ("left_image", "right_image")
    ]
    for left_key, right_key, left, right, left_image, right_image in zip(*columns, strict=True):
        identity = Link.identity(work.rule_id, left_key, right_key)
        yield (
            *_identity(work.rule_id, left_key, right_key),
            left_image or _hash(_image(left)),
            right_image or _hash(_image(right)),
            seal_base(left, right, identity),
            state,
            work.run_id,
        )


def close_links(rule_id: UUID, pairs: Iterable[tuple[str, str]]) -> None:
    """Forget links (left key, right key) whose two records are both gone."""
    chosen = list(pairs)
    left_of_right = {key_hash(right): key_hash(left) for left, right in chosen}
    _forget(rule_id, Side.RIGHT, left_of_right, same=True)
    cover_links(rule_id, chosen)


def cover_links(rule_id: UUID, pairs: Sequence[tuple[str, str]]) -> None:
    """Say that there are no such links, where a segment holds them."""
    kept = SegmentLinks(rule_id) if pairs else None
    if not kept:
        return
    partners = dict(pairs)
    found = kept.of("left", list(partners))
    _write_gone(rule_id, [link for link in found if partners[link.left_key] == link.right_key])


def _write_gone(rule_id: UUID, links: Sequence[KeptLink]) -> None:
    rows = [
        (*_identity(rule_id, link.left_key, link.right_key), "", "", None, _GONE, link.run_id)
        for link in links
    ]
    if rows:
        bulk_upsert(Link, LINK_COLUMNS, IDENTITY, (), rows)


def _cover_displaced(
    rule_id: UUID, left_of_right: Mapping[bytes, bytes], kept: SegmentLinks | None
) -> None:
    """Rows whose right record goes to another left one hide that left one's segment no more.

    kept: tells whether there are segments at all; what they hold is read anew.
    """
    if not (SegmentLinks(rule_id) if kept is None else kept):
        return
    columns = ("left_key", "left_hash", "right_hash")
    rows = rows_of_hashes(rule_id, "right", list(left_of_right), columns, gone=True)
    displaced = [key for key, left, right in rows if left_of_right[bytes(right)] != bytes(left)]
    if displaced:
        _write_gone(rule_id, SegmentLinks(rule_id).entries("left", displaced))


def _identity(rule_id: UUID, left_key: str, right_key: str) -> tuple[Any, ...]:
    """The first columns of LINK_COLUMNS."""
    left_hash = key_hash(left_key)
    right_hash = left_hash if left_key == right_key else key_hash(right_key)
    return rule_id, left_key, right_key, left_hash, right_hash


def _remove(rule_id: UUID, pks: Sequence[int]) -> None:
    """Remove rows; those that stand over a link in a segment say from now on that there is none."""
    kept = SegmentLinks(rule_id) if pks else None
    for start in range(0, len(pks), IN_CHUNK):
        rows = Link.objects.filter(pk__in=pks[start : start + IN_CHUNK])
        if kept:
            rows.update(state=_GONE, sealed_base=None, left_image="", right_image="")
        else:
            rows.delete()


def _forget(rule_id: UUID, side: Side, partners: Mapping[bytes, bytes], *, same: bool) -> None:
    """Forget the links of these keys of `side`: those to the partner given, or all but those."""
    other = Side.LEFT if side is Side.RIGHT else Side.RIGHT
    columns = ("id", f"{side.value}_hash", f"{other.value}_hash")
    rows = rows_of_hashes(rule_id, side.value, list(partners), columns)
    found = [pk for pk, own, else_ in rows if (partners[bytes(own)] == bytes(else_)) is same]
    if found:
        _remove(rule_id, found)


def _write(
    work: WorkIdentity,
    rows: Sequence[tuple[Any, ...]],
    *,
    first_links: bool,
    kept: SegmentLinks | None = None,
) -> None:
    if not rows:
        return
    if first_links:
        try:
            with transaction.atomic():
                bulk_insert(Link, LINK_COLUMNS, rows)
            return
        except IntegrityError:  # settled once already
            pass
    _forget(work.rule_id, Side.LEFT, {row[3]: row[4] for row in rows}, same=False)
    _cover_displaced(work.rule_id, {row[4]: row[3] for row in rows}, kept)
    bulk_upsert(Link, LINK_COLUMNS, IDENTITY, REFRESHED, rows)


def link_written(
    work: WorkIdentity,
    written: Sequence[PlannedChange],
    stored: Mapping[int, Stored],
    *,
    first_links: bool,
    hold: bool,
    kept: SegmentLinks | None = None,
) -> None:
    """Bring the links in line with changes that were written.

    hold: the links of these changes are held (an undo), also those of records that it removed;
    kept: links in segments, read ahead.
    """
    if not written:
        return
    looked_for = _looked_for(written, hold)
    if not looked_for:
        rows = [_plain_row(work, change, stored) for change in written]
        is_one_way = all(change.side == Side.RIGHT for change in written)
        if first_links or (is_one_way and _are_apart(rows)):
            _write(work, rows, first_links=first_links, kept=kept)
            return
    kept = SegmentLinks(work.rule_id) if kept is None else kept
    known = _Known(kept, looked_for)
    for change in written:
        known.apply(change, stored.get(change.sequence, NOTHING_STORED), hold)
    known.remove_moved()
    rows = [pair.row(work) for pair in known.pairs if not pair.gone]
    _write(work, rows, first_links=first_links, kept=kept)


def _plain_row(
    work: WorkIdentity, change: PlannedChange, stored: Mapping[int, Stored]
) -> tuple[Any, ...]:
    """The link of a one-way insert or update that is not looked for (`_looked_for`)."""
    back = stored.get(change.sequence, NOTHING_STORED)
    return (
        *_identity(work.rule_id, change.left_key, back.own_key or change.key_after),
        change.image,
        back.image_hash or change.image,
        None,
        _state(change, hold=False),
        work.run_id,
    )


def _are_apart(rows: Sequence[tuple[Any, ...]]) -> bool:
    """Whether no two of these links have a record in common."""
    return all(len({row[place] for row in rows}) == len(rows) for place in (3, 4))


def _looked_for(written: Sequence[PlannedChange], hold: bool) -> list[PlannedChange]:
    """The changes whose link must be known: a plain one-way update or insert replaces it."""
    return [
        change
        for change in written
        if hold
        or change.base_left
        or change.base_right
        or change.operation == Operation.DELETE
        or change.key_after != change.own_key
    ]


class _Known:
    """The links that changes touch, by both keys."""

    def __init__(self, kept: SegmentLinks, changes: Sequence[PlannedChange]) -> None:
        self.rule_id = kept.rule_id
        self.pairs: list[_Pair] = []
        self._before: dict[int, tuple[str, str]] = {}  # by place in `pairs`
        self._by_key: dict[tuple[str, str], _Pair] = {}
        seen: set[tuple[str, str]] = set()
        for links in _links_of(kept, changes):
            for link in links:
                if (link.left_key, link.right_key) not in seen:
                    seen.add((link.left_key, link.right_key))
                    self._add(_opened(link))

    def _add(self, pair: _Pair) -> _Pair:
        if pair.known:
            self._before[len(self.pairs)] = (pair.left_key, pair.right_key)
        self.pairs.append(pair)
        self._index(pair)
        return pair

    def _index(self, pair: _Pair) -> None:
        if pair.left_key:
            self._by_key["left", pair.left_key] = pair
        if pair.right_key:
            self._by_key["right", pair.right_key] = pair

    def remove_moved(self) -> None:
        """Remove the links that are gone, or whose keys changed, as they were."""
        pks: list[int] = []
        covered: list[tuple[str, str]] = []
        for place, before in self._before.items():
            pair = self.pairs[place]
            if pair.gone or before != (pair.left_key, pair.right_key):
                if pair.pk is None:
                    covered.append(before)
                else:
                    pks.append(pair.pk)
        _remove(self.rule_id, pks)
        cover_links(self.rule_id, covered)

    def _pair_of(self, change: PlannedChange) -> _Pair | None:
        """By the key of the side that is not written to first: that one is always known."""
        sides = ("right", "left") if change.side == Side.LEFT else ("left", "right")
        for side in sides:
            key = change.left_key if side == "left" else change.right_key
            found = self._by_key.get((side, key)) if key else None
            if found is not None:
                return found
        return None

    def apply(self, change: PlannedChange, stored: Stored, hold: bool) -> None:
        pair = self._pair_of(change)
        if change.operation == Operation.DELETE and not hold:
            if pair is not None and _own_key(pair, change.side) == change.own_key:
                pair.gone = True  # else the target has given the key to a new record
            return
        pair = pair or self._add(_Pair(change.left_key, change.right_key))
        left, right = change.left_key or pair.left_key, change.right_key or pair.right_key
        if pair.gone or left != pair.left_key:  # another record took the key over
            pair.gone, pair.left, pair.right = False, None, None
        own = stored.own_key or change.key_after or change.own_key
        if change.side == Side.LEFT:
            pair.left_key, pair.right_key = own or left, right
        else:
            pair.left_key, pair.right_key = left, own or right
        self._index(pair)
        self._patch(pair, change, stored)
        pair.state = _state(change, hold)

    @staticmethod
    def _patch(pair: _Pair, change: PlannedChange, stored: Stored) -> None:
        left = stored.base_left or change.base_left
        right = stored.base_right or change.base_right
        if left or right:
            pair.has_base = True
            pair.left, pair.right = _patched(pair.left, left), _patched(pair.right, right)
            return
        pair.has_base, pair.left, pair.right = False, None, None
        pair.left_image = change.image
        pair.right_image = stored.image_hash or change.image


def _own_key(pair: _Pair, side: str) -> str:
    return pair.left_key if side == Side.LEFT else pair.right_key


def _state(change: PlannedChange, hold: bool) -> str:
    if hold:
        return Link.State.HELD.value
    if change.cause == Change.Cause.MARKED:
        return Link.State.MARKED.value
    return Link.State.LIVE.value


def _patched(image: Image | None, patch: str) -> Image | None:
    if patch == NO_RECORD:
        return None
    return {**(image or {}), **orjson.loads(patch)} if patch else image


def _image(text: str | None) -> Image | None:
    image: Image | None = orjson.loads(text) if text else None
    return image


def _opened(link: Link | KeptLink) -> _Pair:
    left, right = link.base()
    return _Pair(
        link.left_key,
        link.right_key,
        _image(left),
        _image(right),
        link.left_image,
        link.right_image,
        link.state,
        has_base=link.has_base,
        known=True,
        pk=link.pk,
    )


def _links_of(
    kept: SegmentLinks, changes: Sequence[PlannedChange]
) -> Iterator[Iterable[Link | KeptLink]]:
    told: set[str] = set()
    for side in ("left", "right"):
        keys = sorted({getattr(change, f"{side}_key") for change in changes} - {""})
        yield links_of_hashes(kept.rule_id, side, [key_hash(key) for key in keys])
        if kept.cross:
            yield kept.of(side, keys)
        else:  # both keys of a link are the same
            yield kept.of(side, [key for key in keys if key not in told])
            told.update(keys)
