"""Changes that may be written only if another change of the same record was.

A merged or decided value that both sides get is written to the right first; the left one takes
that for granted. Whatever follows the insert of a record does as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from apps.connectors.base import WriteProblem, WriteStatus
from apps.ledger.models import Change, Operation
from apps.ledger.selectors import PlannedChange

_BOTH = (Change.Cause.MERGED, Change.Cause.DECIDED)
_REFUSED = (
    Change.Outcome.STALE,
    Change.Outcome.REJECTED,
    Change.Outcome.IN_DOUBT,
    Change.Outcome.SKIPPED,
)
_BLOCKED = WriteProblem(
    WriteStatus.STALE,
    "record.other_half_refused",
    "the change of the same record on the other side was not written",
)


def blocked(partition_id: UUID, batch: Sequence[PlannedChange]) -> dict[int, WriteProblem]:
    """Which changes of a batch must wait because an earlier one of their record was refused."""
    refused = Change.objects.filter(
        partition_id=partition_id, sequence__lt=batch[0].sequence, outcome__in=_REFUSED
    ).exclude(side=batch[0].side)
    by_key: dict[tuple[str, str], bool] = {}
    for left, right, operation in refused.values_list("left_key", "right_key", "operation"):
        for address in (("left", left), ("right", right)):
            if address[1]:
                by_key[address] = by_key.get(address, False) or operation == Operation.INSERT
    found = {}
    for change in batch:
        earlier = [
            by_key[address]
            for address in (("left", change.left_key), ("right", change.right_key))
            if address in by_key
        ]
        if any(earlier) or (earlier and change.cause in _BOTH):
            found[change.sequence] = _BLOCKED
    return found
