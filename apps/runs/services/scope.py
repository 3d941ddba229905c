"""Which records a partition is about, where it is not about all of them."""

from __future__ import annotations

from collections.abc import Iterable

from apps.ledger.models import Change
from apps.ledger.selectors import links_of_left, links_of_right
from apps.runs.models import Partition, Run

KeyPair = tuple[str, str]
"""Left and right key text of one record; empty where a key is not known."""


def keys_in_scope(partition: Partition) -> list[KeyPair] | None:
    """The keys of the records that this partition plans, None for all that the run looks at."""
    run = partition.run
    if partition.round:
        before = run.partitions.filter(round=partition.round - 1)
        return _linked(run, moved_keys(before.values_list("pk", flat=True)))
    if run.selection:
        return _linked(run, [(left, right) for left, right in run.selection])
    return None


def moved_keys(partition_ids: Iterable[object]) -> list[KeyPair]:
    """Keys of the changes that had moved when they were to be written."""
    stale = Change.objects.filter(
        partition_id__in=list(partition_ids), outcome=Change.Outcome.STALE
    )
    return sorted(set(stale.values_list("left_key", "right_key")))


def _linked(run: Run, pairs: list[KeyPair]) -> list[KeyPair]:
    """The same pairs, and those that links add: each side's key brings the other one's."""
    lefts = sorted({left for left, _ in pairs if left})
    rights = sorted({right for _, right in pairs if right})
    known: set[KeyPair] = set(pairs)
    for table in (links_of_left(run.rule_id, lefts), links_of_right(run.rule_id, rights)):
        columns = (table.column(name).to_pylist() for name in ("left_key", "right_key"))
        known |= set(zip(*columns, strict=True))
    return sorted(known)
