"""Links on the segment shelf: applied inserts of linked segments that no row stands over.

A first load links every record that it inserts. Its plan holds both keys already, so that its
segments serve as its links, too: a million links cost nothing beyond the plan. What happens to a
link afterwards is told by rows (`models.Link`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.types import NeutralType
from apps.engine.codec import image_hash, image_hashes
from apps.ledger.models import NO_RECORD, Link, Segment, SegmentPart
from apps.ledger.segments.files import ChangeFile
from apps.ledger.segments.reading import OpenSegment
from apps.ledger.selectors.history import segments_of_digest, segments_of_key
from apps.ledger.selectors.keys import key_hash
from apps.ledger.selectors.link_rows import rows_of_hashes

LINK_COLUMNS = ("left_key", "right_key", "left_image", "right_image", "state")
LINKS = pa.schema([(name, pa.string()) for name in LINK_COLUMNS])
BASES = pa.schema([(name, pa.string()) for name in ("left_key", "right_key", "left", "right")])
KEYS = ("left_key", "right_key")
FEW_KEYS = 20
MOST_AHEAD = 100_000
_ROW = ("left_key", "right_key", "image", "base_left", "base_right", "run_id")


@dataclass(frozen=True, slots=True)
class KeptLink:
    """A link that a segment holds, as a `Link` has it.

    opened: its base in clear; None where the rule keeps none.
    """

    rule_id: UUID
    left_key: str
    right_key: str
    left_hash: bytes
    right_hash: bytes
    left_image: str
    right_image: str
    run_id: UUID
    opened: tuple[str | None, str | None] | None = None
    state: str = Link.State.LIVE.value
    pk: None = None

    @property
    def has_base(self) -> bool:
        """As `Link.has_base`."""
        return self.opened is not None

    def base(self) -> tuple[str | None, str | None]:
        """As `Link.base`."""
        return self.opened or (None, None)


@dataclass(frozen=True, slots=True)
class _Rows:
    """Links as a segment holds them: columns `_ROW`.

    hashed: `image` is the hash of the base already.
    """

    table: pa.Table
    hashed: bool

    def instances(self, rule_id: UUID) -> Iterator[KeptLink]:
        columns = [self.table.column(name).to_pylist() for name in _ROW]
        for row in zip(*columns, strict=True):
            yield _instance(rule_id, *row, hashed=self.hashed)

    def images(self) -> tuple[pa.Array, pa.Array] | None:
        """The hashes of both images of the bases; None where there is no base."""
        if self.hashed:
            image = self.table.column("image")
            return image, image
        return _base_hashes(self.table)

    def bases(self) -> pa.Table:
        """Those that have one (schema `BASES`)."""
        left, right = (self.table.column(f"base_{side}") for side in ("left", "right"))
        has_base = pc.or_(left.is_valid(), right.is_valid())
        table = pa.table(
            [*(self.table.column(name) for name in KEYS), _records(left), _records(right)],
            schema=BASES,
        )
        return table.filter(has_base)

    def only(self, side: str, keys: pa.Array) -> _Rows:
        """Those with one of these keys of a side."""
        chosen = pc.is_in(self.table.column(f"{side}_key"), value_set=keys)
        return _Rows(self.table.filter(chosen), self.hashed)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What was read at once. keys: of each side, all that was asked for."""

    keys: Mapping[str, set[str]]
    rows: Sequence[_Rows]

    def of(self, side: str, keys: Sequence[str]) -> Iterator[_Rows]:
        """What is there of those of these keys that were read."""
        wanted = pa.array([key for key in keys if key in self.keys[side]], pa.string())
        for rows in self.rows if len(wanted) else ():
            chosen = rows.only(side, wanted)
            if chosen.table.num_rows:
                yield chosen


class SegmentLinks:
    """The links of one rule that are kept in segments."""

    def __init__(self, rule_id: UUID) -> None:
        self.rule_id = rule_id
        self.segments = list(Segment.objects.filter(rule_id=rule_id, linked=True).order_by("pk"))
        self._ahead: _Ahead | None = None

    def __bool__(self) -> bool:
        return bool(self.segments)

    @cached_property
    def _parts(self) -> dict[int, list[SegmentPart]]:
        found: dict[int, list[SegmentPart]] = defaultdict(list)
        for part in SegmentPart.objects.filter(segment__in=self.segments):
            found[part.segment_id].append(part)
        return found

    @cached_property
    def _hidden(self) -> dict[str, pa.Array]:
        """The keys of either side that rows stand for."""
        rows = Link.objects.filter(rule_id=self.rule_id).values_list(*KEYS)
        columns = list(zip(*rows.iterator(chunk_size=50_000), strict=True)) or [(), ()]
        return {name: pa.array(keys, pa.string()) for name, keys in zip(KEYS, columns, strict=True)}

    @property
    def cross(self) -> bool:
        """Whether the two keys of some link may differ."""
        return any(segment.crossed for segment in self.segments)

    def count(self) -> int:
        """How many there are."""
        return sum(int(pc.sum(mask).as_py() or 0) for _, _, mask in self._living())

    def at_least(self, rows: int) -> int:
        """How many there are at least, where so many rows may stand over them; opens no segment."""
        plain = sum(s.rows for s in self.segments if _is_plain(s, self._parts[s.pk]))
        return max(0, plain - rows)

    def any(self) -> bool:
        """Whether there is one."""
        return any(pc.any(mask).as_py() for _, _, mask in self._living())

    def batches(self, *, images: bool = True) -> Iterator[pa.Table]:
        """All of them (schema `LINKS`), in bounded memory.

        The images are those of the base, empty where the rule keeps none or nobody needs them.
        """
        for opened, table, mask in self._living():
            found = _image_columns(opened.file, mask) if images else None
            yield _links(table.filter(mask), found)

    def hold_values(self, types: Mapping[str, NeutralType]) -> bool:
        """Whether bases are kept as values of these types, judged by the first segment."""
        return bool(self.segments) and _keeps_base(OpenSegment(self.segments[0]).file, types)

    def values(
        self, types: Mapping[str, NeutralType]
    ) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        """All of them: both keys, and beside them the values of the base.

        None where a segment keeps no base in these types.
        """
        for opened, table, mask in self._living():
            values = opened.file.values() if _keeps_base(opened.file, types) else None
            yield (
                table.select(KEYS).filter(mask),
                None if values is None else values.filter(mask),
            )

    def _living(self) -> Iterator[tuple[OpenSegment, pa.Table, pa.Array]]:
        """Each segment, its light columns, and which of its rows are links."""
        for segment in self.segments:
            opened, table, mask = self._opened(segment)
            for name, keys in self._hidden.items():
                if len(keys):
                    mask = pc.and_(mask, pc.invert(pc.is_in(table.column(name), value_set=keys)))
            if isinstance(mask, pa.ChunkedArray):
                mask = mask.combine_chunks()
            yield opened, table, mask

    def _opened(self, segment: Segment) -> tuple[OpenSegment, pa.Table, pa.Array]:
        """A segment, its keys, and which of its rows are links if no row stands over them."""
        opened, parts = OpenSegment(segment), self._parts[segment.pk]
        names = KEYS if segment.crossed else KEYS[:1]
        if _is_plain(segment, parts):
            table = opened.file.columns(names)
            mask = pa.repeat(pa.scalar(value=True), table.num_rows)
        else:
            table = opened.light(names)
            mask = opened.linked(table, parts)
        if not segment.crossed:
            table = table.append_column(KEYS[1], table.column(KEYS[0]))
        return opened, table, mask

    def look_ahead(self, lefts: Sequence[str], rights: Sequence[str]) -> None:
        """Read what these keys have at once: what is asked of them later opens no segment again.

        Whether rows stand over it is asked each time. Beyond MOST_AHEAD keys nothing is kept.
        """
        keys = {"left": set(lefts), "right": set(rights)}
        if not self.cross:  # both keys of a link are the same
            keys = dict.fromkeys(keys, keys["left"] | keys["right"])
        if self.segments and 0 < max(map(len, keys.values())) <= MOST_AHEAD:
            self._ahead = _Ahead(keys, list(self._read(keys)))

    def of(self, side: str, keys: Sequence[str]) -> list[KeptLink]:
        """The links that these keys of a side have, with their bases."""
        entries = self.entries(side, keys)
        lefts, rights = self._covered(
            [e.left_hash for e in entries], [e.right_hash for e in entries]
        )
        return [e for e in entries if e.left_hash not in lefts and e.right_hash not in rights]

    def entries(self, side: str, keys: Sequence[str]) -> list[KeptLink]:
        """The same, with those that rows stand over."""
        found = self._found(side, keys)
        return [link for rows in found for link in rows.instances(self.rule_id)]

    def table_of(self, side: str, keys: Sequence[str]) -> pa.Table:
        """The links that these keys of a side have (schema `LINKS`)."""
        found = self._found(side, keys)
        return self._uncovered(LINKS, [_links(r.table, r.images()) for r in found])

    def bases_of(self, side: str, keys: Sequence[str]) -> pa.Table:
        """The bases that the links of these keys of a side have (schema `BASES`)."""
        return self._uncovered(BASES, [rows.bases() for rows in self._found(side, keys)])

    def _uncovered(self, schema: pa.Schema, tables: Sequence[pa.Table]) -> pa.Table:
        """What no row stands over of tables with both keys."""
        found = pa.concat_tables([schema.empty_table(), *tables])
        if not found.num_rows:
            return found
        hashes = self._hashes(found)
        covered = self._covered(*hashes)
        if not any(covered):
            return found
        stays = [a not in covered[0] and b not in covered[1] for a, b in zip(*hashes, strict=True)]
        return found.filter(pa.array(stays, pa.bool_()))

    def _hashes(self, found: pa.Table) -> tuple[list[bytes], list[bytes]]:
        """Of the left and the right keys."""
        lefts, rights = (found.column(name) for name in KEYS)
        hashes = [key_hash(key) for key in lefts.to_pylist()]
        if not self.cross:
            return hashes, hashes
        return hashes, [key_hash(key) for key in rights.to_pylist()]

    def _found(self, side: str, keys: Sequence[str]) -> Iterator[_Rows]:
        """What segments hold of these keys of a side."""
        if not self.segments:
            return
        ahead = self._ahead
        if ahead is not None:
            yield from ahead.of(side, keys)
            keys = [key for key in keys if key not in ahead.keys[side]]
        if keys:
            yield from self._read({side: keys})

    def _read(self, keys: Mapping[str, Collection[str]]) -> Iterator[_Rows]:
        """What segments hold of any of these keys, by side; opens each that may hold one."""
        wanted = {side: pa.array(list(some), pa.string()) for side, some in keys.items()}
        for segment in self._holding(keys):
            opened, table, links = self._opened(segment)
            named = [
                pc.is_in(table.column(f"{side}_key"), value_set=values)
                for side, values in wanted.items()
            ]
            mask = pc.and_(links, named[0] if len(named) == 1 else pc.or_(*named))
            if isinstance(mask, pa.ChunkedArray):
                mask = mask.combine_chunks()
            places = pc.indices_nonzero(mask).to_pylist()
            if places:
                typed = opened.file.typed
                hashed = typed is not None and typed.based
                yield _Rows(opened.file.take(places).select(_ROW), hashed=hashed)

    def key_of(self, side: str, digest: bytes) -> str:
        """The key of a side whose hash this is; empty where no link has it."""
        own = Segment.objects.filter(pk__in=[segment.pk for segment in self.segments])
        chosen = set(segments_of_digest(own, side, digest))
        for segment in self.segments:
            if segment.pk in chosen:
                keys = OpenSegment(segment).file.columns([f"{side}_key"]).column(0).to_pylist()
                for key in keys:
                    if key and key_hash(key) == digest:
                        return str(key)
        return ""

    def _holding(self, keys: Mapping[str, Collection[str]]) -> list[Segment]:
        """The segments that may hold one of the keys."""
        if sum(map(len, keys.values())) > FEW_KEYS:
            return self.segments
        own = Segment.objects.filter(pk__in=[segment.pk for segment in self.segments])
        ids = {
            pk
            for side, some in keys.items()
            for key in some
            for pk in segments_of_key(own, side, key)
        }
        return [segment for segment in self.segments if segment.pk in ids]

    def _covered(
        self, lefts: Sequence[bytes], rights: Sequence[bytes]
    ) -> tuple[set[bytes], set[bytes]]:
        """Those of these left and right keys' hashes that rows stand for."""
        left, right = (
            {bytes(row[0]) for row in rows_of_hashes(self.rule_id, s, h, [f"{s}_hash"], gone=True)}
            for s, h in (("left", lefts), ("right", rights))
        )
        return left, right


def _is_plain(segment: Segment, parts: Sequence[SegmentPart]) -> bool:
    """Whether all rows are links: nothing but inserts, all of them applied as planned."""
    if segment.compacted or not parts:
        return not segment.compacted
    settled = all(part.settled_through >= part.last_sequence for part in parts)
    return settled and all(name.endswith(" ") for part in parts for name in part.counts)


def _keeps_base(file: ChangeFile, types: Mapping[str, NeutralType]) -> bool:
    typed = file.typed
    return typed is not None and typed.based and dict(typed.types) == dict(types)


def _image_columns(file: ChangeFile, mask: pa.Array) -> tuple[pa.Array, pa.Array] | None:
    """The hashes of both images of the chosen rows' bases; None where the file keeps no base."""
    typed, values = file.typed, file.values()
    if typed is not None and values is not None:
        if not typed.based:
            return None
        hashes = pa.array(image_hashes(values.filter(mask), typed.types), pa.string())
        return hashes, hashes
    return _base_hashes(file.columns(["base_left", "base_right"]).filter(mask))


def _base_hashes(table: pa.Table) -> tuple[pa.Array, pa.Array] | None:
    """The hashes of bases that are texts; None where there are none."""
    left, right = (table.column(f"base_{side}") for side in ("left", "right"))
    if right.null_count == table.num_rows:
        return None
    hashes = (
        pa.array([base_hash(text) for text in column.to_pylist()], pa.string())
        for column in (left, right)
    )
    first, second = hashes
    return first, second


def _links(table: pa.Table, images: tuple[pa.Array, pa.Array] | None) -> pa.Table:
    """Links (schema `LINKS`) from their keys, and the images where they are known."""
    empty = pa.repeat(pa.scalar("", pa.string()), table.num_rows)
    state = pa.repeat(pa.scalar(Link.State.LIVE.value, pa.string()), table.num_rows)
    keys = [table.column(name) for name in KEYS]
    return pa.table([*keys, *(images or (empty, empty)), state], schema=LINKS)


def _instance(
    rule_id: UUID,
    left_key: str,
    right_key: str,
    image: str | None,
    base_left: str | None,
    base_right: str | None,
    run_id: str,
    *,
    hashed: bool,
) -> KeptLink:
    opened = None
    images = (image or "", image or "")
    if base_left is not None or base_right is not None:
        opened = (_record(base_left), _record(base_right))
        if not hashed:
            images = (base_hash(base_left), base_hash(base_right))
    return KeptLink(
        rule_id,
        left_key,
        right_key,
        key_hash(left_key),
        key_hash(right_key),
        *images,
        UUID(run_id),
        opened,
    )


def _records(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bases as texts; NULL where there was no record."""
    return pc.if_else(pc.equal(texts, NO_RECORD), pa.scalar(None, pa.string()), texts)


def _record(text: str | None) -> str | None:
    return None if text in (None, NO_RECORD) else text


def base_hash(text: str | None) -> str:
    """The hash of a base's image (JSON), whatever the order of its fields; empty: no record."""
    record = _record(text)
    return "" if record is None else image_hash(orjson.loads(record))
