"""Reading one side of a rule: everything, what changed since a cursor, or given keys."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import pyarrow as pa

from apps.connectors.base import (
    Connector,
    CursorWindow,
    DatasetSchema,
    KeyRange,
    KeyShare,
    ReadBatch,
    ReadRequest,
)
from apps.connectors.types import NeutralType
from apps.engine.codec import decode_keys, encode_images, encode_keys
from apps.runs.services.cursors import cursor_value
from apps.runs.services.pacing import Pace

Image = dict[str, str | None]
"""A record as canonical texts by field."""

Batches = Generator[ReadBatch, None, None]
"""Close it (`contextlib.closing`) where reading may stop early: it holds a connection open."""

KEY_READ_ROWS = 20_000
"""So many keys per request: each opens a connection."""

KEY_SCAN_ROWS = 200_000
"""So many keys per request where the source has no index: each request is a full scan there."""


@dataclass(frozen=True, slots=True)
class SideReader:
    """How one side is read. key: the fields that its key texts hold, in their order.

    pace: what every batch is counted against; check: raises where a reader that waits for its
    pace is to end, if that is not for the pace to say.
    """

    connector: Connector[Any]
    dataset: DatasetSchema
    key: tuple[str, ...]
    pace: Pace = field(default_factory=Pace)
    check: Callable[[], None] | None = None

    @property
    def key_types(self) -> dict[str, NeutralType]:
        return {name: self.dataset.field(name).type for name in self.key}

    def everything(
        self,
        fields: Sequence[str],
        part: KeyRange | KeyShare | None = None,
        *,
        rows: int = 20_000,
    ) -> Batches:
        """All records, or those of a part; `rows` of them, at most, in a batch."""
        return self._read(ReadRequest(self.dataset, tuple(fields), part=part, batch_rows=rows))

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
        if not self.pace.is_limited:
            yield from self.connector.read(request)
            return
        rows = self.pace.batch_rows(request.batch_rows, self.dataset)
        self.pace.wait(self.check)
        for batch in self.connector.read(replace(request, batch_rows=rows)):
            self.pace.spend(batch.records.num_rows + len(batch.rejected), batch.records.nbytes)
            yield batch
            self.pace.wait(self.check)


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
