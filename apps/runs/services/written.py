"""Reading back what was written: the applied changes that an undo takes back, record by record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from apps.connectors.base import Operation
from apps.engine.reversing import ReverseChange, WrittenChange, reverse_of
from apps.ledger.models import Change, Side
from apps.ledger.selectors import (
    ChangeFilter,
    Keys,
    change_by_id,
    record_changes,
    run_changes_backwards,
    run_keys,
)

MOST_VERSIONS = 10_000
APPLIED = Change.Outcome.APPLIED.value
Address = tuple[str, str]
"""A side, and a key there."""


@dataclass(frozen=True, slots=True)
class UndoScope:
    """Which applied changes of a rule are taken back.

    run_id: those of this run; change_ids: just these; else those of one record (left_key,
    right_key, one of them may be empty) that came after the change `after_change`, or after the
    moment `as_of`; with neither, all of them. until: of a record, only what was written until
    then, which is what somebody has looked at: what came later counts as edited since.
    """

    run_id: UUID | None = None
    change_ids: tuple[int, ...] = ()
    left_key: str = ""
    right_key: str = ""
    after_change: int | None = None
    as_of: datetime | None = None
    until: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "run_id": str(self.run_id) if self.run_id else None,
            "change_ids": list(self.change_ids),
            "left_key": self.left_key,
            "right_key": self.right_key,
            "after_change": self.after_change,
            "as_of": self.as_of.isoformat() if self.as_of else None,
            "until": self.until.isoformat() if self.until else None,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> UndoScope:
        return cls(
            run_id=UUID(data["run_id"]) if data["run_id"] else None,
            change_ids=tuple(data["change_ids"]),
            left_key=data["left_key"],
            right_key=data["right_key"],
            after_change=data["after_change"],
            as_of=datetime.fromisoformat(data["as_of"]) if data["as_of"] else None,
            until=datetime.fromisoformat(data["until"]) if data.get("until") else None,
        )

    def newest_first(self, rule_id: UUID) -> Iterator[Change]:
        """The applied changes of the scope, the newest first. May be called again."""
        if self.left_key or self.right_key:
            return self._of_record(rule_id)
        return iter(()) if self.run_id is None else run_changes_backwards(self.run_id, self._wanted)

    def keys(self, rule_id: UUID) -> Iterator[Keys]:
        """Side, keys of both sides and moved key of the same changes, in any order."""
        if self.left_key or self.right_key or self.run_id is None:
            for change in self.newest_first(rule_id):
                yield change.side, change.left_key, change.right_key, change.key_after
        else:
            yield from run_keys(self.run_id, self._wanted)

    @property
    def _wanted(self) -> ChangeFilter:
        return ChangeFilter(outcomes=(APPLIED,), ids=self.change_ids)

    def _of_record(self, rule_id: UUID) -> Iterator[Change]:
        found = record_changes(
            [rule_id], left_key=self.left_key, right_key=self.right_key, limit=MOST_VERSIONS
        )
        bound = change_by_id(self.after_change) if self.after_change is not None else None
        for change in found:
            if bound is not None and not _came_after(change, bound):
                continue
            written_at = change.settled_at or change.planned_at
            if self.as_of is not None and written_at <= self.as_of:
                continue
            if self.until is not None and written_at > self.until:
                continue
            in_run = self.run_id is None or change.run_id == self.run_id
            if change.outcome == APPLIED and in_run:
                yield change


def _came_after(change: Change, bound: Change) -> bool:
    """Whether a change is later than a version; a run's writes to both sides are one version."""
    other_half = change.run_id == bound.run_id and change.side != bound.side
    return (change.planned_at, change.pk) > (bound.planned_at, bound.pk) and not other_half


@dataclass(frozen=True, slots=True)
class Reverse:
    """A reverse change of one record on one side.

    other_key: the record's key on the other side; alone: the scope wrote to this side only.
    """

    side: str
    change: ReverseChange
    other_key: str
    alone: bool

    @property
    def left_key(self) -> str:
        return self.change.key if self.side == Side.LEFT else self.other_key

    @property
    def right_key(self) -> str:
        return self.other_key if self.side == Side.LEFT else self.change.key


@dataclass(slots=True)
class _Overview:
    """Which records have several changes in scope; hashes, so that large runs fit."""

    seen: set[int] = field(default_factory=set)
    several: set[int] = field(default_factory=set)
    pairs: dict[str, set[int]] = field(default_factory=lambda: {"left": set(), "right": set()})

    def note(self, side: str, left: str, right: str, key_after: str) -> None:
        for address in {left if side == Side.LEFT else right, key_after} - {""}:
            mark = hash((side, address))
            (self.several if mark in self.seen else self.seen).add(mark)
        self.pairs[side].add(hash((left, right)))

    def is_single(self, side: str, change: WrittenChange) -> bool:
        keys = {change.key, change.key_after} - {""}
        return not any(hash((side, key)) in self.several for key in keys)

    def is_alone(self, left_key: str, right_key: str) -> bool:
        mark = hash((left_key, right_key))
        return not (mark in self.pairs["left"] and mark in self.pairs["right"])


def reverses(rule_id: UUID, scope: UndoScope) -> Iterator[Reverse]:
    """The reverse changes of a scope, the newest change first."""
    overview = _Overview()
    for keys in scope.keys(rule_id):
        overview.note(*keys)
    entangled: list[tuple[str, str, WrittenChange]] = []
    for change in scope.newest_first(rule_id):
        written, (_, other) = _written(change), _keys(change)
        if overview.is_single(change.side, written):
            yield from _reversed(change.side, other, [written], overview)
        else:
            entangled.append((change.side, other, written))
    for side, other, changes in _records(reversed(entangled)):
        yield from _reversed(side, other, changes, overview)


def _keys(change: Change) -> tuple[str, str]:
    """The key on the side written to, and that on the other one."""
    keys = (change.left_key, change.right_key)
    return keys if change.side == Side.LEFT else (keys[1], keys[0])


def _written(change: Change) -> WrittenChange:
    before, after = change.images_in_clear()
    key, _ = _keys(change)
    return WrittenChange(Operation(change.operation), key, change.key_after or key, before, after)


def _records(
    changes: Iterable[tuple[str, str, WrittenChange]],
) -> Iterator[tuple[str, str, list[WrittenChange]]]:
    """Changes grouped by record, each oldest first; a record keeps its group when its key moves."""
    groups: dict[int, list[WrittenChange]] = {}
    others: dict[int, tuple[str, str]] = {}
    at: dict[Address, int] = {}
    for side, other, change in changes:
        number = at.pop((side, change.key), len(groups))
        groups.setdefault(number, []).append(change)
        others[number] = (side, other)
        at[side, change.key_after] = number
    for number in reversed(groups):
        yield *others[number], groups[number]


def _reversed(
    side: str, other: str, changes: list[WrittenChange], overview: _Overview
) -> Iterator[Reverse]:
    reverse = reverse_of(changes)
    if reverse is not None:
        key = changes[-1].key
        left, right = (key, other) if side == Side.LEFT else (other, key)
        yield Reverse(side, reverse, other, overview.is_alone(left, right))
