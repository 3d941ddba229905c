"""Preparing: how a run is cut into partitions before any record is read.

Compares the live schemas with the pinned version, and chooses lane, window and key ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from apps.connectors.base import ReadRequest
from apps.connectors.keeping import keep_connections
from apps.core.clock import now
from apps.engine.spec import Delta
from apps.ledger.selectors import has_links
from apps.runs.models import Checkpoint, Partition, Run, RunStatus
from apps.runs.services.context import (
    RunContext,
    load_context,
    require_unpaused,
    require_writable,
)
from apps.runs.services.cursors import with_lag
from apps.runs.services.cutting import Cut, cut_run, whole
from apps.runs.services.dispatching import dispatch_run
from apps.runs.services.errors import OtherDatasets
from apps.runs.services.lanes import choose_lane, why_no_load
from apps.runs.services.leasing import Lease
from apps.runs.services.logs import log


@keep_connections()
def prepare(partition: Partition, lease: Lease) -> None:
    """Decide lane, window and partitions of a run, and let its partitions be planned."""
    run = partition.run
    require_unpaused(run)
    context = load_context(run, lease)
    require_writable(context)
    _require_linked_datasets(context)
    window = choose_window(context)
    right_empty = _is_empty(context)
    run.started_at = run.started_at or now()
    run.sweep = window.sweep
    run.cursor_from = window.after
    run.right_cursor_from = window.right_after
    run.lane, run.lane_reason = choose_lane(context, right_empty, complete=window.complete)
    run.read_estimate = (
        len(run.rejection_ids)
        or len(run.selection)
        or (context.left.row_count if window.complete else None)
    )
    cut = _choose_cut(context, window, right_empty=right_empty)
    run.cut_reason = cut.reason
    with lease.transaction():
        run.partitions.filter(kind=Partition.Kind.RECORDS).delete()
        Partition.objects.bulk_create(cut.partitions)
        run.status = RunStatus.PLANNING
        run.save(
            update_fields=[
                "started_at",
                "sweep",
                "cursor_from",
                "right_cursor_from",
                "lane",
                "lane_reason",
                "cut_reason",
                "read_estimate",
                "status",
                "updated_at",
            ]
        )
        lease.update(state=Partition.State.DONE, finished_at=now())
        dispatch_run(run.pk)
    log(run, f"Lane {run.lane}: {run.lane_reason}; {window.reason}; {_told(cut)}")


def _require_linked_datasets(context: RunContext) -> None:
    """Links are about the datasets that they were made in: in others they own nothing.

    Raises OtherDatasets when the rule's runs before this one went to others.
    """
    run = context.run
    earlier = Run.objects.filter(rule_id=run.rule_id, mode=Run.Mode.APPLY).exclude(lane="")
    last = earlier.select_related("version__mapping_version").exclude(pk=run.pk).first()
    if last is None or not has_links(run.rule_id):
        return
    linked, present = last.version.mapping_version.spec(), run.rule.mapping
    for before, dataset in ((linked.left, present.left), (linked.right, present.right)):
        if before.is_other_than(dataset.pk):
            raise OtherDatasets(
                f"the records that this rule has linked are not those of {dataset}, "
                "to which its mapping leads now",
                where=f"rule '{run.rule.name}'",
            )


def _choose_cut(context: RunContext, window: Window, *, right_empty: bool) -> Cut:
    run = context.run
    if not window.complete:
        return whole(run, "")
    if run.lane in (Run.Lane.RELAY, Run.Lane.STREAM) and not why_no_load(context):
        return whole(run, "loaded in one transaction")
    unread = right_empty and run.lane == Run.Lane.STREAM
    return cut_run(context, right_empty=unread)


def _told(cut: Cut) -> str:
    number = len(cut.partitions)
    return cut.reason if number > 1 else f"1 partition: {cut.reason or 'a part of the records'}"


@dataclass(frozen=True, slots=True)
class Window:
    """Which left records a run looks at.

    complete: all of them; after: cursor text to begin at; sweep: compare all keys as well;
    right_after: the right side's cursor text, of two-way rules.
    """

    complete: bool
    after: str
    sweep: bool
    reason: str
    right_after: str = ""


def choose_window(context: RunContext) -> Window:
    """Full rules see everything; cursor rules what changed, and everything when they must."""
    run, rule = context.run, context.rule
    if run.kind == Run.Kind.UNDO:
        return Window(False, "", False, "taking back what was written")
    if run.selection:
        return Window(False, "", False, f"looking at {len(run.selection)} record(s)")
    if run.rejection_ids:
        return Window(False, "", False, f"replaying {len(run.rejection_ids)} rejection(s)")
    if run.mode == Run.Mode.VERIFY or run.trigger == Run.Trigger.REPAIR:
        return Window(True, "", False, "comparing everything, to verify or to repair")
    if rule.delta is not Delta.CURSOR:
        return Window(True, "", False, "comparing everything")
    checkpoint = Checkpoint.objects.filter(rule=run.rule).first()
    if checkpoint is None or not checkpoint.cursor:
        return Window(True, "", False, "no checkpoint yet, comparing everything")
    if checkpoint.version_id != run.version_id:
        return Window(True, "", False, "the rule changed, comparing everything")
    if rule.two_way is not None and not checkpoint.right_cursor:
        return Window(True, "", False, "no checkpoint of the right side yet, comparing everything")
    sweep = run.sweep or _sweep_is_due(context, checkpoint)
    if sweep and not context.mapping.left.key:
        return Window(True, "", False, "the left dataset has no key, comparing everything")
    field = context.left.field(rule.cursor_field)
    after = with_lag(field, checkpoint.cursor, rule.cursor_lag_seconds)
    reason = f"reading from cursor {after}" + (" and sweeping all keys" if sweep else "")
    return Window(False, after, sweep, reason, _right_after(context, checkpoint))


def _right_after(context: RunContext, checkpoint: Checkpoint) -> str:
    rule = context.rule
    if rule.two_way is None:
        return ""
    field = context.right.field(rule.two_way.right_cursor_field)
    return with_lag(field, checkpoint.right_cursor, rule.cursor_lag_seconds)


def _sweep_is_due(context: RunContext, checkpoint: Checkpoint) -> bool:
    minutes = context.rule.sweep_minutes
    if minutes is None:
        return False
    return checkpoint.swept_at is None or checkpoint.swept_at < now() - timedelta(minutes=minutes)


def _is_empty(context: RunContext) -> bool:
    names = tuple(context.mapping.key)
    request = ReadRequest(context.right, names, limit=1, batch_rows=1)
    batches = context.right_connector.read(request)
    return not sum(batch.records.num_rows + len(batch.rejected) for batch in batches)
