"""Planning: how one partition's plan comes to be.

Read the left records, run filter, expressions and checks over them in a child process, compare
with the right records, and store the changes. Nothing outside is written.
A partition that is planned again (its worker was lost) forgets its first plan before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
import pyarrow.compute as pc
from django.conf import settings

from apps.connectors.base import CursorWindow, KeyRange, RawRejection, ReadBatch, ReadRequest
from apps.engine.codec import decode_keys
from apps.engine.execution import Runner
from apps.engine.planning import Planner, PlanSummary
from apps.engine.sandbox import Sandbox
from apps.engine.spec import Delta
from apps.engine.transform import RecordRejection, Transformed, cursor_maximum
from apps.ledger.models import Rejection
from apps.ledger.selectors import (
    link_batches,
    link_table,
    links_of_left,
    links_of_right,
    open_rejection_keys,
    stale_left_keys,
)
from apps.ledger.services import (
    WorkIdentity,
    close_links,
    discard_plan,
    note_passed,
    record_rejections,
    store_changes,
    store_links,
)
from apps.runs.models import Partition, Run, RunLog, RunStatus
from apps.runs.services.context import load_context, lookups_for, transformer
from apps.runs.services.cursors import cursor_value, later_cursor
from apps.runs.services.leasing import Lease
from apps.runs.services.logs import log
from apps.runs.services.rejecting import check_stopped, from_check, from_reading
from apps.runs.services.replaying import replayed_batches
from apps.runs.services.sweeping import Absent, sweep

STORE_ROWS = 5_000
KEY_READ_ROWS = 2_000
KEY_COLUMNS = ("left_key", "right_key")


class PartitionPlan:
    """Plans one partition. The steps are methods; `execute` is their order."""

    def __init__(self, partition: Partition, lease: Lease) -> None:
        self.partition = partition
        self.lease = lease
        self.run = partition.run
        self.context = load_context(self.run)
        self.work = WorkIdentity(self.run.rule_id, self.run.pk, partition.pk)
        self.lookups = lookups_for(self.context)
        self.counters = dict.fromkeys(
            ("read", "left_out", "unchanged", "rejected", "warnings", "bytes_read"), 0
        )
        self.cursor_to = ""
        self.open_keys = pa.array(open_rejection_keys(self.run.rule_id), pa.string())
        self.held_back = ""
        self.passed: set[str] = set()
        self.seen: set[str] = set()  # left keys, where only candidates are read
        self.candidates: set[str] = set()  # right keys that these would be written to
        self.absent = Absent((), ())

    @property
    def complete(self) -> bool:
        cursor = self.context.rule.delta is Delta.CURSOR and bool(self.run.cursor_from)
        return not (cursor or self.run.rejection_ids)

    def execute(self) -> None:
        discard_plan(self.partition.pk)
        spill = settings.LOCKSTEP["SPILL_DIR"]
        spill.mkdir(parents=True, exist_ok=True, mode=0o700)
        planner = Planner(
            self.context.mapping,
            self.context.rule,
            complete=self.complete or self.run.sweep,
            memory_limit_mb=int(settings.LOCKSTEP["MEMORY_LIMIT_MB"]),
            spill_directory=spill,
            extra_right=self.context.unmapped,
        )
        with planner, transformer(self.context.program, self.lookups) as sandbox:
            self._read_left(planner, sandbox)
            self._read_right(planner)
            summary = planner.plan()
            self._store(planner, first_links=summary.linked == 0)
            self._finish(summary)

    def _read_left(self, planner: Planner, sandbox: Runner | Sandbox) -> None:
        for batch in self._left_batches():
            self.lease.check()
            self._count_batch(batch)
            done = sandbox.run(batch.records)
            planner.add_left(done.records)
            planner.add_left_out(done.left_out)
            self._keep_rejected(planner, batch.rejected, done)
            self._note_keys(done)
            self.lease.update(**{k: v for k, v in self.counters.items() if k != "unchanged"})

    def _left_batches(self) -> Iterator[ReadBatch]:
        context, run = self.context, self.run
        if run.rejection_ids:
            yield from self._replayed()
            return
        fields = context.left_fields
        if self.complete:
            request = ReadRequest(context.left, fields, key_range=self._left_range())
        else:
            name = context.rule.cursor_field
            after = cursor_value(context.left.field(name), run.cursor_from)
            request = ReadRequest(context.left, fields, cursor=CursorWindow(name, after))
        for batch in context.left_connector.read(request):
            self._note_cursor(batch)
            yield batch
        if not self.complete:
            keys = set(self._carried_over())
            if run.sweep:
                keys |= set(self._sweep())
            yield from self._left_by_key(sorted(keys - self.seen))

    def _left_range(self) -> KeyRange | None:
        part = self.partition
        if not part.range_field:
            return None
        return KeyRange(part.range_field, part.lower, part.upper)

    def _note_cursor(self, batch: ReadBatch) -> None:
        """Only reads of the whole window move the cursor; reads by key came after its snapshot."""
        field = self.context.rule.cursor_field
        if field and batch.records.num_rows:
            top = cursor_maximum(batch.records, field) or ""
            self.cursor_to = later_cursor(self.cursor_to, top)

    def _replayed(self) -> Iterator[ReadBatch]:
        """The rejected records as they are now, with the values that people corrected."""
        yield from replayed_batches(self.context, self.run.rejection_ids, self._left_by_key)

    def _carried_over(self) -> list[str]:
        """Left keys that a cursor would not show again though they are not in step yet.

        Open rejections, and records that had moved when they were to be written, in any run since
        (and with) the last one that moved the checkpoint.
        """
        runs = self.run.rule.runs.exclude(pk=self.run.pk).filter(mode=Run.Mode.APPLY)
        settled = (RunStatus.SUCCEEDED, RunStatus.PARTIAL)
        last = runs.filter(status__in=settled, rejection_ids=[]).order_by("-created_at").first()
        if last is not None:
            runs = runs.filter(created_at__gte=last.created_at)
        ids = list(runs.filter(stale__gt=0).values_list("pk", flat=True)[:100])
        return open_rejection_keys(self.run.rule_id) + stale_left_keys(ids)

    def _left_by_key(self, keys: list[str]) -> Iterator[ReadBatch]:
        context = self.context
        types = {name: context.left.field(name).type for name in context.left.key}
        if not types:
            return
        for start in range(0, len(keys), KEY_READ_ROWS):
            table = decode_keys(keys[start : start + KEY_READ_ROWS], types)
            request = ReadRequest(context.left, context.left_fields, keys=table)
            yield from context.left_connector.read(request)

    def _sweep(self) -> list[str]:
        """Compare all keys: remember links whose left record is gone, return keys without link."""
        found = sweep(self.context, self.lookups, self.lease)
        self.absent, self.held_back = found.absent, found.held_back
        log(
            self.run,
            f"Key sweep: {found.seen} keys, {len(found.absent.left_keys)} gone, "
            f"{len(found.unlinked)} not linked yet",
            partition=self.partition.number,
        )
        return found.unlinked

    def _count_batch(self, batch: ReadBatch) -> None:
        self.counters["read"] += batch.records.num_rows + len(batch.rejected)
        self.counters["bytes_read"] += batch.records.nbytes

    def _note_keys(self, done: Transformed) -> None:
        """Remember which open rejections passed, and which candidates were read."""
        if len(self.open_keys):
            keys = done.records.column("__left_key")
            found = keys.filter(pc.is_in(keys, value_set=self.open_keys))
            self.passed.update(found.to_pylist())
        if not self.complete:
            for table in (done.records, done.left_out):
                self.seen.update(table.column("__left_key").to_pylist())
                self.candidates.update(table.column("__right_key").to_pylist())
            self.seen.update(item.left_key for item in done.rejected if item.left_key)

    def _keep_rejected(
        self, planner: Planner, raw: Iterable[RawRejection], done: Transformed
    ) -> None:
        """Record what reading and checking kept out; the planner must not take it for deleted."""
        if done.stops:
            with self.lease.transaction():
                record_rejections(self.work, [from_check(item) for item in done.stops])
            raise check_stopped(self.run, done.stops[0])
        found = [from_reading(item, self.context) for item in raw]
        found += [from_check(item) for item in done.rejected]
        self.counters["warnings"] += sum(done.warnings.values())
        self.counters["left_out"] += done.left_out.num_rows
        if not found:
            return
        self.counters["rejected"] += len(found)
        pairs = [(item.left_key, item.right_key) for item in done.rejected]
        unread = found[: len(found) - len(done.rejected)]
        pairs += [(record.left_key or None, None) for record in unread]
        planner.add_rejected(pairs)
        with self.lease.transaction():
            record_rejections(self.work, found)

    def _read_right(self, planner: Planner) -> None:
        context = self.context
        if not self.complete:
            keys = self._candidate_links(planner)
            self._add_right(planner, self._right_by_key(planner.right_fields, keys))
            return
        for links in link_batches(self.run.rule_id):
            planner.add_links(self._links_in_range(links))
        if self.run.lane != Run.Lane.STREAM:
            fields = planner.right_fields
            request = ReadRequest(context.right, fields, key_range=self._right_range())
            self._add_right(planner, context.right_connector.read(request))

    def _candidate_links(self, planner: Planner) -> list[str]:
        """Add the links of the candidates; returns the right keys to compare."""
        links = links_of_left(self.run.rule_id, sorted(self.seen))
        gone = link_table(list(zip(self.absent.left_keys, self.absent.right_keys, strict=True)))
        links = pa.concat_tables([links, gone])
        planner.add_links(links)
        others = links_of_right(self.run.rule_id, sorted(self.candidates))
        ours = pa.array(links.column("left_key").to_pylist(), pa.string())
        strange = pc.invert(pc.is_in(others.column("left_key"), value_set=ours))
        planner.add_other_links(others.filter(strange))
        return sorted({*self.candidates, *links.column("right_key").to_pylist()} - {None})

    def _right_by_key(self, fields: tuple[str, ...], keys: list[str]) -> Iterator[ReadBatch]:
        context = self.context
        types = {name: context.right.field(name).type for name in context.mapping.key}
        for start in range(0, len(keys), KEY_READ_ROWS):
            table = decode_keys(keys[start : start + KEY_READ_ROWS], types)
            request = ReadRequest(context.right, fields, keys=table)
            yield from context.right_connector.read(request)

    def _add_right(self, planner: Planner, batches: Iterable[ReadBatch]) -> None:
        for batch in batches:
            self.lease.check()
            planner.add_right(batch.records)
            for item in batch.rejected:
                planner.add_rejected([(None, None)])  # unknown: nothing is deleted for absence
                log(
                    self.run,
                    f"A target record cannot be read: {item.code} {item.field}",
                    level=RunLog.Level.WARNING,
                    partition=self.partition.number,
                )

    def _right_range(self) -> KeyRange | None:
        part = self.partition
        if not part.range_field:
            return None
        return KeyRange(self.context.mapping.key[0], part.lower, part.upper)

    def _links_in_range(self, links: pa.Table) -> pa.Table:
        part = self.partition
        if not part.range_field:
            return links
        types = {"key": self.context.right.field(self.context.mapping.key[0]).type}
        keys = decode_keys(links.column("right_key").to_pylist(), types).column(0)
        mask = pa.array([True] * len(links))
        if part.lower is not None:
            mask = pc.and_(mask, pc.greater_equal(keys, part.lower))
        if part.upper is not None:
            mask = pc.and_(mask, pc.less(keys, part.upper))
        return links.filter(mask)

    def _store(self, planner: Planner, *, first_links: bool) -> None:
        """Write the plan, the links of equal pairs and the planner's own rejections."""
        sequence = 1
        for batch in planner.changes(STORE_ROWS):
            with self.lease.transaction():
                store_changes(self.work, batch, sequence)
            sequence += batch.num_rows
        for stopped in planner.stops():
            self._keep_planner_rejection(stopped)
            raise check_stopped(self.run, stopped)
        for refused in planner.rejections():
            self._keep_planner_rejection(refused)
        if self.run.is_dry:
            return
        for batch in planner.unchanged(STORE_ROWS):
            columns = [batch.column(n).to_pylist() for n in ("left_key", "right_key", "image")]
            with self.lease.transaction():
                store_links(self.work, zip(*columns, strict=True), first_links=first_links)
        for batch in planner.gone(STORE_ROWS):
            with self.lease.transaction():
                pairs = zip(*(batch.column(n).to_pylist() for n in KEY_COLUMNS), strict=True)
                close_links(self.run.rule_id, pairs)

    def _keep_planner_rejection(self, refused: RecordRejection) -> None:
        record = from_check(refused, stage=Rejection.Stage.PLAN)
        self.passed.discard(record.left_key)
        self.counters["rejected"] += 1
        with self.lease.transaction():
            record_rejections(self.work, [record])

    def _finish(self, summary: PlanSummary) -> None:
        self.counters["unchanged"] = summary.unchanged
        self.counters["warnings"] += sum(summary.warnings.values())
        with self.lease.transaction():
            if not self.run.is_dry:
                note_passed(self.run.rule_id, self.run.pk, sorted(self.passed))
            held_back = summary.reason if summary.deletes_held_back else self.held_back
            if held_back:
                Run.objects.filter(pk=self.run.pk).update(deletes_held_back=held_back[:255])
            self._advance_cursor()
            self.lease.update(
                **self.counters,
                planned_inserts=summary.inserts,
                planned_updates=summary.updates + summary.marks,
                planned_deletes=summary.deletes,
                state=Partition.State.PLANNED,
                lease_until=None,
            )
        log(
            self.run,
            f"Planned: {summary.inserts} inserts, {summary.updates + summary.marks} updates, "
            f"{summary.deletes} deletes, {summary.unchanged} unchanged, "
            f"{self.counters['rejected']} rejected",
            partition=self.partition.number,
        )

    def _advance_cursor(self) -> None:
        if not self.cursor_to:
            return
        run = Run.objects.select_for_update().get(pk=self.run.pk)
        run.cursor_to = later_cursor(run.cursor_to, self.cursor_to)
        run.save(update_fields=["cursor_to", "updated_at"])


def plan(partition: Partition, lease: Lease) -> None:
    """Plan one partition of records."""
    PartitionPlan(partition, lease).execute()
