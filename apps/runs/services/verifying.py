"""Verifying: read a sample of what was written back, and count both sides."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from apps.connectors.base import ReadRequest
from apps.core.clock import now
from apps.engine.codec import decode_keys, encode_keys, image_hashes
from apps.ledger.selectors import applied_sample, link_count
from apps.runs.models import Partition, Run, RunLog
from apps.runs.services.context import load_context
from apps.runs.services.leasing import Lease
from apps.runs.services.logs import log

SAMPLE = 1_000


def verify(partition: Partition, lease: Lease) -> None:
    """Compare a sample of applied changes with what the target holds now; remember the counts."""
    run = partition.run
    context = load_context(run)
    sample = applied_sample(run.pk, SAMPLE)
    expected = {change.key_now: change.image for change in sample}
    found: dict[str, str] = {}
    if expected:
        mapped = tuple(field.right for field in context.mapping.fields)
        types = {name: context.right.field(name).type for name in mapped}
        key_types = {name: types[name] for name in context.mapping.key}
        request = ReadRequest(context.right, mapped, keys=decode_keys(sorted(expected), key_types))
        for batch in context.right_connector.read(request):
            table = pa.Table.from_batches([batch.records])
            keys = encode_keys(table, key_types)
            found.update(zip(keys, image_hashes(table, types), strict=True))
    different = [key for key, image in expected.items() if found.get(key) != image]
    accuracy: dict[str, Any] = {
        "sampled": len(expected),
        "equal": len(expected) - len(different),
        "linked": link_count(run.rule_id),
        "target": context.right_connector.count(context.right),
    }
    with lease.transaction():
        Run.objects.filter(pk=run.pk).update(accuracy=accuracy)
        lease.update(state=Partition.State.DONE, finished_at=now(), lease_until=None)
    level = RunLog.Level.WARNING if different else RunLog.Level.INFO
    log(
        run,
        f"Verified: {accuracy['equal']} of {accuracy['sampled']} sampled records are as written; "
        f"{accuracy['linked']} linked, {accuracy['target']} in the target",
        level=level,
    )
