"""Reverse changes: what puts a record back to how it was before some changes were written.

Only what those changes wrote is put back, field by field. The precondition of a reverse change is
what they left behind, so that a record which somebody has edited since is refused, not overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from apps.connectors.base import Operation

Image = Mapping[str, str | None]
"""A record, or some fields of it, as canonical texts."""


@dataclass(frozen=True, slots=True)
class WrittenChange:
    """A change that was written to one side; key and key_after are that side's."""

    operation: Operation
    key: str
    key_after: str
    before: Image | None
    after: Image | None


@dataclass(frozen=True, slots=True)
class ReverseChange:
    """What undoes changes of one record.

    key: addresses the record as it is now; key_after: its key once it is put back;
    before: what must be there; after: what is written; None as in `connectors.base.ChangeBatch`.
    """

    operation: Operation
    key: str
    key_after: str
    before: dict[str, str | None] | None
    after: dict[str, str | None] | None


def reverse_of(changes: Sequence[WrittenChange]) -> ReverseChange | None:
    """What undoes these changes of one record on one side, oldest first; None: nothing to do."""
    existed = changes[0].operation is not Operation.INSERT
    exists = changes[-1].operation is not Operation.DELETE
    then, now = _values(changes, existed=existed)
    first, last = changes[0].key, changes[-1].key_after or changes[-1].key
    if existed and exists:
        names = [name for name, value in then.items() if name not in now or now[name] != value]
        if not names:
            return None
        before = {name: now[name] for name in names if name in now}
        after = {name: then[name] for name in names}
        return ReverseChange(Operation.UPDATE, last, first, before, after)
    if existed:
        return ReverseChange(Operation.INSERT, first, first, None, then)
    if exists:
        return ReverseChange(Operation.DELETE, last, last, now, None)
    return None


def _values(
    changes: Sequence[WrittenChange], *, existed: bool
) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """The values before the first change, and those that the last one left behind."""
    then: dict[str, str | None] = {}
    now: dict[str, str | None] = {}
    is_first_life = existed
    for change in changes:
        if is_first_life and change.before is not None:
            for name, value in change.before.items():
                then.setdefault(name, value)
        if change.operation is Operation.DELETE:
            is_first_life, now = False, {}
        else:
            now.update(change.after or {})
    return then, now
