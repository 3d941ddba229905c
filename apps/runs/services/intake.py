"""Taking left records in: filter, expressions and checks run over what was read.

What passes goes to the planner (one-way or two-way); what does not is kept as a rejection, and the
planner is told of it so that nothing counts as deleted for being rejected.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import RawRejection, ReadBatch
from apps.engine.execution import Runner
from apps.engine.sandbox import Sandbox
from apps.engine.transform import Transformed, cursor_maximum
from apps.ledger.selectors import open_rejection_keys
from apps.runs.services.cursors import later_cursor
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.reading import Batches
from apps.runs.services.rejecting import check_stopped, from_check, from_reading


class LeftSide(Protocol):
    """What both planners offer for left records."""

    def add_left(self, records: pa.Table) -> None: ...

    def add_left_out(self, keys: pa.Table) -> None: ...

    def add_rejected(self, keys: Sequence[tuple[str | None, str | None]]) -> None: ...


@dataclass(slots=True)
class Intake:
    """Takes batches in, and remembers what the rest of the planning needs of them.

    seen: left keys, candidates: right keys that these would be written to, both only where
    `remember` says so; passed: left keys of open rejections that passed; cursor: the greatest one.
    """

    session: PlanSession
    planner: LeftSide
    transformer: Runner | Sandbox
    remember: bool
    seen: set[str] = field(default_factory=set)
    candidates: set[str] = field(default_factory=set)
    passed: set[str] = field(default_factory=set)
    cursor: str = ""
    _open: pa.Array = field(init=False)

    def __post_init__(self) -> None:
        self._open = pa.array(list(open_rejection_keys(self.session.run.rule_id)), pa.string())

    def take(self, batches: Batches, *, moves_cursor: bool = False) -> None:
        """moves_cursor: these are all records of the window, so that the cursor may move on.

        Records that were read by key came after the window's snapshot and say nothing about it.
        """
        with closing(batches):
            for batch in batches:
                self.session.lease.check()
                if moves_cursor:
                    self._note_cursor(batch)
                self._take(batch)

    def _take(self, batch: ReadBatch) -> None:
        self._count(batch)
        done = self.transformer.run(batch.records)
        self.planner.add_left(done.records)
        self.planner.add_left_out(done.left_out)
        self._keep_rejected(batch.rejected, done)
        self._note_keys(done)
        self.session.show_progress()

    def _note_cursor(self, batch: ReadBatch) -> None:
        name = self.session.context.rule.cursor_field
        if name and batch.records.num_rows:
            self.cursor = later_cursor(self.cursor, cursor_maximum(batch.records, name) or "")

    def _count(self, batch: ReadBatch) -> None:
        counters = self.session.counters
        counters["read"] += batch.records.num_rows + len(batch.rejected)
        counters["bytes_read"] += batch.records.nbytes

    def _keep_rejected(self, raw: Iterable[RawRejection], done: Transformed) -> None:
        session = self.session
        if done.stops:
            session.keep_rejections(from_check(item) for item in done.stops)
            raise check_stopped(session.run, done.stops[0])
        session.counters["warnings"] += sum(done.warnings.values())
        session.counters["left_out"] += done.left_out.num_rows
        unread = [from_reading(item, session.context) for item in raw]
        pairs = [(item.left_key, item.right_key) for item in done.rejected]
        pairs += [(record.left_key or None, None) for record in unread]
        if pairs:
            self.planner.add_rejected(pairs)
            session.reject([*unread, *(from_check(item) for item in done.rejected)])

    def _note_keys(self, done: Transformed) -> None:
        if len(self._open):
            keys = done.records.column("__left_key")
            found = keys.filter(pc.is_in(keys, value_set=self._open))
            self.passed.update(found.to_pylist())
        if self.remember:
            for table in (done.records, done.left_out):
                self.seen.update(table.column("__left_key").to_pylist())
                self.candidates.update(table.column("__right_key").to_pylist())
            self.seen.update(item.left_key for item in done.rejected if item.left_key)
