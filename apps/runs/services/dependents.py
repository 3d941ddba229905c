"""Changes that may be written only if another change of the same record was.

A merged or decided value that both sides get is written to the right first; the left one takes
that for granted. Whatever follows the insert of a record does as well.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

from apps.connectors.base import WriteProblem, WriteStatus
from apps.ledger.models import Change, Operation, Side
from apps.ledger.selectors import PlannedChange, refused_changes

_BOTH = (Change.Cause.MERGED, Change.Cause.DECIDED)
_OTHER: dict[str, str] = {Side.LEFT: Side.RIGHT.value, Side.RIGHT: Side.LEFT.value}
_BLOCKED = WriteProblem(
    WriteStatus.STALE,
    "record.other_half_refused",
    "the change of the same record on the other side was not written",
)


class RefusedRecords:
    """The records of a partition's changes that were not written, by the side written to.

    Read once from the ledger, then kept up with each batch: so a plan of n changes costs n steps,
    however many are refused. Keys are kept as hashes, so that large plans fit.
    """

    def __init__(self, partition_id: UUID) -> None:
        self._refused: dict[str, set[int]] = {side.value: set() for side in Side}
        self._inserts: dict[str, set[int]] = {side.value: set() for side in Side}
        for item in refused_changes(partition_id):
            self._add(item.side, item.operation, item.left_key, item.right_key)

    def add(self, batch: Sequence[PlannedChange], refused: Collection[int]) -> None:
        """Of a batch that is settled, the changes with these sequences were not written."""
        for change in batch:
            if change.sequence in refused:
                self._add(change.side, change.operation, change.left_key, change.right_key)

    def _add(self, side: str, operation: str, left_key: str, right_key: str) -> None:
        marks = _marks(left_key, right_key)
        self._refused[side].update(marks)
        if operation == Operation.INSERT:
            self._inserts[side].update(marks)

    def blocked(self, batch: Sequence[PlannedChange]) -> dict[int, WriteProblem]:
        """Which changes of a batch must wait because an earlier one of their record did."""
        return {change.sequence: _BLOCKED for change in batch if self._blocks(change)}

    def _blocks(self, change: PlannedChange) -> bool:
        other = _OTHER[change.side]
        if not self._refused[other]:
            return False
        marks = _marks(change.left_key, change.right_key)
        refused = not self._refused[other].isdisjoint(marks)
        return refused and (change.cause in _BOTH or not self._inserts[other].isdisjoint(marks))


def _marks(left_key: str, right_key: str) -> list[int]:
    """What stands for a record, by the keys that are known of it."""
    return [hash(pair) for pair in (("left", left_key), ("right", right_key)) if pair[1]]
