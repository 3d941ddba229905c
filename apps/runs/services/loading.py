"""Loading: a first run into an empty dataset, in one pass and one transaction.

1. The target opens a transaction that nobody can see into and keeps other writers out.
2. Records flow: read, through the program (not in a relay), into that transaction, and at the same
   time into the ledger as the plan.
3. All are there: the plan is complete and durable, and the guards judge it. If it has to wait for
   a person or is refused, the transaction is taken back and the plan stands as any other.
4. The partition says that it is about to be written; the target commits; the plan is settled.

A crash before the commit leaves nothing behind, and the partition is planned anew. After it the
partition is to be applied and in doubt: a stream's plan is applied record by record, where the
compare-and-set finds that everything is there already; a relay's, which holds keys alone, is
compared with the keys of the target (`resume_relay`).

Whatever the target refuses takes everything back. A relay is then tried as a stream, a stream
record by record, which finds the record that is to blame.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Generic, Self, TypeVar

import pyarrow as pa

from apps.connectors.base import ExportPiece, LoadRefused, LoadSession
from apps.connectors.prefetching import prefetched
from apps.core.clock import now
from apps.engine.codec import key_column
from apps.engine.program import LEFT_KEY, RIGHT_KEY
from apps.engine.transform import cursor_maximum
from apps.ledger.models import Side
from apps.ledger.selectors import PlanReader
from apps.ledger.services import (
    LoadPlan,
    WorkIdentity,
    discard_plan,
    note_passed,
    settle_load,
)
from apps.runs.models import Partition, Run, RunLog, RunStatus
from apps.runs.services.context import load_context
from apps.runs.services.dispatching import dispatch
from apps.runs.services.intake import Intake
from apps.runs.services.lanes import why_no_load
from apps.runs.services.leasing import Lease
from apps.runs.services.logs import log
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.programs import transformer
from apps.runs.services.reviewing import passes_review
from apps.runs.services.storing import note_cursors

QUEUE_BATCHES = 3
QUEUE_PIECES = 16
LOAD_ROWS = 50_000
SWITCH_SECONDS = 0.0005

T = TypeVar("T")


class _Background:
    """Runs one function in a thread of its own; its error is raised where the body goes on.

    A context manager. Leaving it waits for the function; leaving with an error asks it to stop.
    """

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._error: BaseException | None = None
        self.stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._error = error

    def check(self) -> None:
        """Raise the function's error, if it has ended with one."""
        if self._error is not None:
            raise self._error

    def go_on(self) -> None:
        """For the function itself: raises where the body has failed."""
        if self.stopped.is_set():
            raise _Stopped

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.stopped.set()
        self._thread.join()
        if kind is None:
            self.check()


class _Stopped(Exception):
    """The body of a `_Background` has failed."""


class _Handover(Generic[T]):
    """What goes from one thread to another, while `check` of either says that the other lives."""

    def __init__(self, depth: int) -> None:
        self._queue: queue.Queue[T | None] = queue.Queue(depth)

    def put(self, item: T | None, check: Callable[[], None]) -> None:
        """Hand over, once there is room. None: there is no more."""
        while True:
            check()
            try:
                self._queue.put(item, timeout=0.5)
            except queue.Full:
                continue
            return

    def items(self, check: Callable[[], None]) -> Iterator[T]:
        while True:
            check()
            try:
                item = self._queue.get(timeout=0.5)
            except queue.Empty:
                continue
            if item is None:
                return
            yield item


class _Load:
    """What relay and stream share. `execute` leaves nothing behind when it raises."""

    def __init__(self, session: PlanSession) -> None:
        self.session = session
        self.context = session.context
        self.fields = tuple(field.right for field in self.context.mapping.fields)
        self.cursor = ""
        self.passed: set[str] = set()

    def execute(self) -> None:
        raise NotImplementedError

    def target(self) -> LoadSession:
        """The target's transaction, to be entered."""
        context, session = self.context, self.session
        writer = context.writer(Side.RIGHT, session.partition)
        found: LoadSession = context.right_connector.load_session(  # type: ignore[assignment]
            context.right, self.fields, lock=writer.lock, lease_seconds=session.lease.remaining
        )
        return found

    def plan(self, *, keep_values: bool) -> LoadPlan:
        return LoadPlan(
            self.session.work,
            self.fields,
            types=self.context.mapped_types if keep_values else {},
            based=self.context.two_way is not None,
            transaction=self.session.lease.transaction,
        )

    def _may_go_on(self, sending: _Background) -> None:
        """For the sending thread, while it waits for its pace."""
        sending.go_on()
        self.session.lease.check()

    def conclude(self, target: LoadSession, plan: LoadPlan) -> None:
        """Everything is on its way: review, commit, settle."""
        session = self.session
        planned, arrived = plan.finish(), target.finish()
        if planned != arrived:
            raise LoadRefused(f"{planned:,} records were read and {arrived:,} arrived")
        session.lease.check()
        if not self._begin(planned):
            return
        target.commit(session.lease.fence)
        size = session.counters["bytes_read"]
        _settle(session.work, session.lease, planned, bytes_written=size)

    def _begin(self, planned: int) -> bool:
        """Say that the plan is complete and about to be written; False where it may not be."""
        session, run = self.session, self.session.run
        moment = now()
        with session.lease.transaction():
            note_passed(run.rule_id, run.pk, sorted(self.passed))
            note_cursors(run, {"cursor_to": self.cursor})
            session.lease.update(**session.counters, planned_inserts=planned)
            session.note(f"Planned: {planned} inserts, {session.counters['rejected']} rejected")
            if not passes_review(run.pk):
                session.lease.update(state=Partition.State.PLANNED, lease_until=None)
                return False
            Run.objects.filter(pk=run.pk).update(status=RunStatus.APPLYING, planned_at=moment)
            session.lease.update(state=Partition.State.TO_APPLY, apply_begun_at=moment)
        return True


class RelayLoad(_Load):
    """The source's bytes into the target, untouched; of the records only the keys are seen."""

    def __init__(self, session: PlanSession) -> None:
        super().__init__(session)
        key = self.context.mapping.key
        self.fields = (*key, *(name for name in self.fields if name not in key))

    def execute(self) -> None:
        context, key = self.context, self.context.mapping.left.key
        pairs = {field.right: field.left for field in context.mapping.fields}
        lefts = [pairs[name] for name in self.fields]
        with ExitStack() as stack:
            target = stack.enter_context(self.target())
            connector, wire = context.left_connector, target.wire
            if wire is None or wire.name not in connector.capabilities.exports:
                raise LoadRefused("the source does not speak the target's format")
            export = stack.enter_context(connector.export(context.left, lefts, wire, key=key))
            if context.rule.cursor_field:
                field = context.rule.cursor_field
                self.cursor = cursor_maximum(export.greatest(field), field) or ""
            plan = self.plan(keep_values=False)
            seen: _Handover[pa.RecordBatch] = _Handover(QUEUE_PIECES)
            sending = _Background(lambda: target.relay(self._passed(pieces, seen, sending)))
            with closing(export.pieces()) as pieces, sending:  # type: ignore[type-var]
                for records in _gathered(seen.items(sending.check)):
                    self._keep(plan, records)
            self.conclude(target, plan)

    def _passed(
        self,
        pieces: Iterator[ExportPiece],
        seen: _Handover[pa.RecordBatch],
        sending: _Background,
    ) -> Iterator[bytes]:
        """The bytes on their way to the target, until the thread that keeps the plan fails."""
        context = self.context
        for piece in pieces:
            self.session.counters["bytes_read"] += len(piece.data)
            seen.put(piece.keys, sending.go_on)
            for pace in (context.left_pace, context.right_pace):
                pace.spend(piece.keys.num_rows, len(piece.data))
                pace.wait(lambda: self._may_go_on(sending))
            yield piece.data
        seen.put(None, sending.go_on)

    def _keep(self, plan: LoadPlan, records: pa.Table) -> None:
        session = self.session
        session.lease.check()
        keys = key_column(records, self.context.left_reader.key_types)
        plan.add(keys, keys, records)
        session.counters["read"] += records.num_rows
        session.show_progress()


def _gathered(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The same records, LOAD_ROWS or somewhat more at a time."""
    waiting: list[pa.RecordBatch] = []
    rows = 0
    for batch in batches:
        waiting.append(batch)
        rows += batch.num_rows
        if rows >= LOAD_ROWS:
            yield pa.Table.from_batches(waiting)
            waiting, rows = [], 0
    if rows:
        yield pa.Table.from_batches(waiting)


class StreamLoad(_Load):
    """Records through filter, expressions and checks into the target."""

    def execute(self) -> None:
        session, context = self.session, self.context
        with ExitStack() as stack:
            program = stack.enter_context(transformer(context.program, session.lookups))
            target = stack.enter_context(self.target())
            plan = self.plan(keep_values=True)
            waiting: _Handover[pa.Table] = _Handover(QUEUE_BATCHES)
            sending = _Background(lambda: self._send(target, waiting, sending))
            with sending:
                side = _Streamed(plan, waiting, sending, list(self.fields))
                intake = Intake(session, side, program, remember=False)
                ended = threading.Event()
                reader = replace(context.left_reader, check=lambda: self._may_read_on(ended))
                everything = reader.everything(context.left_fields, rows=LOAD_ROWS)
                with closing(everything):
                    ahead = prefetched(everything, depth=QUEUE_BATCHES, interrupt=ended.set)
                    intake.take(ahead, moves_cursor=True)
                waiting.put(None, sending.check)
            self.cursor, self.passed = intake.cursor, intake.passed
            self.conclude(target, plan)

    def _may_read_on(self, ended: threading.Event) -> None:
        """For the reading thread, while it waits for its pace."""
        if ended.is_set():
            raise _Stopped
        self.session.lease.check()

    def _send(
        self, target: LoadSession, waiting: _Handover[pa.Table], sending: _Background
    ) -> None:
        pace = self.context.right_pace
        for values in waiting.items(sending.go_on):
            rows = pace.batch_rows(LOAD_ROWS, self.context.right)
            for batch in values.combine_chunks().to_batches(max_chunksize=rows):
                pace.wait(lambda: self._may_go_on(sending))
                target.write(batch)
                pace.spend(batch.num_rows, batch.nbytes)


class _Streamed:
    """Takes what passes the program: into the plan, and on to the target's thread."""

    def __init__(
        self,
        plan: LoadPlan,
        waiting: _Handover[pa.Table],
        sending: _Background,
        fields: list[str],
    ) -> None:
        self._plan = plan
        self._waiting = waiting
        self._sending = sending
        self._fields = fields

    def add_left(self, records: pa.Table) -> None:
        values = records.select(self._fields)
        self._waiting.put(values, self._sending.check)
        self._plan.add(records.column(LEFT_KEY), records.column(RIGHT_KEY), values)

    def add_left_out(self, keys: pa.Table) -> None:
        """What the filter leaves out is not loaded."""

    def add_rejected(self, keys: Iterable[tuple[str | None, str | None]]) -> None:
        """What is rejected is not loaded."""


_ATTEMPTS: dict[str, tuple[type[_Load], ...]] = {
    Run.Lane.RELAY: (RelayLoad, StreamLoad),
    Run.Lane.STREAM: (StreamLoad,),
}


@contextmanager
def _quick_switching() -> Iterator[None]:
    """Threads that hand each other small pieces wait for their turn; 5 ms is long for that."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def load(session: PlanSession) -> bool:
    """Load the partition's records. False: its run is to be planned record by record."""
    if session.run.lane not in _ATTEMPTS or why_no_load(session.context):
        return False
    for attempt in _ATTEMPTS[session.run.lane]:
        try:
            with _quick_switching():
                attempt(session).execute()
        except LoadRefused as refused:
            _fall_back(session, refused.reason, relay=attempt is RelayLoad)
        else:
            return True
    return False


def _fall_back(session: PlanSession, reason: str, *, relay: bool) -> None:
    """Forget an attempt of which the target has kept nothing."""
    way = "through expressions" if relay else "record by record"
    lane = Run.Lane.STREAM if relay or session.context.two_way is None else Run.Lane.RECONCILE
    discard_plan(session.partition.pk)
    session.restart()
    why = f"{way}, because {reason}"[:255]
    with session.lease.transaction():
        Run.objects.filter(pk=session.run.pk).update(lane=lane, lane_reason=why)
        session.lease.update(apply_begun_at=None)
    session.run.lane, session.run.lane_reason = lane, why
    session.note(f"Taken back, now {why}", RunLog.Level.WARNING)


def resume_relay(partition: Partition, lease: Lease) -> None:
    """A relay whose worker was lost at its commit: is it there?

    Holds the target's lock, so that nobody can still be committing it.
    """
    context = load_context(partition.run, lease)
    writer = context.writer(Side.RIGHT, partition)
    with writer.session(lease.remaining):
        missing = set(PlanReader(partition.pk).right_keys())
        planned = len(missing)
        reader = context.right_reader
        with closing(reader.everything(reader.key)) as batches:
            for batch in batches:
                lease.check()
                keys = key_column(pa.Table.from_batches([batch.records]), reader.key_types)
                missing.difference_update(keys.to_pylist())
        lease.fence()
        if missing:
            _begin_again(partition, lease, is_empty=len(missing) == planned)
            return
        run = partition.run
        _settle(WorkIdentity(run.rule_id, run.pk, partition.pk), lease, planned)
    log(partition.run, f"{planned} records had arrived", partition=partition.number)


def _settle(work: WorkIdentity, lease: Lease, planned: int, **counted: int) -> None:
    """All that was planned is there: the partition is done."""
    with lease.transaction():
        settle_load(work)
        lease.update(
            inserted=planned,
            applied_sequence=planned,
            state=Partition.State.DONE,
            finished_at=now(),
            lease_until=None,
            **counted,
        )


def _begin_again(partition: Partition, lease: Lease, *, is_empty: bool) -> None:
    """The relay did not get through: plan the partition anew."""
    run = partition.run
    discard_plan(partition.pk)
    with lease.transaction():
        if not is_empty:
            why = "somebody else has written to the target meanwhile"
            Run.objects.filter(pk=run.pk).update(lane=Run.Lane.RECONCILE, lane_reason=why)
        Run.objects.filter(pk=run.pk).update(status=RunStatus.PLANNING)
        lease.update(state=Partition.State.TO_PLAN, apply_begun_at=None, lease_until=None)
        dispatch([partition.pk])
