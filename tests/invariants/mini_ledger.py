"""A ledger in memory: what a rule has planned, written and linked of one history's records.

Links are settled by the rules of `apps.ledger.services.links`: a change that was written patches
the base of its link with what is stored, for the fields that it brought into step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from apps.ledger.selectors import PlannedChange
from apps.ledger.services import Stored
from tests.invariants.platforms import image_of
from tests.invariants.setups import Record

NO_RECORD = "null"
APPLIED, STALE, REJECTED = "applied", "stale", "rejected"
NOTHING_STORED = Stored()


@dataclass
class Link:
    """What belongs together; an image is None where that side has no record on purpose."""

    left_key: str
    right_key: str
    left: Record | None = None
    right: Record | None = None
    state: str = "live"

    @property
    def keys(self) -> tuple[str, str]:
        return self.left_key, self.right_key


@dataclass(frozen=True)
class Kept:
    """What became of a planned change. is_ours: undo may take it back."""

    change: PlannedChange
    outcome: str
    run: int
    after: str
    is_ours: bool = True

    def images(self) -> tuple[Record | None, Record | None]:
        return image_of(self.change.before), image_of(self.after)


@dataclass
class MiniLedger:
    """All that is kept of one rule and one history.

    receipts: of what was written, or nearly, and is not settled; unwritten: of these, what was
    never committed, though no worker can know.
    """

    links: list[Link] = field(default_factory=list)
    changes: list[Kept] = field(default_factory=list)
    conflicts: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[dict[str, Any]] = field(default_factory=list)
    shown: list[Record] = field(default_factory=list)
    receipts: dict[int, Stored] = field(default_factory=dict)
    unwritten: set[int] = field(default_factory=set)

    def take_plan(
        self,
        refreshes: Iterable[Mapping[str, Any]],
        gone: Iterable[Mapping[str, Any]],
        conflicts: list[dict[str, Any]],
    ) -> None:
        """Keep what a plan says beside its changes, as planning does."""
        for row in refreshes:
            images = (image_of(row["base_left"]), image_of(row["base_right"]))
            self._put(Link(row["left_key"], row["right_key"], *images))
        for row in gone:
            self.links = [
                link for link in self.links if link.keys != (row["left_key"], row["right_key"])
            ]
        self.conflicts = conflicts
        for conflict in conflicts:
            images = (conflict[n] for n in ("left", "right", "base_left", "base_right"))
            self.shown += [image for text in images if (image := image_of(text))]

    def linked(self, change: PlannedChange) -> Link | None:
        """The link of a change, by the key of the side that it is not written to first."""
        sides = ("right_key", "left_key") if change.side == "left" else ("left_key", "right_key")
        for name in sides:
            key = getattr(change, name)
            for link in self.links:
                if key and getattr(link, name) == key:
                    return link
        return None

    def settle(self, change: PlannedChange, stored: Stored = NOTHING_STORED, *, hold: bool) -> None:
        """A change was written. Settling it twice is settling it once."""
        link = self.linked(change)
        if change.operation == "delete" and not hold:
            self.links = [other for other in self.links if other is not link]
            return
        link = link or Link(change.left_key, change.right_key)
        left, right = change.left_key or link.left_key, change.right_key or link.right_key
        if left != link.left_key:  # another record took the key over
            link.left = link.right = None
        own = stored.own_key or change.key_after or change.own_key
        is_left = change.side == "left"
        link.left_key, link.right_key = (own or left, right) if is_left else (left, own or right)
        link.left = _patched(link.left, stored.base_left or change.base_left)
        link.right = _patched(link.right, stored.base_right or change.base_right)
        link.state = "held" if hold else "marked" if change.cause == "marked" else "live"
        self._put(link)

    def doubt(self, change: PlannedChange, patch: str) -> None:
        """The base of these fields is unknown from now on."""
        link = self.linked(change) or Link(change.left_key, change.right_key)
        link.left, link.right = _patched(link.left, patch), _patched(link.right, patch)
        self._put(link)

    def _put(self, link: Link) -> None:
        """Neither of its records belongs to another one any more."""
        others = (
            other
            for other in self.links
            if other.left_key != link.left_key and other.right_key != link.right_key
        )
        self.links = [*others, link]

    def images(self) -> Iterator[Record]:
        """Every image that is kept of the records."""
        for kept in self.changes:
            yield from (image for image in kept.images() if image)
        for link in self.links:
            yield from (image for image in (link.left, link.right) if image)
        yield from self.shown


def _patched(image: Record | None, patch: str) -> Record | None:
    if patch == NO_RECORD:
        return None
    return {**(image or {}), **orjson.loads(patch)} if patch else image
