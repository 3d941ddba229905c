"""Batches of many histories, written together and settled one by one; workers crash in between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import takewhile

import orjson

from apps.connectors.base import WriteProblem, WriteStatus
from apps.connectors.errors import LeaseLost
from apps.ledger.selectors import PlannedChange
from apps.ledger.services import Stored
from tests.invariants.histories import Crash, Step
from tests.invariants.mini_ledger import APPLIED, NOTHING_STORED, REJECTED, STALE, Kept, MiniLedger
from tests.invariants.planning import own
from tests.invariants.plays import Play, Work, holds_lease, lost_lease
from tests.invariants.rules_at_work import Note, Receipts, RuleAtWork, Written
from tests.invariants.setups import Record

BATCH_ROWS = 3
_BLOCKED = WriteProblem(WriteStatus.STALE, "record.other_half_refused")
Records = Mapping[str, Record]


@dataclass
class Worker:
    """Applies the work of one history. crash: where it dies; twice: it does everything twice."""

    play: Play
    rule: int
    work: Work
    crash: Crash | None
    twice: bool
    written: int = 0
    batch: list[PlannedChange] = field(default_factory=list)
    problems: dict[int, WriteProblem] = field(default_factory=dict)

    def next_batch(self) -> bool:
        """Whether it writes another batch; all of it goes to one side."""
        if self._dies("before") or self.work.is_finished:
            return False
        rest = self.work.changes[self.work.done : self.work.done + BATCH_ROWS]
        self.batch = list(takewhile(lambda change: change.side == rest[0].side, rest))
        self.problems = self._blocked()
        return True

    def _blocked(self) -> dict[int, WriteProblem]:
        """Changes that wait because an earlier one of their record, on the other side, did."""
        kept = self.play.ledgers[self.rule].changes
        refused = [
            item.change for item in kept if item.run == self.work.number and item.outcome != APPLIED
        ]
        found = {}
        for change in self.batch:
            earlier = [other for other in refused if _is_other_half(other, change)]
            inserts = any(other.operation == "insert" for other in earlier)
            if inserts or (earlier and change.cause in ("merged", "decided")):
                found[change.sequence] = _BLOCKED
        return found

    def _dies(self, moment: str) -> bool:
        return (
            self.dies_before_settling() and self.crash is not None and (self.crash.moment == moment)
        )

    def dies_before_settling(self) -> bool:
        return self.crash is not None and self.written >= self.crash.batches

    def dies_before_commit(self) -> bool:
        return self._dies("noted")

    @property
    def ledger(self) -> MiniLedger:
        return self.play.ledgers[self.rule]

    def to_write(self) -> list[PlannedChange]:
        return [change for change in self.batch if change.sequence not in self.problems]


def _is_other_half(one: PlannedChange, other: PlannedChange) -> bool:
    same = (one.left_key and one.left_key == other.left_key) or (
        one.right_key and one.right_key == other.right_key
    )
    return bool(same) and one.side != other.side


def apply_together(rule: RuleAtWork, number: int, waiting: Sequence[tuple[Play, Step]]) -> None:
    """Apply the plans of these histories until they are done or their workers are dead."""
    workers = []
    for play, step in waiting:
        work = play.work[number]
        crash = step[2] if step[0] == "apply" else None
        workers.append(Worker(play, number, work, crash, step[0] == "twice"))
        work.begun = True
    while workers := [worker for worker in workers if worker.next_batch()]:
        for side in ("right", "left"):
            _write_side(rule, side, [w for w in workers if w.batch[0].side == side])
        workers = [worker for worker in workers if not worker.dies_before_settling()]
        for worker in workers:
            worker.written += 1
    _check_undone(rule, number, waiting)


def _check_undone(rule: RuleAtWork, number: int, waiting: Sequence[tuple[Play, Step]]) -> None:
    """What was taken back before anybody wrote is as it was before the run."""
    sides = [rule.left.records(), rule.right.records()]
    for play, _ in waiting:
        work = play.work[number]
        known = work.is_undo and work.is_finished and work.sides
        if known and work.writes == play.journal.writes:
            now = tuple(own(play, records) for records in sides)
            if now != work.sides:
                play.failures.append(f"undone, but not as before: {work.sides} {now}")


def _write_side(rule: RuleAtWork, side: str, workers: Sequence[Worker]) -> None:
    _write_uncommitted(rule, [worker for worker in workers if worker.dies_before_commit()])
    writing = [worker for worker in workers if not worker.dies_before_commit()]
    changes = [change for worker in writing for change in worker.to_write()]
    written = _write(rule, side, writing, changes) if changes else Written()
    for worker in writing:
        if not worker.dies_before_settling():
            _settle(worker, written)


def _write_uncommitted(rule: RuleAtWork, workers: Sequence[Worker]) -> None:
    """These workers keep their receipts, and die."""
    changes = [change for worker in workers for change in worker.to_write()]
    if not changes:
        return
    with suppress(LeaseLost):
        rule.write(changes, _receipts(workers), fence=lost_lease, note=_noting(workers))
    for worker in workers:
        mine = {change.sequence for change in worker.batch}
        worker.ledger.unwritten |= mine & worker.ledger.receipts.keys()


def _receipts(workers: Sequence[Worker]) -> dict[int, Stored]:
    return {n: stored for worker in workers for n, stored in worker.ledger.receipts.items()}


def _noting(workers: Sequence[Worker]) -> Note:
    owners = {change.sequence: worker for worker in workers for change in worker.batch}

    def note(receipts: Receipts) -> None:
        for sequence, stored in receipts.items():
            owners[sequence].ledger.receipts[sequence] = stored

    return note


def _write(
    rule: RuleAtWork, side: str, workers: Sequence[Worker], changes: Sequence[PlannedChange]
) -> Written:
    """Write, and check that what was planned is what came of it."""
    platform = rule.platform(side)
    before = deepcopy(platform.records())
    note = _noting(workers)
    written = rule.write(changes, _receipts(workers), fence=holds_lease, note=note)
    after = platform.records()
    _check_writes(rule, side, workers, written, before, after)
    again = [change for worker in workers if worker.twice for change in worker.to_write()]
    if again:
        second = rule.write(again, _receipts(workers), fence=holds_lease, note=note)
        _check_second(workers, again, written, second)
        if platform.records() != after:
            workers[0].play.failures.append("a batch that was applied twice changed a record twice")
    return written


def _check_second(
    workers: Sequence[Worker],
    again: Sequence[PlannedChange],
    first: Written,
    second: Written,
) -> None:
    owners = {c.sequence: worker.play for worker in workers for c in worker.batch}
    for change in again:
        if change.sequence not in first.problems and change.sequence not in second.already:
            owners[change.sequence].failures.append(f"written twice, not recognised: {change}")


def _check_writes(
    rule: RuleAtWork,
    side: str,
    workers: Sequence[Worker],
    written: Written,
    before: Records,
    after: Records,
) -> None:
    """Each record is as it was, or as the one change of it that was written says."""
    expected = dict(before)
    fields: dict[str, tuple[str, ...]] = {}
    owners: dict[str, Play] = {}
    for worker in workers:
        for change in worker.to_write():
            owners[change.own_key] = worker.play
            if change.sequence in written.problems or change.sequence in written.already:
                continue
            old = expected.pop(change.own_key, {})
            if _lacks(old, change.before):
                worker.play.failures.append(f"written over what had moved: {change} {old}")
            if change.operation != "delete":
                expected[change.own_key] = {**old, **orjson.loads(change.after)}
                fields[change.own_key] = change.fields
    for key in before.keys() | after.keys():
        play = owners.get(key)
        if not _as_planned(workers, expected.get(key), after.get(key)):
            failed = play or workers[0].play
            failed.failures.append(
                f"{side} {key} is not as planned: {expected.get(key)} {after.get(key)}"
            )


def _lacks(record: Record, before: str) -> bool:
    image = orjson.loads(before) if before else {}
    return any(record.get(name) != value for name, value in image.items())


def _as_planned(workers: Sequence[Worker], planned: Record | None, record: Record | None) -> bool:
    """Whether a record is as planned, as far as the platform can keep it."""
    if planned is None or record is None:
        return planned is record
    setup = workers[0].play.scene.setup
    return all(
        name == "stamp" or setup.same(name, planned.get(name), value)
        for name, value in record.items()
    )


def _settle(worker: Worker, written: Written) -> None:
    ledger = worker.ledger
    for change in worker.batch:
        problem = worker.problems.get(change.sequence) or written.problems.get(change.sequence)
        stored = written.stored.get(change.sequence, NOTHING_STORED)
        if problem is None:
            ledger.settle(change, stored, hold=worker.work.is_undo)
            if worker.twice:
                _settle_again(worker, change)
        elif change.sequence in written.doubts and not worker.work.is_undo:
            ledger.doubt(change, written.doubts[change.sequence])
        outcome = APPLIED if problem is None else _outcome(problem)
        is_there = change.sequence in written.already
        worker.play.was_mistaken |= is_there and change.sequence in ledger.unwritten
        found_there = is_there and change.sequence not in ledger.receipts
        after = stored.after or change.after
        ledger.changes.append(
            Kept(change, outcome, worker.work.number, after, is_ours=not found_there)
        )
    ledger.receipts.clear()
    ledger.unwritten.clear()
    worker.work.done += len(worker.batch)


def _settle_again(worker: Worker, change: PlannedChange) -> None:
    ledger = worker.ledger
    before = deepcopy(ledger.links)
    if change.operation != "delete" or not worker.work.is_undo:
        kept = deepcopy(ledger.linked(change))
        if kept is not None and change.operation != "delete":
            ledger.settle(change, hold=worker.work.is_undo)
            if {link.keys for link in before} != {link.keys for link in ledger.links}:
                worker.play.failures.append(f"settled twice, linked otherwise: {change}")
            ledger.links = before


def _outcome(problem: WriteProblem) -> str:
    return STALE if problem.status is WriteStatus.STALE else REJECTED
