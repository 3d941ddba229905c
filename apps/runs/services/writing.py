"""Writing one side of a rule: the lock, the batches, and what the writes gave back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import orjson
import pyarrow as pa

from apps.connectors.base import (
    ChangeBatch,
    Fence,
    Operation,
    WriteResult,
    WriteSession,
    WriteStatus,
)
from apps.connectors.types import NeutralType
from apps.engine.codec import decode_images, decode_keys, encode_images, encode_keys
from apps.ledger.selectors import PlannedChange
from apps.ledger.services import Stored
from apps.runs.services.reading import SideReader

NO_RECORD = "null"
Image = dict[str, str | None]
Views = Callable[[pa.RecordBatch], dict[str, Image]]
"""Left views (right fields as canonical texts) of left records, by left key."""


@dataclass(frozen=True, slots=True)
class SideWriter:
    """How one side is written.

    types: of all fields that images may hold; lock: names the exclusive right to write;
    returning: fields that writes give back; match: fields that find a record whose key the
    target assigns.
    """

    reader: SideReader
    types: Mapping[str, NeutralType]
    lock: str
    returning: tuple[str, ...] = ()
    match: tuple[str, ...] = ()

    @property
    def batch_rows(self) -> int:
        most = self.reader.connector.capabilities.batch_rows
        return self.reader.pace.batch_rows(most, self.reader.dataset)

    def session(self, lease_seconds: Callable[[], float]) -> AbstractContextManager[WriteSession]:
        """Begin writing; waits for the lock. Raises TargetBusy."""
        return self.reader.connector.write_session(
            self.reader.dataset, lock=self.lock, lease_seconds=lease_seconds
        )

    def write(
        self,
        session: WriteSession,
        batch: ChangeBatch,
        fence: Fence,
        *,
        note: Callable[[WriteResult], None] | None = None,
    ) -> WriteResult:
        """Write one batch, once the side's pace allows it. Raises what waiting and fence raise.

        note: see `WriteSession.apply`.
        """
        pace = self.reader.pace
        pace.wait()
        result = session.apply(batch, fence, returning=self.returning, note=note)
        pace.spend(batch.num_rows, result.bytes_written)
        return result

    def batch(
        self,
        changes: Sequence[PlannedChange],
        *,
        in_doubt: bool,
        written: Sequence[tuple[str, ...]] = (),
    ) -> ChangeBatch:
        """The ChangeBatch of changes with the same operation and fields.

        in_doubt: an earlier attempt may have written some of them;
        written: the fields that each of them writes, where these are not all.
        """
        operation = Operation(changes[0].operation)
        before = after = None
        if operation is not Operation.INSERT:
            before = self._images([change.before for change in changes])
        if operation is not Operation.DELETE:
            after = self._images([change.after for change in changes])
        keys = [change.own_key for change in changes]
        if operation is Operation.INSERT and not keys[0]:
            fields = after.column_names if after is not None else []
            match = self.match if set(self.match) <= set(fields) else ()
            return ChangeBatch(operation, pa.table({}), None, after, match, in_doubt)
        key = decode_keys(keys, self.reader.key_types)
        return ChangeBatch(operation, key, before, after, written=tuple(written))

    def _images(self, images: Sequence[str]) -> pa.Table:
        types = {name: self.types[name] for name in orjson.loads(images[0])}
        return decode_images(images, types)

    def stored(
        self, changes: Sequence[PlannedChange], result: WriteResult, views: Views | None
    ) -> dict[int, Stored]:
        """What the target made of these changes, by sequence.

        views: of left records, where this is the left side of a two-way rule.
        """
        kept = [
            row
            for row, change in enumerate(changes)
            if change.operation != Operation.DELETE and _is_written(result, row)
        ]
        if not kept or (result.stored is None and result.keys is None):
            return {}
        keys = _assigned_keys(result, kept, self.reader.key_types)
        images = self._stored_images(result, kept)
        seen = views(_rows(result.stored, kept)) if views and result.stored is not None else {}
        found: dict[int, Stored] = {}
        for place, row in enumerate(kept):
            change = changes[row]
            own_key = keys[place] if keys and not change.own_key else ""
            image = images[place] if images else None
            view = seen.get(own_key or change.key_after) if views else image
            found[change.sequence] = _as_stored(change, own_key, image, view, is_left=bool(views))
        return found

    def _stored_images(self, result: WriteResult, rows: Sequence[int]) -> list[Image]:
        if result.stored is None:
            return []
        table = result.stored.take(pa.array(rows, pa.int64()))
        types = {name: self.types[name] for name in table.column_names}
        return [orjson.loads(text) for text in encode_images(table, types)]


def _is_written(result: WriteResult, row: int) -> bool:
    problem = result.exceptions.get(row)
    return problem is None or problem.status is WriteStatus.ALREADY


def _rows(table: pa.Table, rows: Sequence[int]) -> pa.RecordBatch:
    taken = table.take(pa.array(rows, pa.int64())).combine_chunks()
    batches = taken.to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _assigned_keys(
    result: WriteResult, rows: Sequence[int], types: Mapping[str, NeutralType]
) -> list[str]:
    if result.keys is None:
        return []
    table = result.keys.take(pa.array(rows, pa.int64()))
    return encode_keys(table, types)


def _as_stored(
    change: PlannedChange, own_key: str, image: Image | None, view: Image | None, *, is_left: bool
) -> Stored:
    """The change with what is stored in place of what was sent.

    view: the record in right space; only the fields of the planned patch count, and of these the
    ones whose base is to be what is written: of half a merge it is not.
    """
    after = ""
    if image is not None:
        written = orjson.loads(change.after) | {n: image[n] for n in change.fields if n in image}
        after = orjson.dumps(written).decode()
    planned = change.base_left if is_left else change.base_right
    patch = ""
    if view is not None and planned and planned != NO_RECORD:
        fields = orjson.loads(planned)
        sent = {} if is_left else orjson.loads(change.after)
        seen = {
            n: v for n, v in view.items() if n in fields and sent.get(n, fields[n]) == fields[n]
        }
        patch = orjson.dumps({**fields, **seen}).decode()
    if is_left:
        return Stored(own_key=own_key, after=after, base_left=patch)
    return Stored(own_key=own_key, after=after, base_right=patch)
