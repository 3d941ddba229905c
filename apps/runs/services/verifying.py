"""Verifying: read a sample of what was written back, on both sides, and count the records."""

from __future__ import annotations

from collections.abc import Sequence

from apps.connectors.keeping import keep_connections
from apps.core.clock import now
from apps.ledger.models import Change, Side
from apps.ledger.selectors import applied_sample, link_count
from apps.runs.models import Partition, Run, RunLog
from apps.runs.services.context import RunContext, load_context
from apps.runs.services.leasing import Lease
from apps.runs.services.logs import log
from apps.runs.services.reading import live_images
from apps.sources.services import note_row_count

SAMPLE = 1_000
Image = dict[str, str | None]


@keep_connections()
def verify(partition: Partition, lease: Lease) -> None:
    """Compare a sample of applied changes with what is there now; remember the counts."""
    run = partition.run
    context = load_context(run, lease)
    sample = applied_sample(run.pk, SAMPLE)
    sampled = equal = 0
    lease.check()
    for side in Side:
        expected = _expected([change for change in sample if change.side == side])
        found = _found(context, side, expected)
        sampled += len(expected)
        equal += sum(found.get(key) == image for key, image in expected.items())
    counted = _counted(context) if run.sees_everything else {}
    mapping = run.rule.mapping
    with lease.transaction():
        note_row_count(mapping.right, counted.get("target"))
        note_row_count(mapping.left, counted.get("source", context.left_live.row_count))
        accuracy = {"sampled": sampled, "equal": equal, **counted}
        Run.objects.filter(pk=run.pk).update(accuracy=accuracy)
        lease.update(state=Partition.State.DONE, finished_at=now(), lease_until=None)
    totals = f"; {counted['linked']} linked, {counted['target']} in the target" if counted else ""
    log(
        run,
        f"Verified: {equal} of {sampled} sampled records are as written{totals}",
        level=RunLog.Level.WARNING if equal < sampled else RunLog.Level.INFO,
    )


def _counted(context: RunContext) -> dict[str, int | None]:
    """How many records and links there are: after a run that looked at all of them anyway."""
    counted = {
        "linked": link_count(context.run.rule_id),
        "target": context.right_connector.count(context.right),
    }
    if context.two_way is not None:
        counted["source"] = context.left_connector.count(context.left)
    return counted


def _expected(changes: Sequence[Change]) -> dict[str, Image]:
    """What each record must hold, by key: its fields as the newest change left them."""
    expected: dict[str, Image] = {}
    for change in changes:
        _, after = change.images_in_clear()
        expected[change.key_now] = {**(after or {}), **expected.get(change.key_now, {})}
    return expected


def _found(context: RunContext, side: str, expected: dict[str, Image]) -> dict[str, Image]:
    """What the records hold now of the fields that are expected, by key."""
    reader = context.left_reader if side == Side.LEFT else context.right_reader
    types = context.left_types if side == Side.LEFT else context.right_types
    names = {name for image in expected.values() for name in image}
    found = live_images(reader, {n: t for n, t in types.items() if n in names}, sorted(expected))
    return {key: {n: image[n] for n in expected[key]} for key, image in found.items()}
