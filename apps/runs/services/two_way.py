"""Planning a two-way partition: both sides are read, merged field by field, and stored as a plan.

A rule that compares everything reads both sides whole. Else there is a scope: what either side's
cursor shows, what a key sweep of both sides finds, what was carried over, or given keys. Both
sides of every record in scope are looked up, so that a record which is not there is gone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
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
    SegmentLinks,
    bases_of,
    decisions_for,
    link_batches,
    links_of_left,
    links_of_right,
)
from apps.ledger.services import (
    Tried,
    record_conflicts,
    refresh_links,
    store_found_links,
    tried_decisions,
)
from apps.runs.models import RunLog
from apps.runs.services.carrying import carried_keys
from apps.runs.services.cursors import later_cursor
from apps.runs.services.intake import Intake
from apps.runs.services.narrowing import Narrowing, narrow, uncounted
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.programs import lookups_for, transformer
from apps.runs.services.reading import Batches, SideReader
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

BASE_ROWS = 20_000
"""Links whose bases are read at once: each time, every segment that holds one is opened."""


class _TooNarrow(Exception):
    """New records are matched by fields: only all records of the other side can answer."""


@dataclass(slots=True)
class RightIntake:
    """Takes right records in and remembers what the rest of the planning needs of them.

    known_unread: the plan knows of records that cannot be read already.
    """

    session: PlanSession
    reconciler: Reconciler
    remember: bool
    seen: set[str] = field(default_factory=set)
    cursor: str = ""
    known_unread: bool = False

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
        for item in () if self.known_unread else batch.rejected:
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
        self.asked = set(self.keys) if self.keys is not None else None
        self.first_links = False
        self.narrowing: Narrowing | None = None
        self.kept: SegmentLinks | None = None
        self.planned: Counter[tuple[str, str]] = Counter()
        self.conflicts = 0

    @property
    def is_whole(self) -> bool:
        """Whether all records of both sides are read."""
        cursor = self.context.rule.delta is Delta.CURSOR and bool(self.run.cursor_from)
        return not (cursor or self.run.rejection_ids or self.keys is not None)

    def execute(self) -> None:
        whole = self.is_whole
        if whole:
            self.narrowing = narrow(self.session)
        try:
            self._plan(whole=whole and self.narrowing is None)
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
            elif self.narrowing is not None:
                self._read_candidates(self.narrowing, reconciler, left, right)
            else:
                self._read_scope(reconciler, left, right)
            decisions = decisions_for(self.run.rule_id)
            reconciler.add_decisions(decisions)
            for needed in reconciler.bases_needed(BASE_ROWS):
                reconciler.add_bases(_bases(self.run.rule_id, needed, self.kept))
            summary = reconciler.plan()
            refused = self._store(reconciler, summary, tried_decisions(decisions))
            self._finish(summary, left, right, refused)

    def _open(self, stack: ExitStack, *, whole: bool) -> tuple[Reconciler, Intake]:
        context, programs = self.context, self.context.two_way
        assert programs is not None  # nosec B101  # what rule this is has been looked at
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
        context, part = self.context, self.session.part
        self.first_links = True
        for links in link_batches(self.run.rule_id):
            self.first_links = self.first_links and not links.num_rows
            reconciler.add_links(part.of_links(links))
        everything = context.left_reader.everything(context.left_fields, part.left)
        if self._replays:
            replayed = list(self._replayed())
            left.take(_other_than(everything, context.left_reader, self._asked_lefts()))
            left.take(_each(replayed))
        else:
            left.take(everything, moves_cursor=True)
        fields = self._right_fields(reconciler)
        right.take(context.right_reader.everything(fields, part.right), moves_cursor=True)

    def _read_candidates(
        self, found: Narrowing, reconciler: Reconciler, left: Intake, right: RightIntake
    ) -> None:
        """Read again, by key, what the first read of both sides did not find in step."""
        reconciler.add_rejected(found.rejected)
        left.seen |= {key for key, _ in found.rejected if key}
        right.known_unread = found.unread_right > 0
        with uncounted(self.session):
            self._read_scope(reconciler, left, right)
        reconciler.add_rejected(found.vanished(left.seen, right.seen))
        left.passed |= found.passed
        left.cursor, right.cursor = found.cursor, found.right_cursor

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
        kept = self.kept = SegmentLinks(rule_id)
        kept.look_ahead(lefts, rights)
        found = [
            links_of_left(rule_id, lefts, kept=kept),
            links_of_right(rule_id, rights, but=lefts, kept=kept),
        ]
        links = _distinct(found)
        linked_left, linked_right = (set(links.column(name).to_pylist()) for name in KEY_COLUMNS)
        left.take(context.left_by_key(sorted(({*lefts} | linked_left) - left.seen - {""})))
        also = {*rights} | linked_right | left.candidates
        keys = sorted(key for key in also - right.seen if key)
        right.take(context.right_reader.by_key(self._right_fields(reconciler), keys))
        alone = self.narrowing is None and context.mapping.match
        if alone and (left.seen - linked_left or right.seen - linked_right):
            raise _TooNarrow
        reconciler.add_links(links)
        looked_for = left.seen.union(lefts)
        found = [
            links_of_left(rule_id, sorted(looked_for.difference(lefts)), kept=kept),
            links_of_right(
                rule_id, sorted(set(keys).difference(rights)), but=looked_for, kept=kept
            ),
        ]
        reconciler.add_other_links(_without(_distinct(found), links))

    def _wanted(
        self, reconciler: Reconciler, left: Intake, right: RightIntake
    ) -> set[tuple[str, str]]:
        """Keys of the records in scope, beside those that the cursors show (they are read here)."""
        run, context = self.run, self.context
        if self.narrowing is not None:
            return set(self.narrowing.pairs)
        if self.keys is not None:
            return set(self.keys)
        if self._replays:
            left.take(self._replayed())
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
        wanted = carried_keys(run)
        if run.sweep:
            swept = sweep_both(context, self.session.lease)
            self.session.note(swept.summary)
            if swept.nameless:
                reconciler.add_rejected([(None, None)])
            wanted |= swept.suspicious
        return wanted

    @property
    def _replays(self) -> bool:
        """Whether it is about records that were rejected, with what people corrected in them."""
        return bool(self.run.rejection_ids) and self.keys is None

    def _replayed(self) -> Batches:
        """The records to replay; the plan is about nothing else."""
        context = self.context
        self.asked = set()
        for batch in replayed_batches(context, self.run.rejection_ids, context.left_by_key):
            table = pa.Table.from_batches([batch.records])
            keys = encode_keys(table, context.left_reader.key_types)
            self.asked |= {(key, "") for key in keys}
            yield batch

    def _asked_lefts(self) -> set[str]:
        return {left for left, _ in self.asked or () if left}

    def _store(self, reconciler: Reconciler, summary: ReconcileSummary, tried: Tried) -> set[str]:
        """Write the plan, conflicts, links that need no write, and what the plan keeps out."""
        session, context = self.session, self.context
        changes = self._counted(self._asked_for(reconciler.changes(STORE_ROWS)))
        whole = with_whole_deletes(changes, context.right_reader, context.right_types, "right")
        whole = with_whole_deletes(whole, context.left_reader, context.left_types, "left")
        store_plan(session, whole, summary.changes, first_links=self.first_links)
        refused = store_refused(session, reconciler)
        if self.run.is_dry:
            conflicts = self._asked_for(reconciler.conflicts(STORE_ROWS))
            self.conflicts = sum(batch.num_rows for batch in conflicts)
            return refused
        for batch in self._asked_for(reconciler.conflicts(STORE_ROWS)):
            self.conflicts += batch.num_rows
            with session.lease.transaction():
                record_conflicts(session.work, batch, tried=tried)
        self._store_refreshes(self._asked_for(reconciler.refreshes(STORE_ROWS)))
        store_gone(session, self._asked_for(reconciler.gone(STORE_ROWS)))
        return refused

    def _store_refreshes(self, batches: Iterator[pa.Table]) -> None:
        work, transaction = self.session.work, self.session.lease.transaction
        if self.first_links:
            types = self.context.mapped_types
            store_found_links(work, batches, types, transaction=transaction)
            return
        for batch in batches:
            with transaction():
                refresh_links(work, batch)

    def _asked_for(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """Only what is about the records asked for, even where more was read to match them."""
        if self.asked is None:
            yield from batches
            return
        lefts = pa.array(sorted(self._asked_lefts()), pa.string())
        rights = pa.array(sorted({right for _, right in self.asked} - {""}), pa.string())
        for batch in batches:
            asked = pc.or_(
                pc.is_in(batch.column("left_key"), value_set=lefts),
                pc.is_in(batch.column("right_key"), value_set=rights),
            )
            kept = batch.filter(asked)
            if kept.num_rows:
                yield kept

    def _counted(self, batches: Iterator[pa.Table]) -> Iterator[pa.Table]:
        for batch in batches:
            names = (batch.column(name).to_pylist() for name in ("side", "operation"))
            self.planned.update(zip(*names, strict=True))
            yield batch

    def _finish(
        self, summary: ReconcileSummary, left: Intake, right: RightIntake, refused: set[str]
    ) -> None:
        session, found = self.session, self.narrowing
        by_side: Counter[str] = Counter()
        by_operation: Counter[str] = Counter()
        for (side, operation), number in self.planned.items():
            by_side[side] += number
            by_operation[operation] += number
        unchanged = summary.unchanged + summary.agreed
        session.counters["unchanged"] = unchanged + (found.equal if found else 0)
        session.counters["conflicts"] = self.conflicts
        finish_plan(
            session,
            passed=(left.passed if self.asked is None else left.passed & self._asked_lefts())
            - refused,
            seen=(left.seen, right.seen) if found is None else (set(), set()),
            held_back=summary.reason if summary.held_back or session.partition.cut else "",
            cursor=left.cursor,
            right_cursor=right.cursor,
            planned={
                "planned_inserts": by_operation["insert"],
                "planned_updates": by_operation["update"],
                "planned_deletes": by_operation["delete"],
                "planned_left": by_side["left"],
            },
        )
        session.note(
            f"Planned: {by_side['right']} changes to the right, {by_side['left']} to "
            f"the left, {self.conflicts} conflicts, {session.counters['unchanged']} unchanged, "
            f"{session.counters['rejected']} rejected"
        )


def _other_than(batches: Batches, reader: SideReader, keys: set[str]) -> Batches:
    """The same batches without the records of these keys."""
    with closing(batches):
        for batch in batches:
            own = encode_keys(pa.Table.from_batches([batch.records]), reader.key_types)
            kept = pa.array([key not in keys for key in own], pa.bool_())
            yield replace(batch, records=batch.records.filter(kept))


def _each(batches: Iterable[ReadBatch]) -> Batches:
    yield from batches


def _bases(rule_id: UUID, needed: pa.Table, kept: SegmentLinks | None) -> pa.Table:
    """The bases of these links; `null` stands for a record that was not there."""
    table = bases_of(rule_id, needed.column("left_key").to_pylist(), kept=kept)
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
