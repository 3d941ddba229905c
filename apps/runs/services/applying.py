"""Applying: exactly the planned changes, each under its precondition, batch by batch.

A batch is written at the target in one transaction, then settled here in one transaction. A crash
between the two leaves the batch in doubt: whoever takes the partition over applies it again, and
the target's compare-and-set answers ALREADY for what had got through.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import orjson
import pyarrow as pa

from apps.connectors.base import (
    ChangeBatch,
    Operation,
    WriteProblem,
    WriteSession,
    WriteStatus,
)
from apps.engine.codec import decode_images, decode_keys
from apps.ledger.models import Change
from apps.ledger.selectors import PlannedChange, PlanReader
from apps.ledger.services import Refusal, WorkIdentity, record_rejections, settle
from apps.runs.models import Partition, Run
from apps.runs.services.context import RunContext, load_context
from apps.runs.services.leasing import Lease
from apps.runs.services.rejecting import from_target

_COUNTER = {"insert": "inserted", "update": "updated", "delete": "deleted"}


class PartitionApply:
    """Applies one partition's plan."""

    def __init__(self, partition: Partition, lease: Lease) -> None:
        self.partition = partition
        self.lease = lease
        self.plan = PlanReader(partition.pk)
        self.context: RunContext = load_context(partition.run)
        self.work = WorkIdentity(partition.run.rule_id, partition.run_id, partition.pk)
        self.key_types = {
            name: self.context.right.field(name).type for name in self.context.mapping.key
        }
        used = {field.name: field.type for field in self.context.right.fields}
        self.types = {**self.context.right_types, **used}
        # The stream lane is chosen only for a rule without links.
        self.first_links = partition.run.lane == Run.Lane.STREAM
        names = ("inserted", "updated", "deleted", "stale", "rejected", "bytes_written")
        self.counters = {name: getattr(partition, name) for name in names}

    def execute(self) -> None:
        context = self.context
        if not self.plan.next(self.partition.applied_sequence, 1):
            self._done()
            return
        session = context.right_connector.write_session(
            context.right, lock=self._lock_name(), lease_seconds=self.lease.remaining
        )
        with session as writer:
            self.lease.fence()
            while batch := self._next_batch():
                self.lease.check()
                self._apply_and_settle(writer, batch)
        self._done()

    def _lock_name(self) -> str:
        part = self.partition
        return f"lockstep:{part.run.rule_id}:{part.number if part.range_field else 'all'}"

    def _next_batch(self) -> list[PlannedChange]:
        rows = self.context.right_connector.capabilities.batch_rows
        return self.plan.next(self.partition.applied_sequence, rows)

    def _apply_and_settle(self, writer: WriteSession, batch: Sequence[PlannedChange]) -> None:
        problems = self._write(writer, batch)
        waiting = [c for c in batch if _lacks_reference(problems.get(c.sequence))]
        while waiting and len(waiting) < len(batch):  # a record may refer to one after it
            again = self._write(writer, waiting)
            for change in waiting:
                problems.pop(change.sequence, None)
            problems.update(again)
            left = [c for c in waiting if _lacks_reference(problems.get(c.sequence))]
            if len(left) == len(waiting):
                break
            waiting = left
        self._settle(batch, problems)

    def _write(
        self, writer: WriteSession, batch: Sequence[PlannedChange]
    ) -> dict[int, WriteProblem]:
        problems: dict[int, WriteProblem] = {}
        for (operation, fields), group in groupby(batch, key=lambda c: (c.operation, c.fields)):
            changes = list(group)
            change_batch = self._change_batch(Operation(operation), fields, changes)
            result = writer.apply(change_batch, self.lease.fence)
            self.counters["bytes_written"] += result.bytes_written
            for index, problem in result.exceptions.items():
                if problem.status is not WriteStatus.ALREADY:
                    problems[changes[index].sequence] = problem
        return problems

    def _change_batch(
        self, operation: Operation, fields: Sequence[str], changes: Sequence[PlannedChange]
    ) -> ChangeBatch:
        key = decode_keys([change.right_key for change in changes], self.key_types)
        before = after = None
        if operation is not Operation.INSERT:
            before = self._images([change.before for change in changes])
        if operation is not Operation.DELETE:
            after = self._images([change.after for change in changes])
        return ChangeBatch(operation, key, before, after)

    def _images(self, images: Sequence[str]) -> pa.Table:
        types = {name: self.types[name] for name in orjson.loads(images[0])}
        return decode_images(images, types)

    def _settle(self, batch: Sequence[PlannedChange], problems: dict[int, WriteProblem]) -> None:
        refused = {sequence: _refusal(problem) for sequence, problem in problems.items()}
        rejected = [
            from_target(change, problems[change.sequence])
            for change in batch
            if change.sequence in problems
            and problems[change.sequence].status is WriteStatus.REJECTED
        ]
        for change in batch:
            problem = problems.get(change.sequence)
            name = _COUNTER[change.operation] if problem is None else problem.status.value
            self.counters[name] += 1
        last = batch[-1].sequence
        with self.lease.transaction():
            settle(self.work, batch, refused, first_links=self.first_links)
            record_rejections(self.work, rejected)
            self.lease.update(applied_sequence=last, **self.counters)
        self.partition.applied_sequence = last

    def _done(self) -> None:
        self.lease.update(state=Partition.State.DONE, lease_until=None)


def _lacks_reference(problem: WriteProblem | None) -> bool:
    return problem is not None and problem.code == "record.reference_missing"


def _refusal(problem: WriteProblem) -> Refusal:
    stale = problem.status is WriteStatus.STALE
    message = problem.message or (
        "the record moved after it was planned; the next run plans it again" if stale else ""
    )
    return Refusal(
        Change.Outcome.STALE if stale else Change.Outcome.REJECTED,
        problem.code or ("record.stale" if stale else "record.invalid"),
        message,
        problem.field,
    )


def apply(partition: Partition, lease: Lease) -> None:
    """Apply one partition's plan."""
    PartitionApply(partition, lease).execute()
