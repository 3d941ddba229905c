"""Cutting: into which partitions a run over everything falls, and why into no more.

Each partition is planned as if it were alone, so whatever one record has to do with another must
lie in the same one. `_why_whole` lists what would be torn apart. The rest is a matter of size: a
partition holds at most so many rows and so many bytes, by what the sources say of their tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from django.conf import settings

from apps.connectors.base import DatasetSchema, DigestsRefused, KeyBounds
from apps.connectors.types import Kind
from apps.engine.key_parts import (
    KeyPart,
    SharedKey,
    decode_bound,
    encode_bound,
    range_part,
    share_part,
    shared_key,
)
from apps.engine.spec import Approval, CheckKind, Delta
from apps.ledger.selectors import has_crossed_links
from apps.ledger.services import discard_plan
from apps.runs.models import Partition, Run, RunLog, RunStatus
from apps.runs.services.context import RunContext
from apps.runs.services.dispatching import dispatch_run
from apps.runs.services.ending import sum_counters
from apps.runs.services.logs import log

MOST_PARTS = 4_096
MOST_SCANS = 16
"""Each part of a key without a fitting index lets the source look at every record."""


@dataclass(frozen=True, slots=True)
class Cut:
    """The partitions of a run's records, not saved, and why they are these."""

    partitions: tuple[Partition, ...]
    reason: str


def whole(run: Run, reason: str) -> Cut:
    """One partition with all records."""
    part = Partition(run=run, number=1, kind=Partition.Kind.RECORDS)
    return Cut((part,), reason[:255])


def plan_whole(run: Run) -> None:
    """Forget the plans of all parts, and plan the run in one partition.

    A record whose key nobody knows may be the one that is missing in another part: then nothing
    may be deleted for being absent anywhere. Within the transaction that locks the run.
    """
    parts = run.partitions.filter(kind=Partition.Kind.RECORDS)
    for part_id in parts.values_list("pk", flat=True):
        discard_plan(part_id)
    parts.delete()
    cut = whole(run, f"one partition, because {run.deletes_held_back}")
    Partition.objects.bulk_create(cut.partitions)
    run.cut_reason, run.deletes_held_back = cut.reason, ""
    run.status = RunStatus.PLANNING
    sum_counters(run)
    run.save()
    log(run, f"Planning everything again in {cut.reason}", level=RunLog.Level.WARNING)
    dispatch_run(run.pk)


def cut_run(context: RunContext, *, right_empty: bool) -> Cut:
    """Cut a run over everything that is not loaded in one pass.

    right_empty: the right side is not read.
    """
    sides = (context.left,) if right_empty else (context.left, context.right)
    parts = _parts_needed(sides)
    if parts < 2:
        return whole(context.run, "few enough records for one partition")
    why = _why_whole(context, right_empty=right_empty)
    if why:
        return whole(context.run, f"one partition, because {why}")
    key = _key_of(context)
    try:
        return _by_ranges(context, key, parts, right_empty=right_empty)
    except DigestsRefused as no_ranges:
        try:
            return _by_shares(context, key, parts, no_ranges.reason)
        except DigestsRefused:
            return whole(context.run, f"one partition, because {no_ranges.reason}")


def part_of(context: RunContext, partition: Partition) -> KeyPart:
    """What a partition covers on either side."""
    if not partition.cut:
        return KeyPart()
    key = _key_of(context)
    if partition.cut == Partition.Cut.SHARE:
        return share_part(key, _forms(context, key), partition.share, partition.shares)
    types = key.ordered_types()
    bounds = (decode_bound(text, types) for text in (partition.lower, partition.upper))
    return range_part(key, *bounds)


def _parts_needed(sides: tuple[DatasetSchema, ...]) -> int:
    limits = settings.LOCKSTEP
    most_rows, most_bytes = int(limits["PARTITION_ROWS"]), int(limits["PARTITION_MB"]) * 2**20
    rows = max(side.row_count or 0 for side in sides)
    by_rows = -(-rows // most_rows)
    by_bytes = max(-(-(side.size_bytes or 0) // most_bytes) for side in sides)
    return min(max(by_rows, by_bytes), rows, MOST_PARTS)


def _why_whole(context: RunContext, *, right_empty: bool) -> str:
    """Why the records of a run have to be planned together; empty where they have not."""
    return next(_reasons(context, right_empty=right_empty), "")


def _reasons(context: RunContext, *, right_empty: bool) -> Iterator[str]:
    rule = context.rule
    if rule.delta is Delta.CURSOR:
        yield "the cursor of one part would say nothing of another"
    if rule.delta is Delta.CHECKSUM:
        yield "checksums find in one pass which records differ"
    if any(check.kind is CheckKind.UNIQUE for check in rule.checks):
        yield "a check compares all records"
    if context.mapping.match:
        yield "records are matched by their fields"
    try:
        key = _key_of(context)
    except DigestsRefused as refused:
        yield refused.reason
        return
    if any(field.nullable for field in key.left_fields):
        yield "a record's key may be empty"
    yield from _entangled(context, right_empty=right_empty)
    if has_crossed_links(context.run.rule_id):
        yield "the keys of some links differ"


def _entangled(context: RunContext, *, right_empty: bool) -> Iterator[str]:
    """What ties the records of a side that is written together.

    Records that pass unique values on between partitions are planned again, one way (`rounds`),
    unless a person decides about the plan: then it is all that is written.
    """
    written = [context.right_live]
    if context.two_way is not None:
        written.append(context.left_live)
    is_final = context.run.asks_approval or context.rule.approval is Approval.ALWAYS
    at_once = context.two_way is not None or (is_final and not right_empty)
    if at_once and any(side.unique_keys for side in written):
        yield "other fields than the key are unique, too"
    for side in written:
        if any(reference.dataset == side.name for reference in side.references):
            yield f"records of '{side.name}' refer to one another"


def _key_of(context: RunContext) -> SharedKey:
    """Raises DigestsRefused."""
    both_ways = context.two_way is not None
    return shared_key(context.mapping, context.left, context.right, both_ways=both_ways)


def _forms(context: RunContext, key: SharedKey) -> tuple[str, ...]:
    """Raises DigestsRefused."""
    left, right = context.left_connector, context.right_connector
    both_ways = context.two_way is not None
    return key.forms(left.digest_forms, right.digest_forms, both_ways=both_ways)


def _by_ranges(context: RunContext, key: SharedKey, parts: int, *, right_empty: bool) -> Cut:
    """Ranges of about equal numbers of rows. Raises DigestsRefused."""
    types = key.ordered_types()
    simple = [neutral.kind for neutral in types] == [Kind.INTEGER]
    left, right = context.left_connector, context.right_connector
    for connector in (left,) if right_empty else (left, right):
        can = connector.capabilities
        if not (can.key_spans or (simple and can.key_ranges)):
            raise DigestsRefused(f"{connector.label} does not read ranges of such a key")
    larger = (context.right.row_count or 0) > (context.left.row_count or 0) and not right_empty
    indexed = True
    if not right_empty:
        indexed = right.split(context.right, key.right, 1).indexed
    indexed = left.split(context.left, key.left, 1).indexed and indexed
    count = parts if indexed else min(parts, MOST_SCANS)
    cut: KeyBounds = (
        right.split(context.right, key.right, count)
        if larger
        else left.split(context.left, key.left, count)
    )
    edges = [None, *(bound for bound in cut.bounds if None not in bound), None]
    ranges = tuple(
        Partition(
            run=context.run,
            number=number,
            kind=Partition.Kind.RECORDS,
            cut=Partition.Cut.RANGE,
            lower=encode_bound(lower, types),
            upper=encode_bound(upper, types),
        )
        for number, (lower, upper) in enumerate(pairwise(edges), start=1)
    )
    if len(ranges) < 2:
        raise DigestsRefused("the key has too few different values")
    scans = "" if indexed else "; no index serves them, so there are no more"
    return Cut(ranges, f"{len(ranges)} key ranges of about equal numbers of records{scans}")


def _by_shares(context: RunContext, key: SharedKey, parts: int, no_ranges: str) -> Cut:
    """Shares by a hash of the key. Raises DigestsRefused."""
    connectors = (context.left_connector, context.right_connector)
    if not all(connector.capabilities.key_shares for connector in connectors):
        raise DigestsRefused(no_ranges)
    _forms(context, key)
    count = min(parts, MOST_SCANS)
    shares = tuple(
        Partition(
            run=context.run,
            number=number + 1,
            kind=Partition.Kind.RECORDS,
            cut=Partition.Cut.SHARE,
            share=number,
            shares=count,
        )
        for number in range(count)
    )
    reason = f"{count} shares by a hash of the key, because {no_ranges}"
    return Cut(shares, reason[:255])
