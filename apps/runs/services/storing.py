"""Storing a plan: changes, links of pairs that agree already, and the planner's own rejections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import orjson
import pyarrow as pa

from apps.connectors.types import NeutralType
from apps.engine.codec import encode_images, encode_keys
from apps.engine.transform import RecordRejection
from apps.ledger.models import Rejection
from apps.ledger.services import close_links, note_passed
from apps.ledger.services import store_plan as keep_plan
from apps.runs.models import Partition, Run
from apps.runs.services.cursors import later_cursor
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.reading import SideReader
from apps.runs.services.rejecting import check_stopped, from_check

STORE_ROWS = 5_000
KEY_COLUMNS = ("left_key", "right_key")


class Refusing(Protocol):
    """What both planners offer about records that they keep out."""

    def rejections(self) -> Iterator[RecordRejection]: ...

    def stops(self) -> Iterator[RecordRejection]: ...


def store_plan(session: PlanSession, batches: Iterable[pa.Table], total: int) -> int:
    """Write planned changes, `total` of them, to the ledger; returns how many."""
    return keep_plan(session.work, batches, total=total, transaction=session.lease.transaction)


def store_refused(session: PlanSession, planner: Refusing) -> set[str]:
    """Keep what the planner refuses; returns the left keys. Raises CheckStopped."""
    for stopped in planner.stops():
        session.reject([from_check(stopped, stage=Rejection.Stage.PLAN)])
        raise check_stopped(session.run, stopped)
    refused: set[str] = set()
    for item in planner.rejections():
        session.reject([from_check(item, stage=Rejection.Stage.PLAN)])
        refused.add(item.left_key or "")
    return refused


def store_gone(session: PlanSession, batches: Iterable[pa.Table]) -> None:
    """Forget links whose two records are both gone."""
    for batch in batches:
        with session.lease.transaction():
            pairs = zip(*(batch.column(n).to_pylist() for n in KEY_COLUMNS), strict=True)
            close_links(session.run.rule_id, pairs)


def with_whole_deletes(
    batches: Iterable[pa.Table], reader: SideReader, types: dict[str, NeutralType], side: str
) -> Iterator[pa.Table]:
    """The same changes; the image before a delete on `side` holds the whole record.

    types: of all fields that can be written. What the plan compared stays as it was compared, so
    that a record which has moved since is refused.
    """
    key = side + "_key"
    for batch in batches:
        sides = batch.column("side").to_pylist() if "side" in batch.column_names else None
        rows = [
            row
            for row, operation in enumerate(batch.column("operation").to_pylist())
            if operation == "delete" and (sides is None or sides[row] == side)
        ]
        if not rows:
            yield batch
            continue
        keys, before = batch.column(key).to_pylist(), batch.column("before").to_pylist()
        found = _images_by_key(reader, types, [keys[row] for row in rows])
        for row in rows:
            whole = {**found.get(keys[row], {}), **orjson.loads(before[row])}
            before[row] = orjson.dumps(whole).decode()
        place = batch.column_names.index("before")
        yield batch.set_column(place, "before", pa.array(before, pa.string()))


def _images_by_key(
    reader: SideReader, types: dict[str, NeutralType], keys: list[str]
) -> dict[str, dict[str, str | None]]:
    found: dict[str, dict[str, str | None]] = {}
    names = tuple(dict.fromkeys([*reader.key, *types]))
    for batch in reader.by_key(names, keys):
        table = pa.Table.from_batches([batch.records])
        images = encode_images(table, types)
        for text, image in zip(encode_keys(table, reader.key_types), images, strict=True):
            found[text] = orjson.loads(image)
    return found


def finish_plan(
    session: PlanSession, *, passed: set[str], held_back: str, cursor: str, planned: dict[str, int]
) -> None:
    """The partition's plan is complete: counters, the cursor it reached, what it held back."""
    run = session.run
    with session.lease.transaction():
        if not run.is_dry:
            note_passed(run.rule_id, run.pk, sorted(passed))
        if held_back:
            Run.objects.filter(pk=run.pk).update(deletes_held_back=held_back[:255])
        if cursor:
            moved = Run.objects.select_for_update().get(pk=run.pk)
            moved.cursor_to = later_cursor(moved.cursor_to, cursor)
            moved.save(update_fields=["cursor_to", "updated_at"])
        session.lease.update(
            **session.counters, **planned, state=Partition.State.PLANNED, lease_until=None
        )
