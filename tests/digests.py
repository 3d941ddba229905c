"""What tests of digests share: sessions over any connector, and the text of each form."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC
from decimal import Decimal
from typing import Any

from apps.connectors.base import (
    Connector,
    CursorWindow,
    DatasetSchema,
    DigestField,
    DigestRequest,
    DigestSession,
    FieldSchema,
    KeySpan,
)
from apps.connectors.canonical import canonical_decimal
from apps.connectors.digests import Form, encode_texts
from apps.engine import reading_digests


def forms_of(connector: Connector[Any], field: FieldSchema) -> tuple[str, ...]:
    """The forms of a field, computed by the source or after reading."""
    if connector.capabilities.checksum:
        return connector.digest_forms(field)
    return reading_digests.digest_forms(field)


def digest_session(
    connector: Connector[Any],
    dataset: DatasetSchema,
    fields: Sequence[tuple[str, str]] = (),
    *,
    key: Sequence[str] = (),
    lag: CursorWindow | None = None,
) -> AbstractContextManager[DigestSession]:
    """A session over (name, form) pairs; all fields in their first forms where none are given."""
    pairs = fields or [(f.name, forms_of(connector, f)[0]) for f in dataset.fields]
    request = DigestRequest(
        dataset, tuple(key or dataset.key), tuple(DigestField(*pair) for pair in pairs), lag
    )
    if connector.capabilities.checksum:
        return connector.digest_session(request)
    return reading_digests.ReadingDigestSession(connector, request)


def row_digests(session: DigestSession, spans: Sequence[KeySpan] = (KeySpan(),)) -> dict[Any, str]:
    """The digest of each record in hexadecimal, by key."""
    found = {}
    for batch in session.row_digests(spans):
        *keys, digests, _ = (column.to_pylist() for column in batch.columns)
        for *key, digest in zip(*keys, digests, strict=True):
            found[key[0] if len(key) == 1 else tuple(key)] = digest.hex()
    return found


def expected_digest(values: Sequence[Any], forms: Sequence[str]) -> str:
    """The digest of a record by the definition of the forms."""
    texts = [None if v is None else text_of(v, form) for v, form in zip(values, forms, strict=True)]
    return hashlib.md5(encode_texts(texts, forms).encode(), usedforsecurity=False).hexdigest()


def text_of(value: Any, form: str) -> str:
    """The text of a value in a form."""
    if form == Form.IEEE754:
        return struct.pack(">d", value + 0.0).hex()
    if form == Form.HEX:
        return f"x{value.hex()}"
    if form == Form.NUMBER and isinstance(value, bool):
        return str(int(value))
    if isinstance(value, Decimal):
        return canonical_decimal(value)
    if form in {Form.TIMESTAMP, Form.TIMESTAMPTZ, Form.TIME}:
        return _moment_text(value, form)
    return str(value)


def _moment_text(value: Any, form: str) -> str:
    if form == Form.TIMESTAMPTZ:
        value = value.astimezone(UTC).replace(tzinfo=None)
    text = value.isoformat() if form == Form.TIME else value.isoformat(" ")
    text = text.rstrip("0") if "." in text else text
    return f"{text}+00" if form == Form.TIMESTAMPTZ else text
