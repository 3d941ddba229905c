"""Time and time-ordered identities, in one place so that tests can turn the clock."""

from __future__ import annotations

import os
import time
import uuid
from datetime import datetime

from django.utils import timezone


def now() -> datetime:
    return timezone.now()


def new_id() -> uuid.UUID:
    """A UUID version 7 (RFC 9562): 48 bits of milliseconds, then random bits; sorts by time."""
    milliseconds = time.time_ns() // 1_000_000
    value = int.from_bytes(os.urandom(10), "big") | (milliseconds << 80)
    value = (value & ~(0xF << 76)) | (0x7 << 76)
    value = (value & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=value)
