"""Blind index: what a value is found by where the value itself is not kept in clear."""

from __future__ import annotations

import hmac

from apps.core.keys.ring import current_ring
from apps.core.models import DataKey


def blind_hash(kind: str, text: str) -> bytes:
    """32 bytes that stand for a text, the same each time: HMAC-SHA-256 under a key of its own.

    kind: what the text is, so that hashes of one kind say nothing of another.
    """
    key = current_ring().active_key(DataKey.Purpose.INDEX).secret
    return hmac.digest(key, f"{kind}|{text}".encode(), "sha256")
