"""Counts of a two-way plan."""

from __future__ import annotations

from dataclasses import dataclass, field

from apps.engine.reconcile.store import Store

_EQUAL = (
    "found f JOIN left_side l ON l.rowid = f.l JOIN right_side r ON r.rowid = f.r WHERE l.h = r.h"
)


@dataclass(frozen=True, slots=True)
class SideCounts:
    """Changes planned for one side, in records."""

    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    marks: int = 0

    @property
    def changes(self) -> int:
        return self.inserts + self.updates + self.deletes + self.marks


@dataclass(frozen=True, slots=True)
class ReconcileSummary:
    """Counts of a plan, in records.

    read_left: left records given, with those left out and rejected; linked: links given;
    unchanged: links of which neither side differs from its image; matched: new pairs;
    agreed:    links and new pairs whose base moves on without a write;
    conflicts: by kind; rejected, stops: what the plan itself keeps out;
    left_alone: records that the left side's filter would leave out, were they written;
    unknown:   links that are left alone because a side could not be read;
    held_back: deletes and marks that are not made because `reason`.
    """

    read_left: int
    read_right: int
    linked: int
    left: SideCounts
    right: SideCounts
    unchanged: int = 0
    matched: int = 0
    agreed: int = 0
    conflicts: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    stops: int = 0
    left_alone: int = 0
    unknown: int = 0
    held_back: int = 0
    reason: str = ""

    @property
    def changes(self) -> int:
        return self.left.changes + self.right.changes


def summarise(store: Store) -> ReconcileSummary:
    """Count what has been planned."""
    counted = store.counted
    conflicts = store.connection.sql("SELECT kind, count(*) FROM conflict GROUP BY kind").fetchall()
    keyless = store.count("rejected WHERE lk IS NULL")
    held = store.count("dropping WHERE held")
    return ReconcileSummary(
        read_left=sum(counted.get(name, 0) for name in ("left_side", "left_out", "rejected")),
        read_right=counted.get("right_side", 0),
        linked=counted.get("links", 0),
        left=_left(store),
        right=_right(store),
        unchanged=counted.get("links", 0) - store.count("link"),
        matched=store.count("found"),
        agreed=store.count("final WHERE agreed") + store.count(_EQUAL),
        conflicts={kind: int(count) for kind, count in conflicts},
        rejected=_refused(store, stop=False),
        stops=_refused(store, stop=True),
        left_alone=counted.get("left_alone", 0),
        unknown=store.count("link WHERE became = 'unknown'"),
        held_back=held,
        reason=_reason(keyless) if keyless else "",
    )


def _left(store: Store) -> SideCounts:
    dropped = _dropped(store, "left")
    return SideCounts(store.count("left_final"), store.count("final WHERE left_write"), *dropped)


def _right(store: Store) -> SideCounts:
    updates = store.count("final WHERE right_write")
    return SideCounts(store.count("right_final"), updates, *_dropped(store, "right"))


def _dropped(store: Store, side: str) -> tuple[int, int]:
    return tuple(  # type: ignore[return-value]
        store.count(f"dropping WHERE side = '{side}' AND operation = '{operation}' AND NOT held")
        for operation in ("delete", "mark")
    )


def _refused(store: Store, *, stop: bool) -> int:
    written = store.count(f"(SELECT DISTINCT id FROM refused_write WHERE stop = {stop})")
    return store.count(f"refused WHERE stop = {stop}") + written


def _reason(keyless: int) -> str:
    return (
        f"{keyless:,} left records could not be read well enough to know their keys, "
        "so an absent record may be one of them"
    )
