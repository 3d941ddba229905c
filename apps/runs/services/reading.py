"""Reading one side of a rule: everything, what changed since a cursor, or given keys."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import (
    Connector,
    CursorWindow,
    DatasetSchema,
    KeyRange,
    ReadBatch,
    ReadRequest,
)
from apps.connectors.types import NeutralType
from apps.engine.codec import decode_keys, encode_images, encode_keys
from apps.runs.models import Partition
from apps.runs.services.cursors import cursor_value

Image = dict[str, str | None]
"""A record as canonical texts by field."""

Batches = Generator[ReadBatch, None, None]
"""Close it (`contextlib.closing`) where reading may stop early: it holds a connection open."""

KEY_READ_ROWS = 2_000
KEY_SCAN_ROWS = 200_000
"""So many keys per request where the source has no index: each request is a full scan there."""


@dataclass(frozen=True, slots=True)
class SideReader:
    """How one side is read. key: the fields that its key texts hold, in their order."""

    connector: Connector[Any]
    dataset: DatasetSchema
    key: tuple[str, ...]

    @property
    def key_types(self) -> dict[str, NeutralType]:
        return {name: self.dataset.field(name).type for name in self.key}

    def everything(self, fields: Sequence[str], key_range: KeyRange | None = None) -> Batches:
        """All records, or those of a key range."""
        return self._read(ReadRequest(self.dataset, tuple(fields), key_range=key_range))

    def since(self, fields: Sequence[str], cursor_field: str, after: str) -> Batches:
        """Records from a cursor text on."""
        value = cursor_value(self.dataset.field(cursor_field), after)
        window = CursorWindow(cursor_field, value)
        return self._read(ReadRequest(self.dataset, tuple(fields), cursor=window))

    def by_key(self, fields: Sequence[str], keys: Sequence[str]) -> Batches:
        """The records of these key texts; nothing where the dataset has no key."""
        if not self.key:
            return
        indexed = self.connector.capabilities.key_lookup
        rows = KEY_READ_ROWS if indexed else KEY_SCAN_ROWS
        for start in range(0, len(keys), rows):
            table = decode_keys(keys[start : start + rows], self.key_types)
            yield from self._read(ReadRequest(self.dataset, tuple(fields), keys=table))

    def _read(self, request: ReadRequest) -> Batches:
        yield from self.connector.read(request)


def range_over(partition: Partition, field: str) -> KeyRange | None:
    """The partition's key range over a field of either side, if it has one."""
    if not partition.range_field:
        return None
    return KeyRange(field, partition.lower, partition.upper)


def links_in_range(links: pa.Table, partition: Partition, key: NeutralType) -> pa.Table:
    """The links whose right key, of one field of this type, lies in the partition's range."""
    if not partition.range_field:
        return links
    keys = decode_keys(links.column("right_key").to_pylist(), {"key": key}).column(0)
    mask = pa.array([True] * len(links))
    if partition.lower is not None:
        mask = pc.and_(mask, pc.greater_equal(keys, partition.lower))
    if partition.upper is not None:
        mask = pc.and_(mask, pc.less(keys, partition.upper))
    return links.filter(mask)


def live_images(
    reader: SideReader, types: dict[str, NeutralType], keys: Sequence[str]
) -> dict[str, Image]:
    """The records of these keys as they are now, with these fields, by key."""
    names = tuple(dict.fromkeys([*reader.key, *types]))
    found: dict[str, Image] = {}
    for batch in reader.by_key(names, keys):
        table = pa.Table.from_batches([batch.records])
        texts = encode_images(table.select(list(types)), types)
        for key, text in zip(encode_keys(table, reader.key_types), texts, strict=True):
            found[key] = orjson.loads(text)
    return found
