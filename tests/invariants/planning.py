"""One plan for the records of many histories, and what each of them keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from apps.ledger.selectors import PlannedChange
from tests.invariants.histories import Step
from tests.invariants.plays import ROOM, Play, Work, owner
from tests.invariants.rules_at_work import Planned, RuleAtWork
from tests.invariants.setups import Record

Records = Mapping[str, Record]


def plan_together(rule: RuleAtWork, number: int, waiting: Sequence[tuple[Play, Step]]) -> None:
    """Plan a rule for the histories whose step it is; somebody may edit between the two reads."""
    owners = pa.array([play.number for play, _ in waiting], pa.int64())
    left, lefts = rule.left.read()
    writes = {play.number: play.journal.writes for play, _ in waiting}
    for play, step in waiting:
        play.person(step[2])
    right, rights = rule.right.read()
    ledgers = [play.ledgers[number] for play, _ in waiting]
    planned = rule.plan(
        _of(left, owners),
        _of(right, owners),
        [link for ledger in ledgers for link in ledger.links],
        [decision for ledger in ledgers for decision in ledger.decisions],
    )
    shares = _shares(planned)
    for play, _ in waiting:
        share = shares.get(play.number, Planned([], [], [], []))
        _keep(rule, play, number, share, {"left": lefts, "right": rights})
        play.work[number].writes = writes[play.number]


def _of(table: pa.Table, owners: pa.Array) -> pa.Table:
    return table.filter(pc.is_in(pc.divide(table.column("id"), ROOM), value_set=owners))


def _shares(planned: Planned) -> dict[int, Planned]:
    """What a plan says of each history."""
    shares: dict[int, Planned] = {}
    for name in ("changes", "conflicts", "refreshes", "gone"):
        for row in getattr(planned, name):
            key = owner(row["left_key"] or row["right_key"])
            share = shares.setdefault(key, Planned([], [], [], []))
            getattr(share, name).append(row)
    return shares


def _keep(
    rule: RuleAtWork, play: Play, number: int, share: Planned, sides: Mapping[str, Records]
) -> None:
    ledger = play.ledgers[number]
    changes = [_change(rule, row, sides[row["side"]]) for row in share.changes]
    linked = {link.keys for link in ledger.links}
    for change in changes:
        if change.operation == "delete" and (change.left_key, change.right_key) not in linked:
            play.failures.append(f"a record that was never linked is to be deleted: {change}")
    ledger.take_plan(share.refreshes, share.gone, share.conflicts)
    asked = {_identity(conflict) for conflict in share.conflicts}
    ledger.decisions = [d for d in ledger.decisions if _identity(d) not in asked and changes]
    work = Work(play.work[number].number + 1, changes)
    work.sides = tuple(own(play, sides[name]) for name in ("left", "right"))
    work.is_empty = not (share.changes or share.refreshes or share.gone)
    play.work[number] = work


def own(play: Play, records: Records) -> dict[str, Record]:
    """The records of a history, without what triggers write."""
    return {
        key: {name: value for name, value in record.items() if name != "stamp"}
        for key, record in records.items()
        if owner(key) == play.number
    }


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["kind"], row["left_key"], row["right_key"]


def _change(rule: RuleAtWork, row: Mapping[str, Any], records: Records) -> PlannedChange:
    """A row as the ledger keeps it: the image before a delete holds the whole record."""
    own = row[f"{row['side']}_key"] or ""
    before = row["before"] or ""
    if row["operation"] == "delete":
        before = orjson.dumps({**records.get(own, {}), **orjson.loads(before)}).decode()
    return PlannedChange(
        sequence=next(rule.numbers),
        operation=row["operation"],
        left_key=row["left_key"] or "",
        right_key=row["right_key"] or "",
        key_after=row["key_after"] or own,
        fields=tuple(row["fields"]),
        before=before,
        after=row["after"] or "",
        image=row["image"] or "",
        side=row["side"],
        base_left=row["base_left"] or "",
        base_right=row["base_right"] or "",
        cause=row["cause"],
    )
