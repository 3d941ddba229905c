"""Taking the last run of a rule back, for many histories at once.

As `apps.runs.services.undoing`: reverse changes under the precondition of what the run left
behind; links are held with the base that both sides have then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import orjson

from apps.connectors.base import Operation
from apps.engine.reversing import ReverseChange, WrittenChange, reverse_of
from apps.ledger.selectors import PlannedChange
from tests.invariants.histories import Step
from tests.invariants.mini_ledger import APPLIED, NO_RECORD, Kept
from tests.invariants.plays import Play, Work
from tests.invariants.rules_at_work import RuleAtWork
from tests.invariants.setups import Record

Records = Mapping[str, Record]


@dataclass(frozen=True)
class Reverse:
    """alone: the run wrote to this side of the record only."""

    play: Play
    side: str
    change: ReverseChange
    other_key: str
    alone: bool

    @property
    def keys(self) -> tuple[str, str]:
        keys = (self.change.key, self.other_key)
        return keys if self.side == "left" else (keys[1], keys[0])


def undo_together(rule: RuleAtWork, number: int, waiting: Sequence[tuple[Play, Step]]) -> None:
    """Plan the undoing of these histories' last runs."""
    reverses = [item for play, _ in waiting for item in _reverses(play, number)]
    lefts, rights = rule.left.records(), rule.right.records()
    views = rule.views([lefts[item.keys[0]] for item in reverses if item.keys[0] in lefts])
    back = [_put_back(item, lefts) for item in reverses if item.side == "left"]
    views_after = rule.views([record for record in back if record is not None])
    planned: dict[int, list[PlannedChange]] = {play.number: [] for play, _ in waiting}
    for item in reverses:
        bases = _bases(rule, item, views, views_after, rights)
        live = (lefts if item.side == "left" else rights).get(item.change.key, {})
        planned[item.play.number].append(_change(rule, item, live, *bases))
    for play, step in waiting:
        play.work[number] = _undo_of(play, number, planned[play.number])
        play.was_undone = True
        play.steps.insert(1, ("apply", step[1], None))


def _undo_of(play: Play, number: int, changes: list[PlannedChange]) -> Work:
    """The work; where all that the run wrote is taken back, it is known what comes of it."""
    run = play.work[number]
    undo = Work(run.number + 1, changes, is_undo=True, writes=run.writes)
    kept = [item for item in play.ledgers[number].changes if item.run == run.number]
    if kept and all(_is_taken_back(item) for item in kept):
        undo.sides = run.sides
    return undo


def _reverses(play: Play, number: int) -> Iterator[Reverse]:
    """What takes the last run back, the newest change first."""
    run = play.work[number].number
    kept = [k for k in play.ledgers[number].changes if k.run == run and _is_taken_back(k)]
    records: dict[tuple[str, str], list[Kept]] = {}
    for item in kept:
        records.setdefault((item.change.side, item.change.own_key), []).append(item)
    pairs = [(item.change.left_key, item.change.right_key, item.change.side) for item in kept]
    for (side, _), changes in reversed(records.items()):
        reverse = reverse_of([_written(item) for item in changes])
        if reverse is not None:
            last = changes[-1].change
            other, otherwise = (
                (last.right_key, "right") if side == "left" else (last.left_key, "left")
            )
            alone = (last.left_key, last.right_key, otherwise) not in pairs
            yield Reverse(play, side, reverse, other, alone)


def _is_taken_back(kept: Kept) -> bool:
    return kept.outcome == APPLIED and kept.is_ours


def _written(kept: Kept) -> WrittenChange:
    change = kept.change
    return WrittenChange(
        Operation(change.operation), change.own_key, change.key_after, *kept.images()
    )


def _put_back(item: Reverse, lefts: Records) -> Record | None:
    if item.change.operation is Operation.DELETE:
        return None
    return {
        **lefts.get(item.change.key, {"id": item.change.key[2:-2]}),
        **(item.change.after or {}),
    }


def _bases(
    rule: RuleAtWork, item: Reverse, views: Records, views_after: Records, rights: Records
) -> tuple[Record | None, Record | None]:
    left: Record | None = views.get(item.keys[0])
    right: Record | None = _mapped(rule, rights.get(item.keys[1]))
    after = item.change.after or {}
    if item.side == "left":
        left = views_after.get(item.change.key_after)
    elif item.change.operation is Operation.DELETE:
        right = None
    else:
        right = {name: {**(right or {}), **after}.get(name) for name in rule.mapped}
    if item.change.operation is not Operation.UPDATE:
        return left, right
    if item.side == "right":
        return None, {n: v for n, v in (right or {}).items() if n in after}
    now = views.get(item.keys[0], {})
    return {n: v for n, v in (left or {}).items() if n not in now or now[n] != v}, None


def _mapped(rule: RuleAtWork, record: Record | None) -> Record | None:
    return record and {name: record[name] for name in rule.mapped}


def _change(
    rule: RuleAtWork, item: Reverse, live: Record, left: Record | None, right: Record | None
) -> PlannedChange:
    """live: the record as it is now; the image before a delete holds the whole of it."""
    change, before = item.change, item.change.before
    if change.operation is Operation.DELETE:
        before = {**live, **(before or {})}
    own_only = not item.alone or change.operation is Operation.UPDATE
    return PlannedChange(
        sequence=next(rule.numbers),
        operation=change.operation.value,
        left_key=item.keys[0],
        right_key=item.keys[1],
        key_after=change.key_after,
        fields=tuple(change.after or {}),
        before="" if before is None else orjson.dumps(before).decode(),
        after="" if change.after is None else orjson.dumps(change.after).decode(),
        image="",
        side=item.side,
        base_left="" if own_only and item.side == "right" else _text(left),
        base_right="" if own_only and item.side == "left" else _text(right),
        cause="undone",
    )


def _text(image: Record | None) -> str:
    return NO_RECORD if image is None else orjson.dumps(image).decode()
