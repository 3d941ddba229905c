"""Looking a record up where it lives: by the exact value of one field, read from the source now."""

from __future__ import annotations

import pyarrow as pa

from apps.connectors.base import ReadRequest
from apps.engine.codec import decode_keys, encode_keys
from apps.engine.transform import canonical_value
from apps.engine.types_sql import key_text
from apps.sources.models import Dataset
from apps.sources.selectors import connector_for

MOST_FOUND = 20


def keys_by_value(dataset: Dataset, field: str, text: str) -> list[str]:
    """Canonical keys of records whose field holds this value; MOST_FOUND + 1 where there are more
    than MOST_FOUND.

    text: the value as a person writes it. Reads the source; a field without an index is scanned
    there. Raises ConfigurationError where the text does not fit the field's type, and what the
    connector raises.
    """
    schema = dataset.schema()
    neutral = schema.field(field).type
    wanted = decode_keys([key_text([canonical_value(text, neutral)])], {field: neutral})
    key_types = {name: schema.field(name).type for name in schema.key}
    request = ReadRequest(
        dataset=schema,
        fields=tuple(dict.fromkeys([*schema.key, field])),
        keys=wanted,
        limit=MOST_FOUND + 1,
    )
    found: list[str] = []
    for batch in connector_for(dataset.source).read(request):
        found += encode_keys(pa.Table.from_batches([batch.records]), key_types)
    return found[: MOST_FOUND + 1]
