"""Planning: how one partition's plan comes to be.

Read the left records, run filter, expressions and checks over them in a child process, compare
with the right records, and store the changes. Nothing outside is written.
A partition that is planned again (its worker was lost) forgets its first plan before.
"""

from __future__ import annotations

from contextlib import closing, nullcontext

import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings

from apps.connectors.keeping import keep_connections
from apps.engine.planning import Planner, PlanSummary
from apps.engine.spec import DeletePolicy, Delta
from apps.ledger.selectors import (
    SegmentLinks,
    decisions_for,
    link_batches,
    links_of_left,
    links_of_right,
)
from apps.ledger.services import (
    discard_plan,
    hold_links,
    record_conflicts,
    resolve_conflicts,
    store_links,
)
from apps.runs.models import Partition, Run, RunLog
from apps.runs.services.carrying import carried_keys
from apps.runs.services.checksumming import Checksummed, checksum_scope
from apps.runs.services.decisions import as_planner_takes_them
from apps.runs.services.intake import Intake
from apps.runs.services.leasing import Lease
from apps.runs.services.loading import load
from apps.runs.services.narrowing import Narrowing, narrow, uncounted
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.programs import transformer
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
from apps.runs.services.sweeping import Absent, sweep
from apps.runs.services.two_way import TwoWayPlan
from apps.runs.services.undoing import UndoPlan


class OneWayPlan:
    """Plans one partition of a one-way rule. The steps are methods; `execute` is their order."""

    def __init__(self, session: PlanSession) -> None:
        self.session = session
        self.run = session.run
        self.context = session.context
        self.held_back = ""
        self.absent = Absent((), ())

        self.keys = keys_in_scope(session.partition)
        self.narrowing: Narrowing | None = None
        self.checksummed: Checksummed | None = None

    @property
    def complete(self) -> bool:
        """Whether all records of the partition's range are read."""
        cursor = self.context.rule.delta is Delta.CURSOR and bool(self.run.cursor_from)
        part = cursor or self.run.rejection_ids
        return not part and self.keys is None and self.narrowing is None

    @property
    def knows_absence(self) -> bool:
        """Whether a record that is not met is known to be gone."""
        scope = self.keys is not None or self.narrowing is not None
        return self.complete or self.run.sweep or scope

    def execute(self) -> None:
        session = self.session
        if self.complete and self.run.lane != Run.Lane.STREAM:
            self.checksummed = checksum_scope(session)
            self.narrowing = self.checksummed.narrowing() if self.checksummed else narrow(session)
        planner = Planner(
            self.context.mapping,
            self.context.rule,
            complete=self.knows_absence,
            memory_limit_mb=int(settings.LOCKSTEP["MEMORY_LIMIT_MB"]),
            spill_directory=spill_directory(),
        )
        with planner, transformer(self.context.program, session.lookups) as program:
            if self.context.rule.on_delete is DeletePolicy.APPROVE:
                planner.add_decisions(as_planner_takes_them(decisions_for(self.run.rule_id)))
            intake = Intake(session, planner, program, remember=not self.complete)
            if self.narrowing is not None:
                with nullcontext() if self.checksummed else uncounted(session):
                    self._read_candidates(self.narrowing, planner, intake)
            else:
                self._read_left(intake)
                self._read_right(planner, intake)
            summary = planner.plan()
            first_links = summary.linked == 0 and self.narrowing is None
            refused = self._store(planner, first_links=first_links)
            self._finish(summary, intake, refused)

    def _read_left(self, intake: Intake) -> None:
        context, run, reader = self.context, self.run, self.context.left_reader
        if self.keys is not None:
            self._read_keys(intake, sorted({left for left, _ in self.keys if left}))
            return
        if run.rejection_ids:
            batches = replayed_batches(context, run.rejection_ids, context.left_by_key)
            intake.take(batches, moves_cursor=False)
            return
        if self.complete:
            batches = reader.everything(context.left_fields, self.session.part.left)
            intake.take(batches, moves_cursor=True)
            return
        name = context.rule.cursor_field
        batches = reader.since(context.left_fields, name, run.cursor_from)
        intake.take(batches, moves_cursor=True)
        keys = {left for left, _ in carried_keys(run) if left}
        if run.sweep:
            keys |= set(self._sweep())
        intake.take(context.left_by_key(sorted(keys - intake.seen)))

    def _read_candidates(self, found: Narrowing, planner: Planner, intake: Intake) -> None:
        """Read again, by key, what the first read of both sides did not find in step."""
        planner.add_rejected(found.rejected)
        intake.seen |= {left for left, _ in found.rejected if left}
        self._read_keys(intake, found.left_keys)
        planner.add_rejected(found.vanished(intake.seen))
        intake.passed |= found.passed
        intake.cursor = found.cursor
        self._read_right(planner, intake)

    def _read_keys(self, intake: Intake, keys: list[str]) -> None:
        """Read just these left records; what is not there any more is absent."""
        intake.take(self.context.left_by_key(keys))
        gone = links_of_left(self.run.rule_id, sorted(set(keys) - intake.seen))
        self.absent = Absent(*(gone.column(name).to_pylist() for name in KEY_COLUMNS))

    def _sweep(self) -> list[str]:
        """Compare all keys: remember links whose left record is gone, return keys without link."""
        found = sweep(self.context, self.session.lookups, self.session.lease)
        self.absent, self.held_back = found.absent, found.held_back
        self.session.note(
            f"Key sweep: {found.seen} keys, {len(found.absent.left_keys)} gone, "
            f"{len(found.unlinked)} not linked yet"
        )
        return found.unlinked

    def _read_right(self, planner: Planner, intake: Intake) -> None:
        reader, fields = self.context.right_reader, planner.right_fields
        if not self.complete:
            keys = self._candidate_links(planner, intake)
            self._add_right(planner, reader.by_key(fields, keys))
            return
        part = self.session.part
        for links in link_batches(self.run.rule_id):
            planner.add_links(part.of_links(links))
        if self.run.lane != Run.Lane.STREAM:
            self._add_right(planner, reader.everything(fields, part.right))

    def _candidate_links(self, planner: Planner, intake: Intake) -> list[str]:
        """Add the links of the candidates; returns the right keys to compare."""
        known = intake.seen | set(self.absent.left_keys)
        rule_id = self.run.rule_id
        kept = SegmentLinks(rule_id)
        links = links_of_left(rule_id, sorted(known), kept=kept)
        planner.add_links(links)
        others = links_of_right(rule_id, sorted(intake.candidates), but=known, kept=kept)
        ours = pa.array(links.column("left_key").to_pylist(), pa.string())
        strange = pc.invert(pc.is_in(others.column("left_key"), value_set=ours))
        planner.add_other_links(others.filter(strange))
        return sorted({*intake.candidates, *links.column("right_key").to_pylist()} - {None})

    def _add_right(self, planner: Planner, batches: Batches) -> None:
        known_unread = self.narrowing is not None and self.narrowing.unread_right > 0
        with closing(batches):
            for batch in batches:
                self.session.lease.check()
                planner.add_right(batch.records)
                for item in () if known_unread else batch.rejected:
                    planner.add_rejected([(None, None)])  # nothing is deleted for absence
                    message = f"A target record cannot be read: {item.code} {item.field}"
                    self.session.note(message, RunLog.Level.WARNING)

    def _store(self, planner: Planner, *, first_links: bool) -> set[str]:
        """Write the plan, the links of equal pairs and the planner's own rejections."""
        session, context = self.session, self.context
        changes = planner.changes(STORE_ROWS)
        whole = with_whole_deletes(changes, context.right_reader, context.right_types, "right")
        is_first = self.run.lane == Run.Lane.STREAM
        store_plan(session, whole, planner.plan().changes, first_links=is_first)
        refused = store_refused(session, planner)
        if self.run.is_dry:
            return refused
        for batch in planner.unchanged(STORE_ROWS):
            columns = [batch.column(n).to_pylist() for n in ("left_key", "right_key", "image")]
            with session.lease.transaction():
                store_links(session.work, zip(*columns, strict=True), first_links=first_links)
        store_gone(session, planner.gone(STORE_ROWS))
        self._store_conflicts(planner)
        return refused

    def _store_conflicts(self, planner: Planner) -> None:
        """Deletes that wait for a person, and those that a person decided against."""
        work = self.session.work
        for batch in planner.conflicts(STORE_ROWS):
            with self.session.lease.transaction():
                record_conflicts(work, batch)
        for batch in planner.kept(STORE_ROWS):
            with self.session.lease.transaction():
                hold_links(work, batch)
                keys = batch.column("left_key").to_pylist()
                resolve_conflicts(work.rule_id, work.run_id, left_keys=keys)

    def _finish(self, summary: PlanSummary, intake: Intake, refused: set[str]) -> None:
        session, found = self.session, self.narrowing
        session.counters["unchanged"] = summary.unchanged + (found.equal if found else 0)
        if self.checksummed is not None:  # everything was compared, though little was read
            session.counters["read"] = self.checksummed.left_rows
        session.counters["conflicts"] = summary.asked
        session.counters["warnings"] += sum(summary.warnings.values())
        updates = summary.updates + summary.marks
        finish_plan(
            session,
            passed=intake.passed - refused,
            seen=(intake.seen if found is None else set(), set()),
            held_back=summary.reason if summary.deletes_held_back else self.held_back,
            cursor=intake.cursor,
            planned={
                "planned_inserts": summary.inserts,
                "planned_updates": updates,
                "planned_deletes": summary.deletes,
            },
        )
        session.note(
            f"Planned: {summary.inserts} inserts, {updates} updates, {summary.deletes} deletes, "
            f"{summary.unchanged} unchanged, {session.counters['rejected']} rejected"
        )


def plan(partition: Partition, lease: Lease) -> None:
    """Plan one partition of records."""
    discard_plan(partition.pk)
    session = PlanSession.begin(partition, lease)
    if partition.run.kind != Run.Kind.UNDO and load(session):
        return
    with keep_connections():  # nothing is written to either side
        if partition.run.kind == Run.Kind.UNDO:
            UndoPlan(session).execute()
        elif session.context.two_way is not None:
            TwoWayPlan(session).execute()
        else:
            OneWayPlan(session).execute()
