"""What a run would write, or wrote: pages by key set, fields side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Count

from apps.core.protected import ProtectedValueError
from apps.ledger.models import Change, Operation
from apps.ledger.selectors import change_counts, change_id, change_page, rejections
from apps.runs.models import Run

PAGE = 25


@dataclass(frozen=True, slots=True)
class FieldDiff:
    """One field of a change: its value before and after; `absent` where a side has none."""

    name: str
    old: str | None
    new: str | None
    has_old: bool
    has_new: bool


def field_diffs(change: Change) -> list[FieldDiff]:
    """The fields that a change writes, or takes away."""
    try:
        before, after = change.images()
    except ProtectedValueError:
        return []
    names = list(dict.fromkeys([*(after or {}), *(before or {})]))
    return [
        FieldDiff(
            name,
            (before or {}).get(name),
            (after or {}).get(name),
            before is not None and name in before,
            after is not None and name in after,
        )
        for name in names
    ]


def changes_context(run: Run, params: Mapping[str, str], actor: Any) -> dict[str, Any]:
    """One page, the counts that filter it, and the rejections by cause."""
    operation = _known(params.get("operation", ""), Operation.values)
    outcome = _known(params.get("outcome", ""), Change.Outcome.values)
    after = params.get("after", "")
    page = change_page(
        run.pk,
        operation=operation,
        outcome=outcome,
        search_key=params.get("key", "").strip(),
        after_id=change_id(after),
        limit=PAGE + 1,
    )
    shown = page[:PAGE]
    counts = change_counts(run.pk)
    return {
        "changes": [(change, field_diffs(change)) for change in shown],
        "next_after": shown[-1].pk if len(page) > PAGE else None,
        "after": after,
        "operation": operation,
        "outcome": outcome,
        "searched": params.get("key", "").strip(),
        "total": sum(counts.values()),
        "by_operation": [
            (value, label, sum(n for (op, _), n in counts.items() if op == value))
            for value, label in Operation.choices
        ],
        "by_outcome": [
            (value, label, sum(n for (_, out), n in counts.items() if out == value))
            for value, label in Change.Outcome.choices
        ],
        "rejection_groups": _rejection_groups(run, actor),
    }


def _known(value: str, values: list[str]) -> str:
    return value if value in values else ""


def _rejection_groups(run: Run, actor: Any) -> list[dict[str, Any]]:
    """Rejections of the run by code and field, most first, with one message as an example."""
    found = rejections(actor).filter(run_id=run.pk).order_by()
    groups = list(found.values("code", "field").annotate(n=Count("pk")).order_by("-n")[:20])
    for group in groups:
        example = found.filter(code=group["code"], field=group["field"]).first()
        group["message"] = example.message if example else ""
    return groups
