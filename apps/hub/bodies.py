"""Records as texts: canonical JSON, in clear or sealed; their keys and digests."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson

from apps.connectors.canonical import NEEDS_EXACT, canonical_decimal, canonical_json
from apps.connectors.types import Kind
from apps.core.keys.blind import blind_hash
from apps.core.protected import seal, unseal
from apps.hub.errors import MutationRefused
from apps.hub.models import KEY_LENGTH, SCOPE_LENGTH
from apps.hub.schemas import Record, Shape

DIGEST_BITS = 60
_NEEDS_EXACT = re.compile(NEEDS_EXACT.encode())


def dumped(record: Mapping[str, Any]) -> str:
    """The canonical text (`connectors.canonical`). Raises ValueError for what is no JSON."""
    try:
        text = orjson.dumps(record, _exact, orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # integers of more than 64 bits, halves of characters
        text = json.dumps(record, default=_exact_number).encode()
    return canonical_json(text)


def _exact(value: Any) -> Any:
    return orjson.Fragment(canonical_decimal(value))


def _exact_number(value: Any) -> Any:
    raise ValueError(f"a {type(value).__name__} is out of the range of numbers")


def loaded(text: str | bytes) -> Any:
    """JSON with whole numbers as int and all others exact. Raises ValueError."""
    data = text.encode() if isinstance(text, str) else text
    if _NEEDS_EXACT.search(data) is None:
        return orjson.loads(data)
    return json.loads(data, parse_float=Decimal)


def digest_of(key: str, body: str) -> int:
    """60 bits that stand for a record: of SHA-256 of its key, a line feed and its text."""
    digest = hashlib.sha256(f"{key}\n{body}".encode()).digest()
    return int.from_bytes(digest[:8]) >> (64 - DIGEST_BITS)


# Keys


def key_of(shape: Shape, record: Record) -> str:
    """The key of a record as a text. Raises MutationRefused where it has none."""
    texts = [_key_text(name, record.get(name)) for name in shape.key]
    text = texts[0] if len(texts) == 1 else json.dumps(texts, ensure_ascii=False)
    if len(text) > KEY_LENGTH:
        raise MutationRefused(f"the key is longer than {KEY_LENGTH} characters", shape.key[0])
    if "\x00" in text:
        raise MutationRefused("the key has a character that cannot be stored", shape.key[0])
    return text


def _key_text(name: str, value: Any) -> str:
    if value is None:
        raise MutationRefused("the key is required", name)
    return value if isinstance(value, str) else dumped(value)


def with_key(shape: Shape, record: Record, key: str) -> Record:
    """A new record with its key, where that is one field that was not sent."""
    name = shape.key[0]
    if len(shape.key) > 1 or name in record:
        return record
    if shape.fields[name].type.kind is not Kind.INTEGER:
        return {**record, name: key}
    try:
        return {**record, name: int(key)}
    except ValueError:
        raise MutationRefused("the key is no whole number", name) from None


def scope_name(value: Any) -> str:
    """What stands for a value of a scope field: a keyed hash, for the value may be personal."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else dumped({"v": value})
    return blind_hash("hub scope", text).hex()[:SCOPE_LENGTH]


# Sealing


@dataclass(frozen=True, slots=True)
class Kept:
    """A text as it is stored: one of the two."""

    clear: str | None
    sealed: bytes | None


def kept(text: str | None, place: str, is_personal: bool) -> Kept:
    """A text for its place; sealed where the dataset has personal fields."""
    if text is None or not is_personal:
        return Kept(text, None)
    return Kept(None, seal(text.encode(), place))


def opened(clear: str | None, sealed: bytes | memoryview | None, place: str) -> str | None:
    """The text. Raises ProtectedValueError."""
    return clear if sealed is None else unseal(sealed, place).decode()


def record_place(hosted_id: UUID, key: str) -> str:
    return f"hub record|{hosted_id}|{key}"


def revision_place(revision_id: UUID) -> str:
    return f"hub revision|{revision_id}"


def mutation_place(mutation_id: UUID) -> str:
    return f"hub mutation|{mutation_id}"
