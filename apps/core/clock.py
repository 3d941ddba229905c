"""Time and time-ordered identities, in one place so that tests can turn the clock."""

from __future__ import annotations

import os
import time
import uuid
from datetime import UTC, datetime, timedelta

from django.utils import timezone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RANDOM_BITS = 62


def now() -> datetime:
    return timezone.now()


def new_id() -> uuid.UUID:
    """A UUID version 7 (RFC 9562): 48 bits of milliseconds, then random bits; sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    value = int.from_bytes(os.urandom(10), "big") | (milliseconds << 80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)


def id_at(moment: datetime) -> uuid.UUID:
    """A new UUID version 7 of this moment, to the microsecond: sorts as moments do.

    The 12 bits after the milliseconds hold their fraction (RFC 9562, section 6.2, method 3).
    """
    random = int.from_bytes(os.urandom(8), "big") >> (64 - RANDOM_BITS)
    return uuid.UUID(int=first_id_at(moment).int | random)


def first_id_at(moment: datetime) -> uuid.UUID:
    """The smallest id that `id_at` gives for this moment: ids of a span lie between two of them."""
    milliseconds, micro = divmod((moment - EPOCH) // timedelta(microseconds=1), 1000)
    fraction = micro * 4096 // 1000
    value = milliseconds << 80 | 0x7 << 76 | fraction << 64 | 0x2 << RANDOM_BITS
    return uuid.UUID(int=value)
