"""Erasing a person: the key goes, and with it every value that is under it; so does what names the
person by blind index only (`traces`).

1. A line goes into the register, which no restore takes back. If it cannot be written, nothing is
   erased.
2. The key is cleared, what names the person is removed and the act put on record, in one
   transaction. The row of the key stays, so that what was erased is told from what cannot be read
   by accident, and that nobody keeps anew what was met before the erasure.

After a restore the keys of the backup are back: `replay_erasures` clears those that are older than
an erasure of their subject. What a person became after that is another subject with another key.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db import transaction

from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.clock import now
from apps.core.keys.subjects import blind_index, forget_subject_keys
from apps.core.models import SubjectKey
from apps.core.selectors import permits
from apps.encryption.services.register import Entry, add_entry, entries
from apps.encryption.services.traces import note_erasure, remove_all_traces, remove_traces

if TYPE_CHECKING:
    from apps.accounts.models import User


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erasure came to."""

    keys: int
    traces: int  # rows that named the person by blind index


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay of the register came to."""

    entries: int
    erased: int  # keys that were back
    traces: int  # rows that were back
    strange: list[int]  # lines that Lockstep did not write, or that cannot be read


def erase_subject(dataset_id: UUID, value: str, *, actor: User | None, reason: str) -> Erased:
    """Destroy the keys of whom `value` of the dataset's subject field names, and all traces.

    Raises PermissionDenied, RegisterUnwritable. The audit log gets the reason, never the value.
    """
    if actor is not None and not permits(actor, SubjectKey, "erase"):
        raise PermissionDenied("you may not erase a person's values")
    index, moment = blind_index(dataset_id, value), now()
    add_entry(index, moment, dataset_id)
    with transaction.atomic():
        keys = _cleared(index, moment)
        note_erasure(dataset_id, index, moment)
        traces = remove_traces(dataset_id, index)
        record(
            Act.SUBJECT_ERASED,
            actor=actor,
            reason=reason,
            details={
                "dataset": str(dataset_id),
                "subject": index.hex()[:16],
                "keys": keys,
                "traces": traces,
            },
        )
    forget_subject_keys()
    return Erased(keys, traces)


def _cleared(index: bytes, before: datetime) -> int:
    living = SubjectKey.objects.filter(index=index, erased_at=None, created_at__lte=before)
    return living.update(sealed_key=None, erased_at=before)


def replay_erasures() -> Replayed:
    """Erase again whom a restore has brought back."""
    erased, strange, found = 0, [], entries()
    for entry in found:
        if entry.at is None or not entry.is_genuine:
            strange.append(entry.line)
            continue
        erased += _cleared(entry.index, entry.at)
        dataset_id = entry.dataset_id or _dataset_of(entry)
        if dataset_id is not None:
            note_erasure(dataset_id, entry.index, entry.at)
    traces = remove_all_traces()
    if erased or traces:
        record(Act.ERASURES_REPLAYED, actor=None, details={"keys": erased, "traces": traces})
        forget_subject_keys()
    return Replayed(len(found), erased, traces, strange)


def _dataset_of(entry: Entry) -> UUID | None:
    """The dataset of a subject of which the register says no dataset, where it had a key."""
    known = SubjectKey.objects.filter(index=entry.index).values_list("dataset_id", flat=True)
    return known.first()
