"""Applying: exactly the planned changes, each under its precondition, batch by batch.

A batch is written at the target in one transaction, then settled here in one transaction. A crash
between the two leaves the batch in doubt: whoever takes the partition over applies it again, and
the target's compare-and-set answers ALREADY for what had got through.

A two-way plan writes the right side first, then the left one. One side's lock is held at a time,
so that rules which share a dataset cannot wait for one another in a circle. What the target made
of a record is what its link remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import groupby, takewhile

from apps.connectors.base import Operation, WriteProblem, WriteSession, WriteStatus
from apps.core.clock import now
from apps.engine.spec import FieldPolicy
from apps.ledger.models import Change, Side
from apps.ledger.selectors import PlannedChange, PlanReader
from apps.ledger.services import (
    Refusal,
    Stored,
    WorkIdentity,
    record_conflicts,
    record_rejections,
    resolve_conflicts,
    settle,
)
from apps.runs.models import Partition, Run
from apps.runs.services.context import RunContext, load_context
from apps.runs.services.dependents import blocked
from apps.runs.services.leasing import Lease
from apps.runs.services.parking import in_doubt_conflicts
from apps.runs.services.rejecting import from_target
from apps.runs.services.views import LeftViews
from apps.runs.services.writing import SideWriter

_COUNTED_ALIKE = WriteProblem(
    WriteStatus.STALE, "record.stale", "the record was counted to the same value meanwhile"
)
_COUNTER = {"insert": "inserted", "update": "updated", "delete": "deleted"}
_COUNTERS = (
    *("inserted", "updated", "deleted", "inserted_left", "updated_left", "deleted_left"),
    *("stale", "rejected", "in_doubt", "bytes_written"),
)


@dataclass(slots=True)
class BatchOutcome:
    """What became of a batch: problems and what the target gave back, by sequence."""

    problems: dict[int, WriteProblem] = field(default_factory=dict)
    stored: dict[int, Stored] = field(default_factory=dict)

    def lacks_reference(self, change: PlannedChange) -> bool:
        problem = self.problems.get(change.sequence)
        return problem is not None and problem.code == "record.reference_missing"

    def add(self, other: BatchOutcome) -> None:
        self.problems.update(other.problems)
        self.stored.update(other.stored)

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
        self.context: RunContext = load_context(partition.run)
        self.work = WorkIdentity(partition.run.rule_id, partition.run_id, partition.pk)
        self.writers: dict[str, SideWriter] = {}
        self.views = LeftViews(self.context)
        self.counted = counted_fields(self.context)
        # The stream lane is chosen only for a rule without links.
        self.first_links = partition.run.lane == Run.Lane.STREAM
        self.counters = {name: getattr(partition, name) for name in _COUNTERS}
        self.in_doubt = partition.apply_begun_at is not None

    def execute(self) -> None:
        with ExitStack() as closing:
            closing.callback(self.views.close)
            self._begin()
            while batch := self._next_batch():
                self._apply_side(batch)
        self.lease.update(state=Partition.State.DONE, lease_until=None)

    def _begin(self) -> None:
        if not self.in_doubt:
            self.lease.update(apply_begun_at=now())

    def _apply_side(self, batch: list[PlannedChange]) -> None:
        """Apply batches while they are written to the same side, in one session."""
        side = batch[0].side
        with self._writer(side).session(self.lease.remaining) as writer:
            self.lease.fence()
            while batch and batch[0].side == side:
                self.lease.check()
                self._apply_and_settle(writer, batch)
                batch = self._next_batch()

    def _writer(self, side: str) -> SideWriter:
        if side not in self.writers:
            self.writers[side] = self.context.writer(side, self.partition)
        return self.writers[side]

    def _next_batch(self) -> list[PlannedChange]:
        """The next changes, as many as suit their side; all of them are written to one side."""
        part = self.partition
        first = self.plan.next(part.applied_sequence, 1)
        if not first:
            return []
        side = first[0].side
        rows = self._writer(side).batch_rows
        found = self.plan.next(part.applied_sequence, rows)
        return list(takewhile(lambda change: change.side == side, found))

    def _apply_and_settle(self, writer: WriteSession, batch: Sequence[PlannedChange]) -> None:
        outcome = BatchOutcome()
        if self.context.two_way is not None:
            outcome.problems.update(blocked(self.partition.pk, batch))
        outcome.add(self._write(writer, [c for c in batch if c.sequence not in outcome.problems]))
        waiting = [change for change in batch if outcome.lacks_reference(change)]
        while waiting and len(waiting) < len(batch):  # a record may refer to one after it
            outcome.replace(waiting, self._write(writer, waiting))
            left = [change for change in waiting if outcome.lacks_reference(change)]
            if len(left) == len(waiting):
                break
            waiting = left
        self.in_doubt = False
        self._settle(batch, outcome)

    def _write(self, writer: WriteSession, batch: Sequence[PlannedChange]) -> BatchOutcome:
        outcome = BatchOutcome()
        if not batch:
            return outcome
        side = self._writer(batch[0].side)
        for changes in _groups(batch):
            change_batch = side.batch(changes, in_doubt=self.in_doubt)
            options = {"returning": side.returning} if side.returning else {}
            result = writer.apply(change_batch, self.lease.fence, **options)
            self.counters["bytes_written"] += result.bytes_written
            for index, problem in result.exceptions.items():
                change = changes[index]
                if problem.status is not WriteStatus.ALREADY:
                    outcome.problems[change.sequence] = problem
                elif not self.in_doubt and self.counted[change.side].intersection(change.fields):
                    outcome.problems[change.sequence] = _COUNTED_ALIKE
            is_left = changes[0].side == Side.LEFT
            views = self.views.by_key if is_left and self.context.two_way else None
            outcome.stored.update(side.stored(changes, result, views))
        return outcome

    def _settle(self, batch: Sequence[PlannedChange], outcome: BatchOutcome) -> None:
        problems = outcome.problems
        refused = {sequence: _refusal(problem) for sequence, problem in problems.items()}
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
            )
            self._keep_refused(batch, problems)
            self._resolve_decided(batch, problems)
            self.lease.update(applied_sequence=last, **self.counters)
        self.partition.applied_sequence = last

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
        done = [
            change
            for change in batch
            if change.cause == Change.Cause.DECIDED and change.sequence not in problems
        ]
        if done:
            resolve_conflicts(
                self.work.rule_id,
                self.work.run_id,
                left_keys=[change.left_key for change in done if change.left_key],
                right_keys=[change.right_key for change in done if change.right_key],
            )


def counted_fields(context: RunContext) -> dict[str, set[str]]:
    """The fields of each side whose policy is to add both sides' differences."""
    two_way = context.rule.two_way
    policies = two_way.fields if two_way is not None else ()
    rights = {item.field for item in policies if item.policy is FieldPolicy.COUNTER}
    lefts = {spec.left for spec in context.mapping.fields if spec.right in rights}
    return {Side.RIGHT: rights, Side.LEFT: lefts}


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


def _refusal(problem: WriteProblem) -> Refusal:
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
    )


def apply(partition: Partition, lease: Lease) -> None:
    """Apply one partition's plan."""
    PartitionApply(partition, lease).execute()
