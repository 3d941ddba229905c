"""Sealing: the events that no seal covers yet are fixed in batches, each linked to the one before.

1. The last seal is read, then the ids that wait (`AuditPending`), smallest first. A seal that
   somebody else commits in between takes the same number, and the database refuses the second.
2. Root over the events' contents, keyed hash over the seal, which names the hash of the last one.
3. The seal is added and the ids stop waiting, in one transaction.
4. After the commit the seal is told to a file outside the database (`checkpoints`).

An event whose transaction commits late appears among those that wait when it does, whatever its
id and time: it goes into the next seal, and no earlier one needs to be opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef

from apps.audit.canonical import (
    event_form,
    keyed_hash,
    leaf,
    merkle_root,
    packed_ids,
    seal_form,
    sealing_key_id,
)
from apps.audit.models import AuditEvent, AuditPending, AuditSeal
from apps.audit.services.checkpoints import write_checkpoints
from apps.core.clock import now

BATCH = 1_000
NO_SEAL = bytes(32)  # what the first seal links to


def seal_pending(batch: int = BATCH) -> int:
    """Seal every event that waits, `batch` at most in one seal; returns how many were sealed.

    Any number of sealers may run: each event goes into one seal.
    """
    sealed = 0
    while (count := _seal_batch(batch)) > 0:
        sealed += count
    write_checkpoints()
    return sealed


def _seal_batch(batch: int) -> int:
    try:
        with transaction.atomic():
            last = AuditSeal.objects.order_by("-number").only("number", "mac").first()
            events = _waiting(batch)
            if not events:
                return 0
            _seal(events, last).save()
            _no_longer_wait([event.id for event in events])
    except IntegrityError:  # another sealer was faster; what it left waits for the next turn
        return 0
    return len(events)


def _waiting(batch: int) -> Sequence[AuditEvent]:
    """Events that wait, by id. One that is gone keeps waiting, for the verification to find."""
    there = Exists(AuditEvent.objects.filter(pk=OuterRef("event_id")))
    waiting = AuditPending.objects.filter(there).order_by("event_id")
    ids = list(waiting.values_list("event_id", flat=True)[:batch])
    found = AuditEvent.objects.in_bulk(ids)
    return [found[one] for one in ids if one in found]


def _seal(events: Sequence[AuditEvent], last: AuditSeal | None) -> AuditSeal:
    ids = [event.id for event in events]
    seal = AuditSeal(
        number=last.number + 1 if last else 1,
        sealed_at=now(),
        count=len(ids),
        first_event_id=ids[0],
        last_event_id=ids[-1],
        event_ids=packed_ids(ids),
        root=merkle_root([leaf(event_form(event)) for event in events]),
        previous_mac=bytes(last.mac) if last else NO_SEAL,
        key_id=sealing_key_id(),
    )
    seal.mac = keyed_hash(seal_form(seal), seal.key_id)
    return seal


def _no_longer_wait(ids: Sequence[UUID]) -> None:
    for start in range(0, len(ids), 500):
        AuditPending.objects.filter(event_id__in=ids[start : start + 500]).delete()
