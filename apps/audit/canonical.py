"""The bytes that stand for an event or a seal, and the hashes over them.

An event's canonical form is a JSON list of its columns in a fixed order, keys sorted, times in UTC
to the microsecond: two events have the same form only if they are the same. Its `mac` is
HMAC-SHA-256 over it, with a key derived from a data key, which the database holds wrapped only.

A seal's root is a Merkle tree over the forms (RFC 9162, section 2.1): a leaf is SHA-256 of a zero
byte and the form, a node is SHA-256 of a one byte and its two children.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import orjson

from apps.audit.models import AuditEvent, AuditSeal
from apps.connectors.errors import ConfigurationError
from apps.core.protected import derived_keys

VERSION = 1
PURPOSE = "lockstep audit 1"
ID_BYTES = 16


class AuditKeyMissing(ConfigurationError):
    """What an event or a seal was made with is not there any more."""

    code = "audit.key_missing"
    default_remedy = (
        "Restore the table of data keys, and the key-encryption key that wraps the one named."
    )


def sealing_key_id() -> str:
    """The id of the key that events and seals are made with now."""
    return next(iter(derived_keys(PURPOSE)))


def event_form(event: AuditEvent) -> bytes:
    """All columns of an event but its `mac`, as bytes."""
    columns = (
        VERSION,
        event.id.hex,
        _instant(event.at),
        event.action,
        event.outcome,
        event.actor_kind,
        event.actor_id,
        event.actor_label,
        event.object_type,
        event.object_id,
        event.object_label,
        event.channel,
        event.address,
        event.request_id,
        event.user_agent,
        event.reason,
        event.details,
        event.key_id,
    )
    return orjson.dumps(columns, option=orjson.OPT_SORT_KEYS)


def seal_form(seal: AuditSeal) -> bytes:
    """All columns of a seal but its `mac`, as bytes; the ids as their hash."""
    columns = (
        VERSION,
        seal.number,
        _instant(seal.sealed_at),
        seal.count,
        seal.first_event_id.hex,
        seal.last_event_id.hex,
        hashlib.sha256(seal.event_ids).hexdigest(),
        bytes(seal.root).hex(),
        bytes(seal.previous_mac).hex(),
        seal.key_id,
    )
    return orjson.dumps(columns)


def keyed_hash(form: bytes, key_id: str) -> bytes:
    """HMAC-SHA-256 of a canonical form. Raises AuditKeyMissing."""
    key = derived_keys(PURPOSE).get(key_id)
    if key is None:
        raise AuditKeyMissing(f"the data key '{key_id}' is not there", where="audit log")
    return hmac.digest(key, form, "sha256")


def is_genuine(form: bytes, key_id: str, mac: bytes | memoryview) -> bool:
    """Whether `mac` is the keyed hash of the form. Raises AuditKeyMissing."""
    return hmac.compare_digest(keyed_hash(form, key_id), bytes(mac))


def leaf(form: bytes) -> bytes:
    """The leaf of the Merkle tree that stands for an event."""
    return hashlib.sha256(b"\x00" + form).digest()


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """The root over leaves in their order; an odd one at the end moves up as it is."""
    level = list(leaves)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [hashlib.sha256(b"\x01" + one + two).digest() for one, two in pairs]
        level = above + level[len(above) * 2 :]
    return level[0] if level else hashlib.sha256(b"").digest()


def packed_ids(ids: Sequence[UUID]) -> bytes:
    return b"".join(one.bytes for one in ids)


def unpacked_ids(packed: bytes | memoryview) -> list[UUID]:
    data = bytes(packed)
    return [
        UUID(bytes=data[at : at + ID_BYTES]) for at in range(0, len(data) - ID_BYTES + 1, ID_BYTES)
    ]


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="microseconds")
