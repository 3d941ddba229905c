"""Storing a plan: changes, links of pairs that agree already, and the planner's own rejections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Protocol

import orjson
import pyarrow as pa
from django.conf import settings

from apps.connectors.types import NeutralType
from apps.engine.transform import RecordRejection
from apps.ledger.models import Rejection
from apps.ledger.selectors import decisions_for, open_right_rejection_keys
from apps.ledger.services import close_links, note_passed, withdraw_conflicts
from apps.ledger.services import store_plan as keep_plan
from apps.runs.models import Partition, Run
from apps.runs.services.cursors import later_cursor
from apps.runs.services.plan_session import PlanSession
from apps.runs.services.reading import SideReader, live_images
from apps.runs.services.rejecting import check_stopped, from_check

STORE_ROWS = 5_000
KEY_COLUMNS = ("left_key", "right_key")
NOTHING: set[str] = set()


class Refusing(Protocol):
    """What both planners offer about records that they keep out."""

    def rejections(self) -> Iterator[RecordRejection]: ...

    def stops(self) -> Iterator[RecordRejection]: ...


def store_plan(
    session: PlanSession, batches: Iterable[pa.Table], total: int, *, first_links: bool = False
) -> int:
    """Write planned changes, `total` of them, to the ledger; returns how many.

    first_links: the rule has no links yet.
    """
    return keep_plan(
        session.work,
        batches,
        total=total,
        transaction=session.lease.transaction,
        first_links=first_links and not session.run.is_dry,
    )


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
        found = live_images(reader, types, [keys[row] for row in rows])
        for row in rows:
            whole = {**found.get(keys[row], {}), **orjson.loads(before[row])}
            before[row] = orjson.dumps(whole).decode()
        place = batch.column_names.index("before")
        yield batch.set_column(place, "before", pa.array(before, pa.string()))


def finish_plan(
    session: PlanSession,
    *,
    planned: dict[str, int],
    passed: set[str] = NOTHING,
    seen: tuple[set[str], set[str]] = (NOTHING, NOTHING),
    held_back: str = "",
    cursor: str = "",
    right_cursor: str = "",
) -> None:
    """The partition's plan is complete: counters, the cursors it reached, what it held back.

    seen: left and right keys of the records in scope, where the run does not look at everything.
    """
    run = session.run
    with session.lease.transaction():
        if not run.is_dry:
            rights = seen[1].intersection(open_right_rejection_keys(run.rule_id))
            note_passed(run.rule_id, run.pk, sorted(passed), sorted(rights))
            _withdraw_unmet(session, *seen)
        note_cursors(run, {"cursor_to": cursor, "right_cursor_to": right_cursor}, held_back)
        session.lease.update(
            **session.counters, **planned, state=Partition.State.PLANNED, lease_until=None
        )


def _withdraw_unmet(session: PlanSession, lefts: set[str], rights: set[str]) -> None:
    """Conflicts of these records that this plan did not meet are none any more.

    What a person has decided stays until it is written.
    """
    decided = decisions_for(session.run.rule_id)
    mine = (lefts, rights)
    left_keys, right_keys = (
        sorted(keys - set(decided.column(name).to_pylist()))
        for keys, name in zip(mine, KEY_COLUMNS, strict=True)
    )
    run = session.run
    withdraw_conflicts(run.rule_id, run.pk, left_keys=left_keys, right_keys=right_keys)


def note_cursors(run: Run, cursors: dict[str, str], held_back: str = "") -> None:
    """Keep on the run how far its cursors came, and why deletes are held back."""
    if not (held_back or any(cursors.values())):
        return
    locked = Run.objects.select_for_update().get(pk=run.pk)
    locked.deletes_held_back = held_back[:255] or locked.deletes_held_back
    for name, cursor in cursors.items():
        setattr(locked, name, later_cursor(getattr(locked, name), cursor))
    locked.save(update_fields=["deletes_held_back", *cursors, "updated_at"])


def spill_directory() -> Path:
    """Where planners may spill; made at first use."""
    spill: Path = settings.LOCKSTEP["SPILL_DIR"]
    spill.mkdir(parents=True, exist_ok=True, mode=0o700)
    return spill
