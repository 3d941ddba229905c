"""Applying: exactly the planned changes, each under its precondition, batch by batch.

A batch is written at the target in one transaction, then settled here in one transaction. A crash
between the two leaves the batch in doubt: whoever takes the partition over knows by the receipts
what had got through (`receipts`), and applies the rest again. Where no receipts are kept (one-way
rules), the target's compare-and-set answers ALREADY for what had got through.

A two-way plan writes the right side first, then the left one. One side's lock is held at a time,
so that rules which share a dataset cannot wait for one another in a circle. What the target made
of a record is what its link remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, takewhile

from apps.connectors.base import (
    Operation,
    WriteProblem,
    WriteResult,
    WriteSession,
    WriteStatus,
)
from apps.core.clock import now
from apps.ledger.models import Change, Side
from apps.ledger.selectors import PlannedChange, PlanReader, SegmentLinks
from apps.ledger.services import (
    Refusal,
    Stored,
    WorkIdentity,
    forget_receipts,
    keep_decided,
    keep_receipt,
    record_conflicts,
    record_rejections,
    resolve_conflicts,
    settle,
)
from apps.runs.models import Partition, Run
from apps.runs.services.context import RunContext, load_context
from apps.runs.services.dependents import RefusedRecords
from apps.runs.services.leasing import Lease
from apps.runs.services.parking import in_doubt_conflicts
from apps.runs.services.receipts import Fate, Receipts, doubt, fates, noted
from apps.runs.services.rejecting import from_target
from apps.runs.services.rounds import is_torn
from apps.runs.services.views import LeftViews
from apps.runs.services.widening import fields_together, widened
from apps.runs.services.writing import SideWriter

_DONE_BY_ANOTHER = WriteProblem(
    WriteStatus.STALE, "record.stale", "somebody else made the same change meanwhile"
)
_WAITS = WriteProblem(
    WriteStatus.STALE,
    "record.waits",
    "another record has the value that this one takes; tried again once all are written",
)
_MAY_BE_WRITTEN = WriteProblem(
    WriteStatus.IN_DOUBT,
    "record.in_doubt",
    "An earlier attempt may have written this record; what has its key now is another one.",
)
LOOK_AHEAD = 50_000
_COUNTER = {"insert": "inserted", "update": "updated", "delete": "deleted"}
_COUNTERS = (
    *("inserted", "updated", "deleted", "inserted_left", "updated_left", "deleted_left"),
    *("stale", "rejected", "in_doubt", "bytes_written"),
)


@dataclass(slots=True)
class BatchOutcome:
    """What became of a batch: problems and what the target gave back, by sequence.

    doubts: of what moved while it may have got through, what is unknown (`Refusal.doubt`).
    """

    problems: dict[int, WriteProblem] = field(default_factory=dict)
    stored: dict[int, Stored] = field(default_factory=dict)
    doubts: dict[int, str] = field(default_factory=dict)

    def may_follow(self, change: PlannedChange) -> bool:
        """Whether it may get through once others of the batch have."""
        return self._is(change, "record.reference_missing") or self.takes_a_value(change)

    def put_off(self, changes: Sequence[PlannedChange]) -> None:
        """What takes a value that another record has is planned again, once all are written."""
        for change in changes:
            if self.takes_a_value(change):
                self.problems[change.sequence] = _WAITS

    def takes_a_value(self, change: PlannedChange) -> bool:
        """Whether it was refused because another record has the value that it brings."""
        return change.operation == Operation.UPDATE and self._is(change, "record.duplicate")

    def _is(self, change: PlannedChange, code: str) -> bool:
        problem = self.problems.get(change.sequence)
        return problem is not None and problem.code == code

    def add(self, other: BatchOutcome) -> None:
        self.problems.update(other.problems)
        self.stored.update(other.stored)
        self.doubts.update(other.doubts)

    def replace(self, changes: Sequence[PlannedChange], again: BatchOutcome) -> None:
        """These changes were written once more."""
        for change in changes:
            self.problems.pop(change.sequence, None)
        self.add(again)


class PartitionApply:
    """Applies one partition's plan."""

    def __init__(self, partition: Partition, lease: Lease) -> None:
        self.partition = partition
        self.lease = lease
        self.plan = PlanReader(partition.pk)
        self.context: RunContext = load_context(partition.run, lease)
        self.work = WorkIdentity(partition.run.rule_id, partition.run_id, partition.pk)
        self.refused = RefusedRecords(partition.pk)
        self.writers: dict[str, SideWriter] = {}
        self.side: str = Side.RIGHT
        self.views = LeftViews(self.context)
        # The stream lane is chosen only for a rule without links.
        self.first_links = partition.run.lane == Run.Lane.STREAM
        self.counters = {name: getattr(partition, name) for name in _COUNTERS}
        self.in_doubt = partition.apply_begun_at is not None
        self.kept, self.ahead_through = SegmentLinks(partition.run.rule_id), 0
        self.receipts = Receipts.left(partition.pk) if self.in_doubt else Receipts()
        self.has_noted = bool(self.receipts.stored)

    def execute(self) -> None:
        with ExitStack() as closing:
            closing.callback(self.views.close)
            self._begin()
            batch = self._next_batch()
            while batch:
                batch = self._apply_side(batch)
        self.lease.update(state=Partition.State.DONE, lease_until=None)

    def _begin(self) -> None:
        if not self.in_doubt:
            self.lease.update(apply_begun_at=now())

    def _apply_side(self, batch: list[PlannedChange]) -> list[PlannedChange]:
        """Apply batches while they are written to the same side, in one session.

        Returns the first one of the other side; empty: no more.
        """
        side = batch[0].side
        with self._writer(side).session(self.lease.remaining) as writer:
            self.lease.fence()
            self.receipts.ask(writer.committed)
            while batch and batch[0].side == side:
                self.lease.check()
                self._apply_and_settle(writer, batch)
                batch = self._next_batch()
        return batch

    def _writer(self, side: str) -> SideWriter:
        if side not in self.writers:
            self.writers[side] = self.context.writer(side, self.partition)
        return self.writers[side]

    def _next_batch(self) -> list[PlannedChange]:
        """The next changes, as many as suit their side; all of them are written to one side."""
        found = self._planned()
        if found and found[0].side != self.side:
            self.side = found[0].side
            found = self._planned()
        return list(takewhile(lambda change: change.side == self.side, found))

    def _planned(self) -> list[PlannedChange]:
        """The next changes, as many as suit the side that is written to."""
        rows = self._writer(self.side).batch_rows
        return self.plan.next(self.partition.applied_sequence, rows)

    def _look_ahead(self, last: int) -> None:
        """Read the links of many batches at once: each time, segments are opened and decoded."""
        if self.context.two_way is None or not self.kept or last <= self.ahead_through:
            return
        found = self.plan.keys(self.partition.applied_sequence, LOOK_AHEAD)
        lefts, rights = ([keys[side] for keys in found if keys[side]] for side in (1, 2))
        self.kept.look_ahead(lefts, rights)
        self.ahead_through = max((sequence for sequence, _, _ in found), default=last)

    def _apply_and_settle(self, writer: WriteSession, batch: Sequence[PlannedChange]) -> None:
        self._look_ahead(batch[-1].sequence)
        outcome = BatchOutcome()
        if self.context.two_way is not None:
            outcome.problems.update(self.refused.blocked(batch))
        outcome.add(self._write(writer, [c for c in batch if c.sequence not in outcome.problems]))
        waiting = [change for change in batch if outcome.may_follow(change)]
        while waiting and len(waiting) < len(batch):  # a record may rely on one after it
            outcome.replace(waiting, self._write(writer, waiting))
            left = [change for change in waiting if outcome.may_follow(change)]
            if len(left) == len(waiting):
                break
            waiting = left
        taking = [change for change in batch if outcome.takes_a_value(change)]
        if taking:
            self._exchange(writer, taking, outcome)
            if is_torn(self.partition, self._writer(batch[0].side).batch_rows):
                outcome.put_off(taking)
        self._settle(batch, outcome)
        self.in_doubt, self.receipts, self.has_noted = False, Receipts(), False

    def _write(self, writer: WriteSession, batch: Sequence[PlannedChange]) -> BatchOutcome:
        outcome = BatchOutcome()
        if not batch:
            return outcome
        side = self._writer(batch[0].side)
        known = fates(batch, self.receipts, side)
        for change in batch:
            if known.get(change.sequence) is Fate.WRITTEN:
                outcome.stored[change.sequence] = self.receipts.stored[change.sequence]
            elif known.get(change.sequence) is Fate.UNCLEAR:
                self._doubt(change, outcome)
        told = outcome.stored.keys() | outcome.problems.keys()
        for changes in _groups([change for change in batch if change.sequence not in told]):
            outcome.add(self._write_alike(writer, side, changes))
        return outcome

    def _exchange(
        self, writer: WriteSession, waiting: Sequence[PlannedChange], outcome: BatchOutcome
    ) -> None:
        """Write updates together that may take values from one another in a circle, though they
        change different fields, or parts of a unique key."""
        waiting = [change for change in waiting if change.key_after == change.own_key]
        if len(waiting) < 2:
            return
        context, side = self.context, self._writer(waiting[0].side)
        live = context.left_live if waiting[0].side == Side.LEFT else context.right_live
        names = fields_together(side, live, waiting)
        is_known = all(set(change.fields) == set(names) for change in waiting)
        if side.reader.connector.capabilities.exchanges and not is_known:
            waiting.sort(key=lambda change: change.fields)
            again = self._write_alike(writer, side, waiting, widened(side, waiting, names))
            outcome.replace(waiting, again)

    def _doubt(self, change: PlannedChange, outcome: BatchOutcome) -> None:
        """Nobody can tell whether it got through: if it cannot be written now, that is kept."""
        if not change.own_key:
            outcome.problems[change.sequence] = _MAY_BE_WRITTEN
        elif self.partition.run.kind == Run.Kind.SYNC:
            outcome.doubts[change.sequence] = doubt(change, self.context.rule)

    def _write_alike(
        self,
        writer: WriteSession,
        side: SideWriter,
        changes: Sequence[PlannedChange],
        wide: Sequence[PlannedChange] = (),
    ) -> BatchOutcome:
        """Write changes that go into one ChangeBatch. wide: the same, with more fields each."""
        has_views = changes[0].side == Side.LEFT and self.context.two_way is not None
        views = self.views.by_key if has_views else None
        noting = self._keeps_receipts(changes[0])
        stored: dict[int, Stored] = {}

        def note(result: WriteResult) -> None:
            stored.update(side.stored(changes, result, views))
            written = noted(changes, result, stored)
            if written:
                self.has_noted = True
                with self.lease.transaction():
                    keep_receipt(self.work, written, result.transaction)

        result = side.write(
            writer,
            side.batch(
                wide or changes,
                in_doubt=any(map(self._is_in_doubt, changes)),
                written=[change.fields for change in changes] if wide else (),
            ),
            self.lease.fence,
            note=note if noting else None,
        )
        self.counters["bytes_written"] += result.bytes_written
        stored = stored or side.stored(changes, result, views)
        return BatchOutcome(self._problems(changes, result), stored)

    def _problems(
        self, changes: Sequence[PlannedChange], result: WriteResult
    ) -> dict[int, WriteProblem]:
        """What was not written, by sequence."""
        problems: dict[int, WriteProblem] = {}
        for index, problem in result.exceptions.items():
            change = changes[index]
            if problem.status is not WriteStatus.ALREADY:
                problems[change.sequence] = problem
            elif self._is_anothers(change):
                problems[change.sequence] = _DONE_BY_ANOTHER
        return problems

    def _keeps_receipts(self, change: PlannedChange) -> bool:
        """Whether it matters what exactly was stored: for a base, or to find a new key again."""
        return self.context.two_way is not None or not change.own_key

    def _is_in_doubt(self, change: PlannedChange) -> bool:
        """Whether a worker that is lost may have written it."""
        if self._keeps_receipts(change):
            return change.sequence in self.receipts.stored
        return self.in_doubt

    def _is_anothers(self, change: PlannedChange) -> bool:
        """Whether somebody else has made a change of which we find that it is made already.

        It is not ours then: an undo must not take it back, and a counter has counted for them.
        What an undo finds undone needs no further look.
        """
        return not self._is_in_doubt(change) and self.partition.run.kind == Run.Kind.SYNC

    def _settle(self, batch: Sequence[PlannedChange], outcome: BatchOutcome) -> None:
        problems = outcome.problems
        refused = {
            sequence: _refusal(problem, outcome.doubts.get(sequence, ""))
            for sequence, problem in problems.items()
        }
        for change in batch:
            self._count(change, problems.get(change.sequence))
        last = batch[-1].sequence
        with self.lease.transaction():
            settle(
                self.work,
                batch,
                refused,
                stored=outcome.stored,
                first_links=self.first_links,
                hold=self.partition.run.kind == Run.Kind.UNDO,
                kept=self.kept,
            )
            if self.has_noted:
                forget_receipts(self.work)
            self._keep_refused(batch, problems)
            self._resolve_decided(batch, problems)
            self.lease.update(applied_sequence=last, **self.counters)
        self.partition.applied_sequence = last
        self.refused.add(batch, problems.keys())

    def _count(self, change: PlannedChange, problem: WriteProblem | None) -> None:
        name = _COUNTER[change.operation] if problem is None else problem.status.value
        self.counters[name] += 1
        if problem is None and change.side == Side.LEFT:
            self.counters[f"{name}_left"] += 1

    def _keep_refused(
        self, batch: Sequence[PlannedChange], problems: dict[int, WriteProblem]
    ) -> None:
        """What the target refused is a rejection; what is in doubt waits for a person."""
        by_status: dict[WriteStatus, list[PlannedChange]] = {}
        for change in batch:
            if change.sequence in problems:
                by_status.setdefault(problems[change.sequence].status, []).append(change)
        rejected = by_status.get(WriteStatus.REJECTED, [])
        if self.partition.run.kind == Run.Kind.SYNC:
            record_rejections(self.work, [from_target(c, problems[c.sequence]) for c in rejected])
        doubtful = by_status.get(WriteStatus.IN_DOUBT, [])
        if doubtful:
            record_conflicts(self.work, in_doubt_conflicts(doubtful))

    def _resolve_decided(
        self, batch: Sequence[PlannedChange], problems: dict[int, WriteProblem]
    ) -> None:
        decided = [change for change in batch if change.cause == Change.Cause.DECIDED]
        for follow, chosen in (
            (resolve_conflicts, [c for c in decided if c.sequence not in problems]),
            (keep_decided, [c for c in decided if c.sequence in problems]),
        ):
            if chosen:
                follow(
                    self.work.rule_id,
                    self.work.run_id,
                    left_keys=[change.left_key for change in chosen if change.left_key],
                    right_keys=[change.right_key for change in chosen if change.right_key],
                )


def _groups(batch: Sequence[PlannedChange]) -> list[list[PlannedChange]]:
    """The changes in lists that each go into one ChangeBatch, in the order of their first ones.

    A plan holds operations in the order in which they must be written; updates of other fields do
    not depend on each other. Where a change moves a key, only neighbours are joined.
    """
    if any(change.own_key and change.key_after != change.own_key for change in batch):
        return [list(group) for _, group in groupby(batch, key=_alike)]
    groups: dict[tuple[object, ...], list[PlannedChange]] = {}
    for change in batch:
        groups.setdefault(_alike(change), []).append(change)
    return list(groups.values())


def _alike(change: PlannedChange) -> tuple[object, ...]:
    """Changes that are alike here go into one ChangeBatch."""
    assigned = change.operation == Operation.INSERT and not change.own_key
    return change.operation, change.fields, assigned


def _refusal(problem: WriteProblem, doubt: str) -> Refusal:
    stale = problem.status is WriteStatus.STALE
    outcome = {
        WriteStatus.STALE: Change.Outcome.STALE,
        WriteStatus.IN_DOUBT: Change.Outcome.IN_DOUBT,
    }.get(problem.status, Change.Outcome.REJECTED)
    message = problem.message or ("the record moved after it was planned" if stale else "")
    return Refusal(
        outcome,
        problem.code or ("record.stale" if stale else "record.invalid"),
        message,
        problem.field,
        doubt if stale else "",
    )


def apply(partition: Partition, lease: Lease) -> None:
    """Apply one partition's plan."""
    PartitionApply(partition, lease).execute()
