"""Preparing: how a run is cut into partitions before any record is read.

Compares the live schemas with the pinned version, and chooses lane, window and key ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise

from django.conf import settings

from apps.connectors.base import ReadRequest
from apps.connectors.types import Kind
from apps.core.clock import now
from apps.engine.spec import CheckKind, Delta
from apps.ledger.selectors import has_crossed_links, has_links
from apps.runs.models import Checkpoint, Partition, Run, RunStatus
from apps.runs.services.context import (
    RunContext,
    load_context,
    require_unpaused,
    require_writable,
)
from apps.runs.services.cursors import with_lag
from apps.runs.services.dispatching import dispatch
from apps.runs.services.leasing import Lease
from apps.runs.services.logs import log


def prepare(partition: Partition, lease: Lease) -> None:
    """Decide lane, window and partitions of a run, and let its partitions be planned."""
    run = partition.run
    require_unpaused(run)
    context = load_context(run)
    require_writable(context)
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
    bounds = choose_bounds(context, right_empty) if window.complete else []
    edges = [None, *bounds, None]
    parts = [
        Partition(
            run=run,
            number=number,
            kind=Partition.Kind.RECORDS,
            range_field=context.mapping.left.key[0] if bounds else "",
            lower=lower,
            upper=upper,
        )
        for number, (lower, upper) in enumerate(pairwise(edges), start=1)
    ]
    with lease.transaction():
        run.partitions.filter(kind=Partition.Kind.RECORDS).delete()
        Partition.objects.bulk_create(parts)
        run.status = RunStatus.PLANNING
        run.save(
            update_fields=[
                "started_at",
                "sweep",
                "cursor_from",
                "right_cursor_from",
                "lane",
                "lane_reason",
                "read_estimate",
                "status",
                "updated_at",
            ]
        )
        lease.update(state=Partition.State.DONE, finished_at=now())
        dispatch([part.pk for part in parts])
    log(run, f"Lane {run.lane}: {run.lane_reason}; {window.reason}; {len(parts)} partition(s)")


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
    if rule.delta is Delta.FULL:
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


def choose_lane(context: RunContext, right_empty: bool, *, complete: bool) -> tuple[str, str]:
    """The cheapest lane that is correct, and why. (The relay lane's door is here.)"""
    if context.run.kind == Run.Kind.UNDO:
        return Run.Lane.RECONCILE, "earlier changes are taken back"
    if context.two_way is not None:
        return Run.Lane.RECONCILE, "both sides are merged field by field"
    if complete and right_empty and not has_links(context.run.rule_id):
        return Run.Lane.STREAM, "the target is empty, so there is nothing to compare with"
    if complete:
        return Run.Lane.RECONCILE, "the target has records, so both sides are compared"
    return Run.Lane.RECONCILE, "only the changed records are compared"


def _is_empty(context: RunContext) -> bool:
    names = tuple(context.mapping.key)
    request = ReadRequest(context.right, names, limit=1, batch_rows=1)
    return not any(
        batch.records.num_rows or batch.rejected for batch in context.right_connector.read(request)
    )


def _may_partition(context: RunContext) -> bool:
    """Whether key ranges keep what belongs together.

    Not for two-way rules (a record may be new on either side), not for cursor rules (their parts
    would be read at different moments, and the cursor of one part says nothing of another), not
    where a field must be unique over the whole, and not while a link crosses ranges because its
    two keys differ.
    """
    rule = context.rule
    if context.two_way is not None:
        return False
    unique = any(check.kind is CheckKind.UNIQUE for check in rule.checks)
    return rule.delta is Delta.FULL and not unique and not has_crossed_links(context.run.rule_id)


def choose_bounds(context: RunContext, right_empty: bool) -> list[int]:
    """Bounds of key ranges, where both sides can read ranges of the same integer key."""
    left, mapping = context.left, context.mapping
    if not _may_partition(context):
        return []
    limit = int(settings.LOCKSTEP["PARTITION_ROWS"])
    if (left.row_count or 0) <= limit or len(left.key) != 1 or len(mapping.key) != 1:
        return []
    pair = next(field for field in mapping.fields if field.right == mapping.key[0])
    copied = pair.left == left.key[0] and not pair.to_right
    integers = (
        left.field(left.key[0]).type.kind is Kind.INTEGER
        and context.right.field(mapping.key[0]).type.kind is Kind.INTEGER
    )
    ranges = context.left_connector.capabilities.key_ranges and (
        right_empty or context.right_connector.capabilities.key_ranges
    )
    if not (copied and integers and ranges):
        return []
    parts = -(-(left.row_count or 0) // limit)
    return list(context.left_connector.split(left, left.key[0], parts))
