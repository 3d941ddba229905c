"""The data keys of this process, unwrapped, for a while.

The list of keys is read anew every `LIST_SECONDS`, so that a process notices a new active key
without a restart; a key stays unwrapped for `LOCKSTEP_DATA_KEY_SECONDS`, then its provider is
asked again. Between that no value costs a query.

The list is read on a connection of its own. The thread's may be in the middle of a COPY, whose rows
are sealed as they go; or in a transaction that has made a key and may come to nothing, which would
leave values that nobody can open.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, connections

from apps.connectors.errors import LockstepError
from apps.core.keys import providers
from apps.core.keys.errors import DataKeyMissing, KeyProviderUnreachable
from apps.core.models import DataKey

FORMAT_VERSION = 2  # of protected values
LIST_SECONDS = 30.0
AGAIN_SECONDS = 5.0  # where a provider did not answer
MISS_SECONDS = 1.0  # one key that is not on the list is looked for no more often
MOST_MISSED = 1_000
_COLUMNS = ("id", "purpose", "state", "wrapped", "wrapped_by")


@dataclass(frozen=True, slots=True)
class OpenKey:
    """A data key in clear. It never leaves the process."""

    id: int
    name: str
    purpose: str
    head: bytes  # how values that it encrypts begin
    secret: bytes = field(repr=False)
    aead: AESGCM = field(repr=False)
    opened_at: float


def head_of(key_id: int) -> bytes:
    """How values that a key encrypts begin."""
    return bytes([FORMAT_VERSION]) + key_id.to_bytes(8)


class Ring:
    """What is known of the data keys at a moment."""

    def __init__(self) -> None:
        self.open: dict[int, OpenKey] = {}
        self.of_values: dict[bytes, AESGCM] = {}  # by what their values begin with
        self.closed: dict[int, LockstepError] = {}  # why they cannot be opened
        self.active: dict[str, int] = {}  # purpose -> id
        self.read_at = time.monotonic()
        self.fresh_until = 0.0
        self._derived: dict[str, dict[str, bytes]] = {}

    def add(self, key: OpenKey) -> None:
        self.open[key.id] = key
        if key.purpose == DataKey.Purpose.VALUES:
            self.of_values[key.head] = key.aead

    def active_key(self, purpose: str) -> OpenKey:
        """What is in use for a purpose. Raises the provider's error where it cannot be opened."""
        key_id = self.active.get(purpose)
        if key_id is None:
            raise DataKeyMissing(
                f"there is no data key for {purpose}", remedy="Run `manage.py migrate` to its end."
            )
        key = self.open.get(key_id)
        if key is None:
            raise self.closed[key_id]
        return key

    def derived(self, purpose: str) -> Mapping[str, bytes]:
        """Keys of 256 bits for one more purpose, by name; the first one is in use.

        HKDF with SHA-256 (RFC 5869): what becomes known of one says nothing of the others.
        """
        if purpose not in self._derived:
            self._derived[purpose] = {
                name: HKDF(hashes.SHA256(), 32, salt=None, info=purpose.encode()).derive(secret)
                for name, secret in self._hash_secrets()
            }
        return self._derived[purpose]

    def _hash_secrets(self) -> list[tuple[str, bytes]]:
        """The keys of hashes, the active one first; then those from before there were any."""
        active = self.active_key(DataKey.Purpose.HASHES)
        others = [key for key in self.open.values() if key.purpose == active.purpose]
        local = providers.local_keys()
        return [
            (active.name, active.secret),
            *((key.name, key.secret) for key in others if key is not active),
            *(local.keys.items() if local else ()),
        ]


_lock = threading.RLock()
_ring: Ring | None = None
_missed: dict[bytes, float] = {}  # what was looked for, until when it is not looked for again


def current_ring() -> Ring:
    """The keys of this process. Raises ConfigurationError where they cannot be had."""
    current = _ring
    if current is None or time.monotonic() >= current.fresh_until:
        current = _refreshed(current)
    return current


def key_of_values(head: bytes) -> AESGCM | None:
    """The key of values that begin so, also one that another process has just made.

    None where there is none. Raises the provider's error where it cannot be opened.
    """
    current = current_ring()
    found = current.of_values.get(head)
    if found is not None:
        return found
    if _may_be_new(head):
        current = _refreshed(current)
    reason = current.closed.get(int.from_bytes(head[1:]))
    if reason is not None:
        raise reason
    return current.of_values.get(head)


def _may_be_new(head: bytes) -> bool:
    """Whether to look for a key that is not on the list: not if it was missed a moment ago.

    However fresh the list is: the key of a value that was just read was made before that, and
    perhaps after the list was read.
    """
    moment = time.monotonic()
    if moment < _missed.get(head, 0.0):
        return False
    if len(_missed) >= MOST_MISSED:
        _missed.clear()
    _missed[head] = moment + MISS_SECONDS
    return True


def forget_keys() -> None:
    """The next use reads and unwraps all keys anew."""
    global _ring
    with _lock:
        _ring = None
        _missed.clear()
        providers.forget_providers()


def _refreshed(seen: Ring | None) -> Ring:
    global _ring
    with _lock:
        if _ring is None or _ring is seen:  # else another thread was faster
            _ring = _read(seen)
        return _ring


def _read(before: Ring | None) -> Ring:
    """The list as the database has it; keys that were opened lately stay open."""
    fresh = Ring()
    keep = float(settings.DATA_KEY_SECONDS)
    for row in _rows():
        known = before.open.get(row.id) if before else None
        if known is not None and fresh.read_at < known.opened_at + keep:
            fresh.add(known)
        else:
            _open(row, fresh)
        if row.is_active:
            fresh.active[row.purpose] = row.id
    passing = any(isinstance(error, KeyProviderUnreachable) for error in fresh.closed.values())
    fresh.fresh_until = fresh.read_at + (AGAIN_SECONDS if passing else LIST_SECONDS)
    return fresh


def _rows() -> list[DataKey]:
    """Keys that are not destroyed, the newest first."""
    kept = DataKey.objects.exclude(state=DataKey.State.DESTROYED).order_by("-created_at", "id")
    sql, parameters = kept.values_list(*_COLUMNS).query.sql_with_params()
    own = connections.create_connection(DEFAULT_DB_ALIAS)
    try:
        with own.cursor() as cursor:
            cursor.execute(sql, parameters)
            return [DataKey(**dict(zip(_COLUMNS, row, strict=True))) for row in cursor.fetchall()]
    finally:
        own.close()


def _open(row: DataKey, fresh: Ring) -> None:
    try:
        if row.wrapped is None:
            raise DataKeyMissing(f"the data key {row.name} is empty")
        secret = providers.unwrap(bytes(row.wrapped), row.context, row.wrapped_by)
    except LockstepError as error:
        fresh.closed[row.id] = error
        return
    aead, opened_at = AESGCM(secret), time.monotonic()
    fresh.add(OpenKey(row.id, row.name, row.purpose, head_of(row.id), secret, aead, opened_at))
