"""Undoing: earlier changes are taken back by a plan of reverse changes.

Each reverse change has as its precondition what the earlier one left behind: what somebody has
edited since is reported, not overwritten. The link of a record that was put back is held with the
base that both sides have then, so that the next sync does not repeat what was undone, until a side
is edited again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import orjson
import pyarrow as pa

from apps.connectors.base import DatasetSchema, Operation
from apps.connectors.types import NeutralType
from apps.engine.codec import decode_images
from apps.engine.planning import CHANGES
from apps.engine.reversing import ReverseChange
from apps.ledger.models import Change, SegmentPart, Side
from apps.ledger.selectors import PlannedChange
from apps.ledger.services import Refusal, settle
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.reading import Image, live_images
from apps.runs.services.storing import finish_plan, store_plan, with_whole_deletes
from apps.runs.services.views import LeftViews
from apps.runs.services.written import Reverse, UndoScope, reverses

CHUNK = 2_000
EDITED_SINCE = "record.edited_since"
NO_RECORD = "null"
SCHEMA = pa.schema(
    [("side", pa.string()), *CHANGES, ("base_left", pa.string()), ("base_right", pa.string())]
)


class UndoPlan:
    """Plans the partition of an undo."""

    def __init__(self, session: PlanSession) -> None:
        self.session = session
        self.context = session.context
        self.views = LeftViews(session.context, session.lookups)
        self.sequence = 0
        self.stale: list[PlannedChange] = []
        context = session.context
        self.unwritten = {
            Side.LEFT: _plain_fields(context.left_live, context.left_types),
            Side.RIGHT: _plain_fields(context.right_live, context.right_types),
        }
        self.planned = dict.fromkeys(
            ("planned_inserts", "planned_updates", "planned_deletes", "planned_left"), 0
        )

    def execute(self) -> None:
        session, context = self.session, self.context
        scope = UndoScope.from_json(session.run.undo_scope)
        total = sum(1 for _ in scope.keys(session.run.rule_id))
        try:
            tables = self._tables(reverses(session.run.rule_id, scope))
            whole = with_whole_deletes(tables, context.right_reader, context.right_types, "right")
            whole = with_whole_deletes(whole, context.left_reader, context.left_types, "left")
            store_plan(session, whole, total)
        finally:
            self.views.close()
        edited = len(self.stale)
        if session.run.is_dry:
            self._tell_edited()
            self.planned["stale"] = self.planned.get("stale", 0) + edited
        finish_plan(session, planned=self.planned)
        count = self.sequence - edited
        session.note(f"Planned: {count} records to put back, {edited} edited since")

    def _tables(self, found: Iterable[Reverse]) -> Iterator[pa.Table]:
        for chunk in _chunks(found):
            self.session.lease.check()
            rows = self._rows(chunk)
            self.session.counters["read"] += len(chunk)
            self.session.show_progress()
            yield pa.Table.from_pylist(rows, schema=SCHEMA)

    def _rows(self, chunk: Sequence[Reverse]) -> list[dict[str, Any]]:
        """The reverse changes as the ledger takes them, with the bases to hold."""
        context = self.context
        lefts = self._left_images([item.left_key for item in chunk])
        chunk = self._with_images(chunk, lefts)
        right_keys = sorted({item.right_key for item in chunk} - {""})
        whole = live_images(context.right_reader, context.right_types, right_keys)
        rights = {key: _narrowed(image, context.mapped_types) for key, image in whole.items()}
        views = self._views(lefts)
        after = self._views_after(chunk, lefts)
        rows = []
        for item in chunk:
            live = (lefts if item.side == Side.LEFT else whole).get(item.change.key)
            base_left: Image | None = views.get(item.left_key)
            base_right: Image | None = rights.get(item.right_key)
            if item.side == Side.LEFT:
                base_left = after.get(item.change.key_after)
            else:
                base_right = _right_after(item, base_right, context.mapped_types)
            item = self._left_empty(item)
            own_only = not item.alone
            if context.two_way is not None and item.change.operation is Operation.UPDATE:
                own_only = True
                base_left, base_right = _held_fields(item, views, base_left, base_right)
            rows.append(self._row(item, base_left, base_right, own_only=own_only))
            self._count(item, rows[-1], is_edited=_is_edited(item, live))
        return rows

    def _with_images(self, chunk: Sequence[Reverse], lefts: dict[str, Image]) -> Sequence[Reverse]:
        """The same, but a record whose values passed unseen (a relay) must be as the left is now.

        Where the left record is gone, nobody knows what was written: it counts as edited since.
        """
        unseen = [item for item in chunk if is_unseen(item.change)]
        if not unseen:
            return chunk
        views = self._views({i.left_key: lefts[i.left_key] for i in unseen if i.left_key in lefts})
        known = [
            replace(item, change=replace(item.change, before=views[item.left_key]))
            if item.left_key in views and is_unseen(item.change)
            else item
            for item in chunk
        ]
        told = [item for item in known if not is_unseen(item.change)]
        self.planned["stale"] = self.planned.get("stale", 0) + len(known) - len(told)
        return told

    def _left_empty(self, item: Reverse) -> Reverse:
        """An insert left the fields empty that it did not write: whoever filled them has edited.

        Of fields with a default nobody knows what the insert left in them.
        """
        if item.change.operation is not Operation.DELETE or item.change.before is None:
            return item
        unwritten = self.unwritten[item.side] - item.change.before.keys()
        before = {**item.change.before, **dict.fromkeys(unwritten)}
        return replace(item, change=replace(item.change, before=before))

    def _row(
        self, item: Reverse, left: Image | None, right: Image | None, *, own_only: bool
    ) -> dict[str, Any]:
        change = item.change
        return {
            "side": item.side,
            "operation": change.operation.value,
            "left_key": item.left_key or None,
            "right_key": item.right_key or None,
            "fields": list(change.after or {}),
            "before": None if change.before is None else orjson.dumps(change.before).decode(),
            "after": None if change.after is None else orjson.dumps(change.after).decode(),
            "image": "",
            "cause": Change.Cause.UNDONE.value,
            "key_after": change.key_after,
            "base_left": None if own_only and item.side == Side.RIGHT else _text(left),
            "base_right": None if own_only and item.side == Side.LEFT else _text(right),
        }

    def _count(self, item: Reverse, row: dict[str, Any], *, is_edited: bool) -> None:
        self.sequence += 1
        self.planned[f"planned_{row['operation']}s"] += 1
        self.planned["planned_left"] += item.side == Side.LEFT
        if is_edited:
            keys = (item.left_key, item.right_key)
            self.stale.append(
                PlannedChange(self.sequence, row["operation"], *keys, "", (), "", "", "")
            )

    def _tell_edited(self) -> None:
        """A preview says which records were edited since; else the target itself refuses them.

        The plan of a large preview is sealed already: there the number has to do.
        """
        if SegmentPart.objects.filter(partition_id=self.session.partition.pk).exists():
            return
        refusal = Refusal(
            Change.Outcome.STALE, EDITED_SINCE, "the record was edited after the change to undo"
        )
        for chunk in _chunks(self.stale):
            with self.session.lease.transaction():
                for change in chunk:
                    settle(self.session.work, [change], {change.sequence: refusal})

    def _left_images(self, keys: Sequence[str]) -> dict[str, Image]:
        fields = {name: self.context.left.field(name).type for name in self.context.left_fields}
        return live_images(self.context.left_reader, fields, sorted({*keys} - {""}))

    def _views_after(self, chunk: Sequence[Reverse], lefts: dict[str, Image]) -> dict[str, Image]:
        """The left views of left records once they are put back, by key."""
        put_back: dict[str, Image] = {}
        for item in chunk:
            if item.side == Side.LEFT and item.change.operation is not Operation.DELETE:
                now = lefts.get(item.change.key, {})
                put_back[item.change.key_after] = {**now, **(item.change.after or {})}
        return self._views(put_back)

    def _views(self, lefts: dict[str, Image]) -> dict[str, Image]:
        if not lefts:
            return {}
        types = {name: self.context.left.field(name).type for name in self.context.left_fields}
        texts = [
            orjson.dumps({n: image.get(n) for n in types}).decode() for image in lefts.values()
        ]
        views: dict[str, Image] = {}
        for batch in decode_images(texts, types).combine_chunks().to_batches():
            views |= self.views.by_key(batch)
        return views


def is_unseen(change: ReverseChange) -> bool:
    """Whether it takes back an insert whose values nobody has kept."""
    return change.operation is Operation.DELETE and not change.before


def _plain_fields(schema: DatasetSchema, types: Mapping[str, NeutralType]) -> set[str]:
    """The fields of a side that are empty where an insert does not write them."""
    return {
        field.name
        for field in schema.fields
        if field.name in types
        and field.nullable
        and not (field.has_default or field.server_assigned or field.generated)
    }


def _chunks(items: Iterable[Any]) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(islice(rest, CHUNK)):
        yield chunk


def _narrowed(image: Image, types: Mapping[str, NeutralType]) -> Image:
    return {name: image[name] for name in types if name in image}


def _right_after(item: Reverse, live: Image | None, types: dict[str, NeutralType]) -> Image | None:
    """The mapped fields of the right record once it is put back."""
    if item.change.operation is Operation.DELETE:
        return None
    whole = {**(live or {}), **(item.change.after or {})}
    return {name: whole.get(name) for name in types}


def _held_fields(
    item: Reverse, views: dict[str, Image], left: Image | None, right: Image | None
) -> tuple[Image | None, Image | None]:
    """The part of the base that putting a record back moves: its own side, what is written.

    All other fields keep their base, so that edits which no run has seen yet still flow.
    """
    if item.side == Side.RIGHT:
        return None, {n: v for n, v in (right or {}).items() if n in (item.change.after or {})}
    now = views.get(item.left_key, {})
    return {n: v for n, v in (left or {}).items() if n not in now or now[n] != v}, None


def _is_edited(item: Reverse, live: Image | None) -> bool:
    """Whether the record is no longer as the changes left it, as far as it was read."""
    change = item.change
    if change.operation is Operation.INSERT:
        return live is not None
    if live is None:
        return True
    before = change.before or {}
    return any(live[name] != value for name, value in before.items() if name in live)


def _text(image: Image | None) -> str:
    return NO_RECORD if image is None else orjson.dumps(image).decode()
