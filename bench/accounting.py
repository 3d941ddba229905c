"""Where the texts that writers wrote are in the end: on a side, in the ledger, in a conflict.

Two counts must be 0:

lost        A text that its side acknowledged, that no writer removed from that side, that is not
            there in the end, and that is in no image before a change which Lockstep tried to apply
            to that side: Lockstep overwrote it without keeping it.
forgotten   A text that stood on its side while a run read that side from beginning to end, and
            that is nowhere now: not on a side, in no change, base, conflict or rejection. Whoever
            removed it, Lockstep had seen it.

A change that had moved counts as tried: when a worker dies after the target has committed, and
somebody edits the record before another worker looks, nobody can tell that it was written.

A text that a writer overwrote before any run looked at it is nobody's but the writer's.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

import orjson
import psycopg

from bench.editing import TEXTS, Journal, Written
from bench.scene import database_url

if TYPE_CHECKING:
    from apps.ledger.models import Change

PAGE = 5_000
Sides = dict[str, dict[int, dict[str, Any]]]
"""Records by side and key."""


@dataclass(slots=True)
class Kept:
    """What Lockstep keeps of a rule's records.

    overwritten: texts in images before changes that it tried to apply, by side; somewhere: all
    texts it keeps; inserted: (side, key) of the records that it made or tried to.
    """

    overwritten: dict[str, set[str]] = field(
        default_factory=lambda: {"left": set(), "right": set()}
    )
    somewhere: set[str] = field(default_factory=set)
    inserted: set[tuple[str, int]] = field(default_factory=set)


def read_sides(databases: dict[str, str]) -> Sides:
    """All records of both sides."""
    found: Sides = {}
    for side, database in databases.items():
        with psycopg.connect(database_url(database)) as connection:
            rows = connection.execute(f"SELECT id, points, {', '.join(TEXTS)} FROM people")
            names = ("points", *TEXTS)
            found[side] = {row[0]: dict(zip(names, row[1:], strict=True)) for row in rows}
    return found


def read_kept(rule_id: UUID) -> Kept:
    """Read every image that the ledger has of a rule, on both of its shelves."""
    from apps.ledger.models import Change, Conflict, Rejection

    kept = Kept()
    tried = (Change.Outcome.APPLIED, Change.Outcome.IN_DOUBT, Change.Outcome.STALE)
    for change in _changes(rule_id):
        before, after = change.images()
        kept.somewhere |= _texts(before, after)
        if change.outcome in tried:
            kept.overwritten[change.side] |= _texts(before)
            if change.operation == "insert":
                kept.inserted.add((change.side, _number(change.key_now)))
    for conflict in Conflict.objects.filter(rule_id=rule_id).prefetch_related("earlier"):
        kept.somewhere |= _texts(conflict.left, conflict.right, *(conflict.base or ()))
        for earlier in conflict.earlier.all():
            kept.somewhere |= _texts(earlier.left, earlier.right)
    for rejection in Rejection.objects.filter(rule_id=rule_id).iterator():
        kept.somewhere |= _texts(rejection.record())
    for left, right in _bases(rule_id):
        kept.somewhere |= _texts(_image(left), _image(right))
    return kept


def _changes(rule_id: UUID) -> Iterator[Change]:
    """All changes of a rule, run by run: those that are rows, and those in segments."""
    from apps.ledger.models import Change, SegmentPart
    from apps.ledger.selectors import run_changes

    runs = set(Change.objects.filter(rule_id=rule_id).values_list("run_id", flat=True).distinct())
    parts = SegmentPart.objects.filter(segment__rule_id=rule_id)
    runs |= set(parts.values_list("run_id", flat=True).distinct())
    for run_id in runs:
        after_id = None
        while page := run_changes(run_id, after_id=after_id, limit=PAGE):
            yield from page
            after_id = page[-1].pk


def _bases(rule_id: UUID) -> Iterator[tuple[str | None, str | None]]:
    """The bases of all links of a rule, of both shelves."""
    from apps.ledger.selectors import bases_of, link_batches

    for links in link_batches(rule_id):
        keys = links.column("left_key").to_pylist()
        for start in range(0, len(keys), PAGE):
            bases = bases_of(rule_id, keys[start : start + PAGE])
            columns = (bases.column(name).to_pylist() for name in ("left", "right"))
            yield from zip(*columns, strict=True)


def _texts(*images: dict[str, str | None] | None) -> set[str]:
    return {
        text
        for image in images
        if image
        for name, text in image.items()
        if name in TEXTS and text is not None
    }


def _image(text: str | None) -> dict[str, str | None] | None:
    return orjson.loads(text) if text else None


def _number(key: str) -> int:
    return int(orjson.loads(key)[0])


def lost(journal: Journal, sides: Sides, kept: Kept) -> list[Written]:
    """Texts that Lockstep overwrote without keeping them."""
    return [
        item
        for item in journal.written
        if not _stands(item, sides)
        and (item.side, item.text) not in journal.removed
        and item.text not in kept.overwritten[item.side]
    ]


def observed(journal: Journal, readings: Iterable[tuple[float, float]]) -> Iterator[Written]:
    """Texts that no writer touched while one of the readings (begin, end) went on."""
    begins, ends = zip(*sorted(readings), strict=True)
    for item in journal.written:
        place = bisect_left(begins, item.since)
        until = journal.removed.get((item.side, item.text), float("inf"))
        if place < len(begins) and ends[place] < until:
            yield item


def forgotten(seen: Iterable[Written], sides: Sides, kept: Kept) -> list[Written]:
    """Texts that are nowhere any more."""
    there = {record[name] for side in sides.values() for record in side.values() for name in TEXTS}
    return [item for item in seen if item.text not in there and item.text not in kept.somewhere]


def _stands(item: Written, sides: Sides) -> bool:
    record = sides[item.side].get(item.key)
    return record is not None and record[item.field] == item.text


def wrong_points(journal: Journal, sides: Sides) -> list[dict[str, int]]:
    """Records whose points are not the sum of all increments of both sides, on either side."""
    counted = [
        {"key": key, "sum": points, **{name: side[key]["points"] for name, side in sides.items()}}
        for key, points in journal.points.items()
    ]
    return [item for item in counted if not item["sum"] == item["left"] == item["right"]]


def unexplained(journal: Journal, sides: Sides, kept: Kept) -> list[tuple[str, int]]:
    """Records that are there although a writer deleted them, and that Lockstep did not make."""
    return [
        (side, key)
        for (side, key), is_there in journal.is_there.items()
        if not is_there and key in sides[side] and (side, key) not in kept.inserted
    ]
