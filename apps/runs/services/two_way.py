"""Planning a two-way partition: both sides are read, merged field by field, and stored as a plan.

A rule that compares everything reads both sides whole. Else there is a scope: what either side's
cursor shows, what a key sweep of both sides finds, what was carried over, or given keys. Both
sides of every record in scope are looked up, so that a record which is not there is gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from uuid import UUID

import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings

from apps.connectors.base import ReadBatch
from apps.core.clock import now
from apps.engine.codec import encode_keys
from apps.engine.reconcile import Reconciler, ReconcileSummary
from apps.engine.spec import Delta
from apps.engine.transform import cursor_maximum
from apps.ledger.selectors import (
    bases_of,
    decisions_for,
    link_batches,
    links_of_left,
    links_of_right,
)
from apps.ledger.services import record_conflicts, refresh_links
from apps.runs.models import RunLog
from apps.runs.services.carrying import carried_keys
from apps.runs.services.cursors import later_cursor
from apps.runs.services.intake import Intake
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.programs import lookups_for, transformer
from apps.runs.services.reading import Batches
from apps.runs.services.replaying import replayed_batches
from apps.runs.services.scope import keys_in_scope
from apps.runs.services.storing import (
    KEY_COLUMNS,
    STORE_ROWS,
    finish_plan,
    spill_directory,
    store_gone,
    store_plan,
    store_refused,
    with_whole_deletes,
)
from apps.runs.services.sweeping import sweep_both


class _TooNarrow(Exception):
    """New records are matched by fields: only all records of the other side can answer."""


@dataclass(slots=True)
class RightIntake:
    """Takes right records in and remembers what the rest of the planning needs of them."""

    session: PlanSession
    reconciler: Reconciler
    remember: bool
    seen: set[str] = field(default_factory=set)
    cursor: str = ""

    def take(self, batches: Batches, *, moves_cursor: bool = False) -> None:
        """moves_cursor: as `Intake.take`."""
        with closing(batches):
            for batch in batches:
                self.session.lease.check()
                if moves_cursor:
                    self._note_cursor(batch)
                self._take(batch)
                self.session.show_progress()

    def _take(self, batch: ReadBatch) -> None:
        self.session.counters["read_right"] += batch.records.num_rows + len(batch.rejected)
        self.session.counters["bytes_read"] += batch.records.nbytes
        self.reconciler.add_right(batch.records)
        if self.remember:
            table = pa.Table.from_batches([batch.records])
            self.seen.update(encode_keys(table, self.session.context.right_reader.key_types))
        for item in batch.rejected:
            self.reconciler.add_rejected([(None, None)])  # nothing is deleted for absence
            message = f"A right record cannot be read: {item.code} {item.field}"
            self.session.note(message, RunLog.Level.WARNING)

    def _note_cursor(self, batch: ReadBatch) -> None:
        two_way = self.session.context.rule.two_way
        name = two_way.right_cursor_field if two_way else ""
        if name and batch.records.num_rows:
            self.cursor = later_cursor(self.cursor, cursor_maximum(batch.records, name) or "")


class TwoWayPlan:
    """Plans one partition of a two-way rule. The steps are methods; `execute` is their order."""

    def __init__(self, session: PlanSession) -> None:
        self.session = session
        self.run = session.run
        self.context = session.context
        self.keys = keys_in_scope(session.partition)
        self.first_links = False

    @property
    def is_whole(self) -> bool:
        """Whether all records of both sides are read."""
        cursor = self.context.rule.delta is Delta.CURSOR and bool(self.run.cursor_from)
        return not (cursor or self.run.rejection_ids or self.keys is not None)

    def execute(self) -> None:
        try:
            self._plan(whole=self.is_whole)
        except _TooNarrow:
            self.session.note("New records are matched by fields: comparing everything")
            self.session.counters.update(dict.fromkeys(self.session.counters, 0))
            self._plan(whole=True)

    def _plan(self, *, whole: bool) -> None:
        with ExitStack() as stack:
            reconciler, left = self._open(stack, whole=whole)
            right = RightIntake(self.session, reconciler, remember=not whole)
            if whole:
                self._read_whole(reconciler, left, right)
            else:
                self._read_scope(reconciler, left, right)
            reconciler.add_decisions(decisions_for(self.run.rule_id))
            for needed in reconciler.bases_needed(STORE_ROWS):
                reconciler.add_bases(_bases(self.run.rule_id, needed))
            summary = reconciler.plan()
            refused = self._store(reconciler, summary)
            self._finish(summary, left, right, refused)

    def _open(self, stack: ExitStack, *, whole: bool) -> tuple[Reconciler, Intake]:
        context, programs = self.context, self.context.two_way
        assert programs is not None
        forward = stack.enter_context(transformer(programs.forward, self.session.lookups))
        backward = stack.enter_context(
            transformer(programs.backward, lookups_for(context, programs.backward, backward=True))
        )
        evaluate = None
        if programs.evaluate is not None:
            lookups = lookups_for(context, programs.evaluate)
            evaluate = stack.enter_context(transformer(programs.evaluate, lookups)).run
        reconciler = stack.enter_context(
            Reconciler(
                context.mapping,
                context.rule,
                complete=True,
                forward=forward.run,
                backward=backward.run,
                evaluate=evaluate,
                memory_limit_mb=int(settings.LOCKSTEP["MEMORY_LIMIT_MB"]),
                spill_directory=spill_directory(),
                now=now(),
            )
        )
        return reconciler, Intake(self.session, reconciler, forward, remember=not whole)

    def _read_whole(self, reconciler: Reconciler, left: Intake, right: RightIntake) -> None:
        context = self.context
        self.first_links = True
        for links in link_batches(self.run.rule_id):
            self.first_links = self.first_links and not links.num_rows
            reconciler.add_links(links)
        left.take(context.left_reader.everything(context.left_fields), moves_cursor=True)
        fields = self._right_fields(reconciler)
        right.take(context.right_reader.everything(fields), moves_cursor=True)

    def _right_fields(self, reconciler: Reconciler) -> tuple[str, ...]:
        two_way = self.context.rule.two_way
        cursor = [two_way.right_cursor_field] if two_way and two_way.right_cursor_field else []
        return tuple(dict.fromkeys([*reconciler.right_fields, *cursor]))

    def _read_scope(self, reconciler: Reconciler, left: Intake, right: RightIntake) -> None:
        """Read both sides of every record in scope, and the links that it touches."""
        context, rule_id = self.context, self.run.rule_id
        wanted = self._wanted(reconciler, left, right)
        lefts = sorted({pair[0] for pair in wanted} | left.seen - {""})
        rights = sorted({pair[1] for pair in wanted} | right.seen - {""})
        links = _distinct([links_of_left(rule_id, lefts), links_of_right(rule_id, rights)])
        linked_left, linked_right = (set(links.column(name).to_pylist()) for name in KEY_COLUMNS)
        left.take(context.left_by_key(sorted(({*lefts} | linked_left) - left.seen - {""})))
        also = {*rights} | linked_right | left.candidates
        keys = sorted(key for key in also - right.seen if key)
        right.take(context.right_reader.by_key(self._right_fields(reconciler), keys))
        if context.mapping.match and (left.seen - linked_left or right.seen - linked_right):
            raise _TooNarrow
        reconciler.add_links(links)
        found = [links_of_left(rule_id, sorted(left.seen)), links_of_right(rule_id, keys)]
        reconciler.add_other_links(_without(_distinct(found), links))

    def _wanted(
        self, reconciler: Reconciler, left: Intake, right: RightIntake
    ) -> set[tuple[str, str]]:
        """Keys of the records in scope, beside those that the cursors show (they are read here)."""
        run, context = self.run, self.context
        if self.keys is not None:
            return set(self.keys)
        if run.rejection_ids:
            left.take(replayed_batches(context, run.rejection_ids, context.left_by_key))
            return set()
        name = context.rule.cursor_field
        batches = context.left_reader.since(context.left_fields, name, run.cursor_from)
        left.take(batches, moves_cursor=True)
        two_way = context.rule.two_way
        if two_way is not None and run.right_cursor_from:
            batches = context.right_reader.since(
                self._right_fields(reconciler), two_way.right_cursor_field, run.right_cursor_from
            )
            right.take(batches, moves_cursor=True)
        wanted = set(carried_keys(run))
        if run.sweep:
            swept = sweep_both(context, self.session.lease)
            self.session.note(swept.summary)
            if swept.nameless:
                reconciler.add_rejected([(None, None)])
            wanted |= swept.suspicious
        return wanted

    def _store(self, reconciler: Reconciler, summary: ReconcileSummary) -> set[str]:
        """Write the plan, conflicts, links that need no write, and what the plan keeps out."""
        session, context = self.session, self.context
        changes = reconciler.changes(STORE_ROWS)
        whole = with_whole_deletes(changes, context.right_reader, context.right_types, "right")
        whole = with_whole_deletes(whole, context.left_reader, context.left_types, "left")
        store_plan(session, whole, summary.changes)
        refused = store_refused(session, reconciler)
        if self.run.is_dry:
            return refused
        for batch in reconciler.conflicts(STORE_ROWS):
            with session.lease.transaction():
                record_conflicts(session.work, batch)
        for batch in reconciler.refreshes(STORE_ROWS):
            with session.lease.transaction():
                refresh_links(session.work, batch, first_links=self.first_links)
        store_gone(session, reconciler.gone(STORE_ROWS))
        return refused

    def _finish(
        self, summary: ReconcileSummary, left: Intake, right: RightIntake, refused: set[str]
    ) -> None:
        session = self.session
        conflicts = sum(summary.conflicts.values())
        session.counters["unchanged"] = summary.unchanged + summary.agreed
        session.counters["conflicts"] = conflicts
        sides = (summary.left, summary.right)
        finish_plan(
            session,
            passed=left.passed - refused,
            seen=(left.seen, right.seen),
            held_back=summary.reason if summary.held_back else "",
            cursor=left.cursor,
            right_cursor=right.cursor,
            planned={
                "planned_inserts": sum(side.inserts for side in sides),
                "planned_updates": sum(side.updates + side.marks for side in sides),
                "planned_deletes": sum(side.deletes for side in sides),
                "planned_left": summary.left.changes,
            },
        )
        session.note(
            f"Planned: {summary.right.changes} changes to the right, {summary.left.changes} to "
            f"the left, {conflicts} conflicts, {session.counters['unchanged']} unchanged, "
            f"{session.counters['rejected']} rejected"
        )


def _bases(rule_id: UUID, needed: pa.Table) -> pa.Table:
    """The bases of these links; `null` stands for a record that was not there."""
    table = bases_of(rule_id, left_keys=needed.column("left_key").to_pylist())
    for name in ("left", "right"):
        column = pc.fill_null(table.column(name), "null")
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _distinct(tables: Sequence[pa.Table]) -> pa.Table:
    """Links that are in any of these tables, each once."""
    table = pa.concat_tables(tables)
    seen: set[tuple[str, str]] = set()
    rows = []
    for row, pair in enumerate(_pairs(table)):
        if pair not in seen:
            seen.add(pair)
            rows.append(row)
    return table.take(pa.array(rows, pa.int64()))


def _without(table: pa.Table, other: pa.Table) -> pa.Table:
    known = set(_pairs(other))
    return table.filter(pa.array([pair not in known for pair in _pairs(table)], pa.bool_()))


def _pairs(table: pa.Table) -> list[tuple[str, str]]:
    return list(zip(*(table.column(name).to_pylist() for name in KEY_COLUMNS), strict=True))
