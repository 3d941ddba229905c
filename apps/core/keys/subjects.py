"""One key per data subject: found or made for many at once, opened one by one, erased for good.

A subject is a value of a dataset's subject field. It is found by a blind index: HMAC-SHA-256 under
a data key that does nothing else. The table says how many subjects there are, not who they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from apps.core.keys.blind import blind_hash
from apps.core.keys.providers import KEY_BYTES
from apps.core.models import SubjectKey
from apps.core.protected import SUBJECT_VERSION, ErasedValueError, seal, unseal

CHUNK = 500
KEPT_SECONDS = 30.0  # so long a process may still read who was erased
KEPT_KEYS = 10_000


@dataclass(frozen=True, slots=True)
class SubjectSealer:
    """A subject's key in clear, for `protected.seal`."""

    head: bytes
    aead: AESGCM = field(repr=False)


def blind_index(dataset_id: UUID, value: str) -> bytes:
    """What stands for a subject in the database: 32 bytes, the same for the same subject."""
    return blind_hash("subject", f"{dataset_id}|{value}")


def index_of_nobody_known(dataset_id: UUID) -> bytes:
    """What stands for the subject of a record of which it cannot be told whom it is about.

    It may be anybody: every erasure of a subject of the dataset erases this one, too.
    """
    return blind_index(dataset_id, "")


def erasures_of(indices: Iterable[bytes]) -> dict[bytes, datetime]:
    """When these subjects were erased last, by index; without those who never were."""
    found: dict[bytes, datetime] = {}
    every = sorted(set(indices))
    for start in range(0, len(every), CHUNK):
        erased = SubjectKey.objects.filter(index__in=every[start : start + CHUNK])
        erased = erased.exclude(erased_at=None).order_by("erased_at")
        rows = erased.values_list("index", "erased_at")
        found |= {bytes(index): at for index, at in rows if at is not None}
    return found


def subject_sealers(dataset_id: UUID, values: Iterable[str]) -> dict[str, SubjectSealer]:
    """The keys of these subjects, by value; those that have none get one.

    Call it in the transaction that keeps what is encrypted with them. Any number may try at once.
    """
    indices = {blind_index(dataset_id, value): value for value in values}
    found: dict[str, SubjectSealer] = {}
    every = sorted(indices)  # in one order, so that two who insert do not wait in a circle
    for start in range(0, len(every), CHUNK):
        for row in _rows(dataset_id, every[start : start + CHUNK]):
            found[indices[bytes(row.index)]] = _sealer(row)
    return found


def _rows(dataset_id: UUID, indices: Sequence[bytes]) -> list[SubjectKey]:
    living = SubjectKey.objects.filter(index__in=indices, erased_at=None)
    rows = list(living)
    missing = sorted(set(indices) - {bytes(row.index) for row in rows})
    if missing:
        made = [_new(dataset_id, index) for index in missing]
        SubjectKey.objects.bulk_create(made, ignore_conflicts=True)
        rows += living.filter(index__in=missing)
    return rows


def _new(dataset_id: UUID, index: bytes) -> SubjectKey:
    row = SubjectKey(dataset_id=dataset_id, index=index)
    row.sealed_key = seal(os.urandom(KEY_BYTES), _place(row.pk))
    return row


def _place(key_id: int) -> str:
    return f"subject key|{key_id}"


def _sealer(row: SubjectKey) -> SubjectSealer:
    secret = unseal(row.sealed_key, _place(row.pk))
    return SubjectSealer(head_of_subject(row.pk), AESGCM(secret))


def head_of_subject(key_id: int) -> bytes:
    """How values that a subject's key encrypts begin."""
    return bytes([SUBJECT_VERSION]) + key_id.to_bytes(8)


_opened: dict[bytes, tuple[float, AESGCM]] = {}


def aead_of_subject(head: bytes, identity: str) -> AESGCM | None:
    """The key of values that begin so; None where there is none. Raises ErasedValueError."""
    moment = time.monotonic()
    kept = _opened.get(head)
    if kept is not None and moment < kept[0]:
        return kept[1]
    row = SubjectKey.objects.filter(pk=int.from_bytes(head[1:])).first()
    if row is None:
        return None
    if row.sealed_key is None:
        raise ErasedValueError("this value was erased with its person's key", where=identity)
    aead = _sealer(row).aead
    if len(_opened) >= KEPT_KEYS:
        _opened.clear()
    _opened[head] = (moment + KEPT_SECONDS, aead)
    return aead


def forget_subject_keys() -> None:
    """What this process has opened is opened anew."""
    _opened.clear()
