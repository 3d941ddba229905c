"""How the ledger finds a record: by a hash of its canonical key text."""

from __future__ import annotations

import hashlib

from apps.engine.types_sql import key_text


def key_hash(key: str) -> bytes:
    """16 bytes that stand for a canonical key text in indexes."""
    return hashlib.md5(key.encode(), usedforsecurity=False).digest()


def key_hash_or_none(key: str | None) -> bytes | None:
    """As `key_hash`; None for a key that is not known."""
    return key_hash(key) if key else None


def key_candidates(text: str) -> list[str]:
    """What a person may mean: a canonical key text, or the plain value of a key of one field."""
    text = text.strip()
    return [text, key_text([text])]
