"""Where a replica is: opaque to it, and signed, because it says which records it may hold.

A replica that begins, or whose scopes have changed, is on its way: first the records of scopes that
it has lost are dropped, then those of scopes that it has gained are filled in, both in the order of
their keys; then it follows the changes since the number at which it was when it began. So it never
misses what changes while it is on its way.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from dataclasses import astuple, dataclass
from enum import StrEnum
from uuid import UUID

import orjson

from apps.core.clock import now
from apps.core.protected import derived_keys
from apps.hub.errors import TokenExpired
from apps.hub.models import ScopeSet
from apps.hub.selectors import Access

PURPOSE = "lockstep hub tokens 1"
FORM = 1
MAC_BYTES = 16
ALL, NONE = "*", ""

Scopes = frozenset[str] | None
"""None: all there are."""


class Phase(StrEnum):
    DROP = "d"
    FILL = "f"
    FOLLOW = ""


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a replica in a dataset; scopes are named by their digests.

    number: changes up to it are known; schema: that of the records it has; complete: scopes of
    which it has all; possible: scopes of which it may have some; target: those that it is to have;
    after: the key up to which the phase has come.
    """

    number: int
    schema: int
    complete: str = NONE
    possible: str = NONE
    target: str = NONE
    phase: Phase = Phase.FOLLOW
    after: str | None = None


def written(place: Place, hosted_id: UUID) -> str:
    """The token of a place."""
    text = orjson.dumps([FORM, *astuple(place)])
    key = next(iter(derived_keys(PURPOSE).values()))
    mac = _mac(key, hosted_id, text)
    return base64.urlsafe_b64encode(mac + text).decode().rstrip("=")


def read(token: str, hosted_id: UUID) -> Place:
    """The place that a token stands for. Raises TokenExpired for what is none of ours."""
    try:
        data = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        mac, text = data[:MAC_BYTES], data[MAC_BYTES:]
        keys = derived_keys(PURPOSE).values()
        if any(hmac.compare_digest(mac, _mac(key, hosted_id, text)) for key in keys):
            form, *parts = orjson.loads(text)
            if form == FORM:
                return Place(*parts[:5], Phase(parts[5]), parts[6])
    except (binascii.Error, UnicodeError, ValueError):
        pass
    raise TokenExpired("this is no token of this dataset, or one from before a restore")


def _mac(key: bytes, hosted_id: UUID, text: bytes) -> bytes:
    return hmac.digest(key, hosted_id.bytes + text, hashlib.sha256)[:MAC_BYTES]


# Sets of scopes


def named(scopes: Scopes) -> str:
    """The digest by which tokens name these scopes; they can be looked up by it from now on."""
    if scopes is None:
        return ALL
    if not scopes:
        return NONE
    values = sorted(scopes)
    digest = hashlib.sha256(orjson.dumps(values)).hexdigest()[:32]
    row, is_new = ScopeSet.objects.get_or_create(
        digest=digest, defaults={"values": values, "used_at": now()}
    )
    if not is_new and (now() - row.used_at).days:
        ScopeSet.objects.filter(pk=digest).update(used_at=now())
    return digest


def scopes_named(digest: str) -> Scopes:
    """Raises TokenExpired where nobody remembers them."""
    if digest == ALL:
        return None
    if digest == NONE:
        return frozenset()
    row = ScopeSet.objects.filter(pk=digest).first()
    if row is None:
        raise TokenExpired("what this token stands for is not remembered any more")
    return frozenset(row.values)


def union(*parts: Scopes) -> Scopes:
    found: frozenset[str] = frozenset()
    for part in parts:
        if part is None:
            return None
        found |= part
    return found


def intersection(one: Scopes, other: Scopes) -> Scopes:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def turned_to(place: Place, access: Access) -> Place:
    """The place after the replica's scopes have become these."""
    target = named(access.scopes)
    if target == place.target:
        return place
    digests = {place.complete, place.possible, place.target}
    possible = named(union(*(scopes_named(digest) for digest in digests)))
    # What is dropped from now on may come back before all of it has gone.
    complete = named(intersection(scopes_named(place.complete), access.scopes))
    phase = Phase.FILL if possible == NONE else Phase.DROP
    return Place(place.number, place.schema, complete, possible, target, phase)
