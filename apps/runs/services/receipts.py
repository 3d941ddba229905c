"""What became of the writes of a worker that is lost, told by the receipts that it left.

A receipt is noted just before a batch is committed, with what the target made of each record. So a
change without one was never written. One with a receipt was, unless the worker died in between.
Which of the two, the target says where it remembers its transactions (`transaction_status`). Of
another one the record tells, read as it is now:

- nowhere as before, and in some field as stored: it got through. What differs, somebody edited
  afterwards. (A new record was nowhere before);
- in all fields as before: it did not. It is written now;
- (where the target makes of the record what it was before, both are the same, and nothing is done);
- anything else: nobody can tell. It is written only if the record is as before, and else counts as
  moved: both sides are compared with their last base, so that neither value is lost. Only counters
  would count one difference twice: their base is in doubt from then on, and a person is asked.

What an earlier worker stored is what the link remembers, though somebody may have edited the record
since: so a trigger or a lossy type of the target is never taken for an edit, nor an edit for it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from uuid import UUID

import orjson

from apps.connectors.base import Operation, WriteResult
from apps.engine.reconcile import IN_DOUBT
from apps.engine.spec import FieldPolicy, RuleSpec
from apps.ledger.models import NO_RECORD
from apps.ledger.selectors import PlannedChange, receipts_of
from apps.ledger.services import Stored
from apps.runs.services.reading import Image, live_images
from apps.runs.services.writing import SideWriter

StoredBySequence = Mapping[int, Stored]
Committed = Callable[[str], bool | None]


class Fate(Enum):
    """What became of a write that has a receipt."""

    WRITTEN = "written"
    NOT_WRITTEN = "not written"
    UNCLEAR = "unclear"


@dataclass(slots=True)
class Receipts:
    """What an earlier worker has noted of batches that nobody has settled, by sequence.

    transactions: what the target knows a change's transaction by; written: those of which it has
    said that they were committed.
    """

    stored: dict[int, Stored] = field(default_factory=dict)
    transactions: dict[int, str] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)

    @classmethod
    def left(cls, partition_id: UUID) -> Receipts:
        """Those of a partition."""
        found = cls()
        for sequence, (transaction, parts) in receipts_of(partition_id).items():
            found.stored[sequence] = Stored(*parts)
            if transaction:
                found.transactions[sequence] = transaction
        return found

    def ask(self, committed: Committed) -> None:
        """Ask the target, once; what it says was taken back counts as if nobody had tried."""
        told = {name: committed(name) for name in set(self.transactions.values())}
        for sequence, name in self.transactions.items():
            if told[name]:
                self.written.add(sequence)
            elif told[name] is False:
                del self.stored[sequence]
        self.transactions = {}


def noted(
    changes: Sequence[PlannedChange], result: WriteResult, stored: StoredBySequence
) -> dict[int, Stored]:
    """The receipt of a batch: the changes that it writes, and what differs from what was sent."""
    return {
        change.sequence: _altered(change, stored.get(change.sequence, Stored()))
        for row, change in enumerate(changes)
        if row not in result.exceptions
    }


def _altered(change: PlannedChange, back: Stored) -> Stored:
    return replace(
        back,
        after="" if back.after == change.after else back.after,
        base_left="" if back.base_left == change.base_left else back.base_left,
        base_right="" if back.base_right == change.base_right else back.base_right,
    )


def fates(
    changes: Sequence[PlannedChange], receipts: Receipts, side: SideWriter
) -> dict[int, Fate]:
    """What became of those of the changes, of one side, that have receipts; by sequence."""
    known = {c.sequence: Fate.WRITTEN for c in changes if c.sequence in receipts.written}
    others = [
        change
        for change in changes
        if change.sequence in receipts.stored.keys() - known.keys()
        and change.operation != Operation.DELETE
    ]
    return known | _told_by_records(others, receipts.stored, side)


def _told_by_records(
    changes: Sequence[PlannedChange], stored: StoredBySequence, side: SideWriter
) -> dict[int, Fate]:
    doubtful = {c.sequence: (c, stored[c.sequence].own_key or c.key_after) for c in changes}
    if not doubtful:
        return {}
    names = {name for change, _ in doubtful.values() for name in change.fields}
    types = {name: kind for name, kind in side.types.items() if name in names}
    keys = sorted({key for _, key in doubtful.values()} - {""})
    live = live_images(side.reader, types, keys)
    return {
        sequence: fate_of(change, stored[sequence], live.get(key), side.reader.key)
        for sequence, (change, key) in doubtful.items()
    }


def fate_of(
    change: PlannedChange, stored: Stored, live: Image | None, key: Collection[str]
) -> Fate:
    """What became of one insert or update.

    stored: what its receipt says; live: its record as it is now; key: the fields of its key.
    """
    if live is None:
        return Fate.NOT_WRITTEN
    before: Image = orjson.loads(change.before) if change.before else {}
    after: Image = orjson.loads(stored.after or change.after)
    told = [name for name, value in after.items() if value != before.get(name) and name in live]
    as_stored = {name for name in told if live[name] == after[name]}
    if change.operation == Operation.INSERT:
        others = {name for name in told if name not in key}
        return Fate.WRITTEN if others & as_stored or not others else Fate.UNCLEAR
    as_before = {name for name in told if live[name] == before.get(name)}
    if told and as_before == set(told):
        return Fate.NOT_WRITTEN
    return Fate.WRITTEN if (as_stored or not told) and not as_before else Fate.UNCLEAR


def doubt(change: PlannedChange, rule: RuleSpec) -> str:
    """The patch that puts the base of the counters of a change in doubt (JSON); empty for none."""
    if rule.two_way is None or not change.own_key:
        return ""
    patched = {
        name
        for patch in (change.base_left, change.base_right)
        if patch and patch != NO_RECORD
        for name in orjson.loads(patch)
    }
    policy_of = rule.two_way.policy_of
    counters = [name for name in patched if policy_of(name).policy is FieldPolicy.COUNTER]
    return orjson.dumps(dict.fromkeys(sorted(counters), IN_DOUBT)).decode() if counters else ""
