"""Undoing from a page: a preview first, then the same again for real; or a request for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import QueryDict
from django.utils.dateparse import parse_datetime
from django.utils.timezone import get_current_timezone, is_naive, make_aware

from apps.core.selectors import permits
from apps.core.templatetags.lockstep import record_key
from apps.ledger.admin.sides import side_names
from apps.ledger.models import Change
from apps.ledger.selectors import change_groups, change_id
from apps.runs.admin.approval import chosen_ids
from apps.runs.models import RestoreRequest, Run, RunStatus
from apps.runs.services import UndoScope

TYPED_FROM = 100
"""From so many changes on, the number has to be typed."""


@dataclass(frozen=True, slots=True)
class UndoPreview:
    """The dry run of an undo, in numbers and words."""

    sentence: str
    to_write: int
    edited: int
    target: str
    can_apply: bool

    @property
    def asks_count(self) -> bool:
        return self.to_write >= TYPED_FROM


def undo_preview(run: Run, actor: Any) -> UndoPreview | None:
    """What the preview of an undo says; None for other runs."""
    if run.kind != Run.Kind.UNDO or not run.is_dry:
        return None
    groups = change_groups(run.pk)
    names = side_names(run.rule)
    planned = dict.fromkeys(("left", "right"), 0)
    for (side, _, _, outcome), number in groups.items():
        planned[side] += number if outcome == Change.Outcome.PLANNED else 0
    edited = sum(n for group, n in groups.items() if group[3] == Change.Outcome.STALE)
    to_write = sum(planned.values())
    is_ready = run.status == RunStatus.PLANNED and to_write > 0
    return UndoPreview(
        sentence=scope_words(UndoScope.from_json(run.undo_scope), run.undoes),
        to_write=to_write,
        edited=edited,
        target=" and ".join(names.of(side) for side, n in planned.items() if n),
        can_apply=is_ready and permits(actor, Run, "undo"),
    )


def scope_words(scope: UndoScope, undone: Run | None = None) -> str:
    """Which changes are taken back, as one phrase."""
    keys = dict.fromkeys(record_key(key) for key in (scope.left_key, scope.right_key) if key)
    record = " ↔ ".join(keys)
    if scope.as_of is not None:
        return f"record {record} back to {scope.as_of:%Y-%m-%d %H:%M:%S} UTC"
    if record:
        return f"record {record} back to an earlier version"
    if len(scope.change_ids) == 1:
        return "undo of one change"
    if scope.change_ids:
        return f"undo of {len(scope.change_ids)} changes"
    return f"undo of the run of {undone.created_at:%Y-%m-%d %H:%M}" if undone else "undo of a run"


def posted_scope(data: QueryDict) -> UndoScope | None:
    """What a form asks to have undone; None where it names nothing.

    run: a run, alone or with chosen changes of it; left_key, right_key: a record, with
    after_change (a version) or as_of (a moment).
    """
    run_id = _uuid(data.get("run", ""))
    scope = UndoScope(run_id=run_id, change_ids=chosen_ids(data))
    keys = {"left_key": data.get("left_key", ""), "right_key": data.get("right_key", "")}
    if any(keys.values()):
        scope = replace(
            scope,
            **keys,
            after_change=change_id(data.get("after_change", "")),
            as_of=moment_of(data),
        )
        return scope if scope.after_change is not None or scope.as_of else None
    if data.get("what") == "chosen" and not scope.change_ids:
        return None
    return scope if run_id or scope.change_ids else None


def moment_of(data: Mapping[str, str]) -> datetime | None:
    """The moment in `as_of`; one without a zone is in the zone that the pages show."""
    try:
        moment = parse_datetime(data.get("as_of", ""))
    except ValueError:
        return None
    if moment is None:
        return None
    return make_aware(moment, get_current_timezone()) if is_naive(moment) else moment


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None


def undo_rights(actor: Any) -> tuple[bool, bool]:
    """Whether somebody may undo, and whether they may ask for it."""
    return permits(actor, Run, "undo"), permits(actor, RestoreRequest, "add")


def count_problem(preview: UndoPreview, typed: str) -> str:
    """What is wrong with the number that was typed; empty where it fits or none is asked for."""
    if not preview.asks_count or typed.strip().replace(" ", "") == str(preview.to_write):
        return ""
    return f"Type the number of changes, {preview.to_write}, to confirm. Nothing was written."
