"""What a run would write, or wrote: pages by key set, fields side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from django.db.models import Count

from apps.core.protected import ProtectedValueError
from apps.ledger.admin.sides import SideNames, side_names
from apps.ledger.models import Change, Operation, Side
from apps.ledger.selectors import change_groups, change_id, change_page, masked, rejections
from apps.runs.models import Run
from apps.runs.services import ChangeSelection

PAGE = 25
FACETS = {
    "side": Side,
    "operation": Operation,
    "cause": Change.Cause,
    "outcome": Change.Outcome,
}


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


@dataclass(frozen=True, slots=True)
class ChangesFilter:
    """Which of a run's changes somebody looks at; lives in the address. Empty: all."""

    side: str = ""
    operation: str = ""
    cause: str = ""
    outcome: str = ""
    key: str = ""

    @classmethod
    def of(cls, params: Mapping[str, str]) -> ChangesFilter:
        """From an address or a form; what makes no sense does not narrow."""
        known = {
            name: params.get(name, "") if params.get(name, "") in choices.values else ""
            for name, choices in FACETS.items()
        }
        return cls(**known, key=params.get("key", "").strip())

    @property
    def narrows(self) -> bool:
        return self != ChangesFilter()

    @property
    def facets(self) -> tuple[str, ...]:
        """The values that narrow by side, operation, cause and outcome."""
        return (self.side, self.operation, self.cause, self.outcome)

    def passes(self, group: tuple[str, ...]) -> bool:
        pairs = zip(self.facets, group, strict=True)
        return all(wanted in ("", value) for wanted, value in pairs)

    def selection(self) -> ChangeSelection:
        """The same for approving what the filter shows."""
        return ChangeSelection(
            operations=(self.operation,) if self.operation else (),
            sides=(self.side,) if self.side else (),
            causes=(self.cause,) if self.cause else (),
        )


@dataclass(frozen=True, slots=True)
class FacetChip:
    name: str
    value: str
    label: str
    count: int
    active: bool


def changes_context(
    run: Run, params: Mapping[str, str], actor: Any, *, revealed: bool = False
) -> dict[str, Any]:
    """One page, the counts that filter it, and the rejections by cause."""
    wanted = ChangesFilter.of(params)
    after = params.get("after", "")
    groups = change_groups(run.pk)
    names = side_names(run.rule)
    page = change_page(
        run.pk,
        side=wanted.side,
        operation=wanted.operation,
        cause=wanted.cause,
        outcome=wanted.outcome,
        search_key=wanted.key,
        after_id=change_id(after),
        limit=PAGE + 1,
    )
    shown = masked(page[:PAGE], revealed=revealed)
    return {
        "changes": [(change, field_diffs(change)) for change in shown],
        "next_after": shown[-1].pk if len(page) > PAGE else None,
        "after": after,
        "wanted": wanted,
        "total": sum(groups.values()),
        "passing": sum(n for group, n in groups.items() if wanted.passes(group)),
        "facets": [
            row for row in (_facet(name, wanted, groups, names) for name in FACETS) if len(row) > 1
        ],
        "kept_filters": [(name, getattr(wanted, name)) for name in FACETS if getattr(wanted, name)],
        "is_two_way": run.rule.direction == "two_way",
        "rejection_groups": _rejection_groups(run, actor),
    }


def _facet(
    name: str, wanted: ChangesFilter, groups: Mapping[tuple[str, ...], int], names: SideNames
) -> list[FacetChip]:
    """The values of one filter that occur, each counted under the other filters."""
    place = list(FACETS).index(name)
    others = replace(wanted, **{name: ""})
    counts: dict[str, int] = {}
    for group, number in groups.items():
        counts.setdefault(group[place], 0)
        if others.passes(group):
            counts[group[place]] += number
    chosen = getattr(wanted, name)
    return [
        FacetChip(
            name,
            value,
            f"in {names.of(value)}" if name == "side" else str(label),
            counts[value],
            value == chosen,
        )
        for value, label in FACETS[name].choices
        if value in counts
    ]


def _rejection_groups(run: Run, actor: Any) -> list[dict[str, Any]]:
    """Rejections of the run by code and field, most first, with one message as an example."""
    found = rejections(actor).filter(run_id=run.pk).order_by()
    groups = list(found.values("code", "field").annotate(n=Count("pk")).order_by("-n")[:20])
    for group in groups:
        example = found.filter(code=group["code"], field=group["field"]).first()
        group["message"] = masked([example])[0].message if example else ""
    return groups
