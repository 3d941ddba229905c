"""Rotation: everything stored is encrypted anew with a new data key, while runs go on.

1. A new key becomes active. Other processes notice within `LIST_SECONDS`; until then they go on
   encrypting with the old one, which stays readable.
2. A pass walks each column of protected values by primary key, over the values that are not under
   the new key. A batch is opened, sealed anew, and exchanged where the row still holds the very
   bytes that were read (compare-and-set): what somebody writes meanwhile is never lost. Rows that
   another transaction holds are left for the next pass, so that no run ever waits in a circle.
3. Each batch commits with its place, so that a rotation that was killed goes on from there. Any
   worker may: a lease keeps two from doing the same work, the exchange keeps it harmless.
4. Passes follow until one that began after all processes knew the new key finds nothing left.

Contents of segments keep their bytes: it is their own keys that are sealed anew.
"""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import IntegrityError, transaction
from django.db.models import F, Q

from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.bulk import bulk_exchange
from apps.core.clock import now
from apps.core.keys import LIST_SECONDS, current_ring, forget_keys, renew_key
from apps.core.models import DataKey
from apps.core.protected import ProtectedValueError, seal, unseal
from apps.core.selectors import require
from apps.encryption.columns import SealedColumn, Stored, rotated_columns
from apps.encryption.models import Rotation, RotationColumn
from apps.encryption.selectors import data_keys, progress_of

if TYPE_CHECKING:
    from apps.accounts.models import User

BATCH = 200  # rows held at a time
LEASE = timedelta(seconds=60)
MARGIN_SECONDS = 5.0  # beyond LIST_SECONDS, until every process knows a new key
PAUSE_SECONDS = 0.2  # before a pass over rows that others held


def start_rotation(*, actor: User | None) -> Rotation:
    """Make new data keys and begin to encrypt everything anew; returns the one that runs already.

    `continue_rotation` does the work, in any process.
    """
    require(actor, data_keys, "rotate")
    running = Rotation.objects.filter(state=Rotation.State.RUNNING).first()
    if running is not None:
        return running
    renew_key(DataKey.Purpose.HASHES)
    key = renew_key(DataKey.Purpose.VALUES)
    try:
        with transaction.atomic():
            return _started(key, actor)
    except IntegrityError:  # somebody else was faster: everything goes to the newest key anyway
        return Rotation.objects.get(state=Rotation.State.RUNNING)


def _started(key: DataKey, actor: User | None) -> Rotation:
    known_at = key.created_at + timedelta(seconds=LIST_SECONDS + MARGIN_SECONDS)
    rotation = Rotation.objects.create(
        key=key,
        asked_by=actor.get_username() if actor else "the system",
        known_at=known_at,
        pass_started_at=now(),
    )
    lines = [RotationColumn(rotation=rotation, label=c.label) for c in rotated_columns()]
    RotationColumn.objects.bulk_create(lines)
    record(Act.KEY_ROTATION_STARTED, rotation, actor=actor, details={"key": key.name})
    return rotation


def continue_rotation(rotation_id: uuid.UUID, seconds: float) -> Rotation:
    """Go on for about so long; returns the rotation as it is then.

    Does nothing while another worker has it.
    """
    worker = uuid.uuid4()
    if _leased(rotation_id, worker):
        try:
            _work(rotation_id, worker, time.monotonic() + seconds)
        finally:
            mine = Rotation.objects.filter(pk=rotation_id, worker=worker)
            mine.update(worker=None, lease_until=None)
    return Rotation.objects.select_related("key").get(pk=rotation_id)


def _leased(rotation_id: uuid.UUID, worker: uuid.UUID) -> bool:
    """Take the lease, or keep it."""
    free = Q(lease_until=None) | Q(lease_until__lt=now()) | Q(worker=worker)
    rows = Rotation.objects.filter(free, pk=rotation_id, state=Rotation.State.RUNNING)
    return bool(rows.update(worker=worker, lease_until=now() + LEASE))


def _work(rotation_id: uuid.UUID, worker: uuid.UUID, until: float) -> None:
    rotation = Rotation.objects.get(pk=rotation_id)
    if current_ring().active[DataKey.Purpose.VALUES] != rotation.key_id:
        forget_keys()  # this process has not noticed the new key yet
    columns = {column.label: column for column in rotated_columns()}
    while time.monotonic() < until and _leased(rotation_id, worker):
        line = RotationColumn.objects.filter(rotation_id=rotation_id, walked=False).first()
        if line is None:
            if not _begin_pass(Rotation.objects.get(pk=rotation_id)):
                return
        elif line.label in columns:
            if rotation.passes == 1 and not line.position:
                _count(columns[line.label], line)
            _rewrite_batch(columns[line.label], line)
        else:  # a column of another version of Lockstep
            line.delete()


def _count(column: SealedColumn, line: RotationColumn) -> None:
    """How many values there are to encrypt anew: here, because it takes its time."""
    key = current_ring().active_key(DataKey.Purpose.VALUES)
    RotationColumn.objects.filter(pk=line.pk).update(total=column.stale(key.head).count())


def _rewrite_batch(column: SealedColumn, line: RotationColumn) -> None:
    """The next values of a column, and where it has come to: one transaction."""
    key = current_ring().active_key(DataKey.Purpose.VALUES)
    batch = column.read(column.stale(key.head), line.position, BATCH)
    resealed = [(v.pk, v.sealed, new) for v in batch if (new := _resealed(v)) is not None]
    with transaction.atomic():
        done = bulk_exchange(column.model, column.field.name, resealed) if resealed else 0
        RotationColumn.objects.filter(pk=line.pk).update(
            rewritten=F("rewritten") + done,
            moved=F("moved") + len(resealed),
            unreadable=F("unreadable") + len(batch) - len(resealed),
            position=str(batch[-1].pk) if batch else line.position,
            walked=len(batch) < BATCH,
        )


def _resealed(value: Stored) -> bytes | None:
    """The value under the key in use; None where it cannot be read."""
    try:
        return seal(unseal(value.sealed, value.place), value.place)
    except ProtectedValueError:
        return None


def _begin_pass(rotation: Rotation) -> bool:
    """After a pass: begin the next one, or finish; whether there is work now."""
    is_clean = not rotation.columns.filter(moved__gt=0).exists()
    if is_clean and rotation.pass_started_at >= rotation.known_at:
        _finish(rotation)
        return False
    if is_clean and now() < rotation.known_at:
        return False
    time.sleep(PAUSE_SECONDS)
    with transaction.atomic():
        rotation.columns.update(position="", walked=False, moved=0, unreadable=0)
        rotation.passes, rotation.pass_started_at = rotation.passes + 1, now()
        rotation.save(update_fields=["passes", "pass_started_at"])
    return True


def _finish(rotation: Rotation) -> None:
    progress = progress_of(rotation)
    with transaction.atomic():
        rotation.state, rotation.finished_at = Rotation.State.DONE, now()
        rotation.save(update_fields=["state", "finished_at"])
        record(
            Act.KEY_ROTATION_FINISHED,
            rotation,
            actor=None,
            details={"values": progress.rewritten, "unreadable": progress.unreadable},
        )
