"""Deciding about a plan that waits: what the page shows, and what is sent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.http import QueryDict

from apps.ledger.admin.sides import side_names
from apps.ledger.models import Change, Operation
from apps.ledger.selectors import change_groups, change_id
from apps.runs.admin.changes import ChangesFilter
from apps.runs.models import Run
from apps.runs.selectors import first_eyes, runs
from apps.runs.services import ChangeSelection

MOST_CHOSEN = 5_000


@dataclass(frozen=True, slots=True)
class WaitingPlan:
    """A plan that waits, in numbers and words."""

    total: int
    target: str  # "Billing", or "CRM and Billing"
    summary: str  # "40 updates, 4 deletes"
    causes: list[tuple[str, int]]
    deletes: int
    may_decide: bool
    own_request: bool  # somebody else has to approve

    def question(self, count: int | str, noun: str = "changes") -> str:
        """What is asked before it is applied."""
        return f"Write {count} {noun} to {self.target}?"

    @property
    def question_all(self) -> str:
        gone = f" {self.deletes} of them delete a record." if self.deletes else ""
        return f"Write {self.total} changes to {self.target}?{gone}"


def waiting_plan(run: Run, actor: Any) -> WaitingPlan | None:
    """What somebody decides about; None where nothing waits."""
    if not run.is_waiting:
        return None
    groups = change_groups(run.pk)
    names = side_names(run.rule)
    sides, operations, causes = Counter[str](), Counter[str](), Counter[str]()
    for (side, operation, cause, _), number in groups.items():
        sides[side] += number
        operations[operation] += number
        causes[cause] += number
    words = [
        f"{operations[value]:,} {label.lower()}{'s' if operations[value] != 1 else ''}"
        for value, label in Operation.choices
        if operations[value]
    ]
    own = actor.pk in first_eyes(run)
    return WaitingPlan(
        total=sum(groups.values()),
        target=" and ".join(names.of(side) for side in ("left", "right") if sides[side]),
        summary=", ".join(words),
        causes=[(Change.Cause(value).label, n) for value, n in causes.most_common()],
        deletes=operations[Operation.DELETE.value],
        may_decide=runs(actor, "approve").filter(pk=run.pk).exists() and not own,
        own_request=own,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody sent: apply all (selection None), some, or reject; or why it makes no sense."""

    approve: bool
    selection: ChangeSelection | None = None
    problem: str = ""


def posted_answer(data: QueryDict) -> Answer:
    """Read the form: `what` is all, chosen, filter or reject."""
    what = data.get("what", "")
    if what == "reject":
        return Answer(approve=False)
    if what == "all":
        return Answer(approve=True)
    if what == "chosen":
        ids = chosen_ids(data)
        problem = "" if ids else "No change is chosen: tick some, or apply all."
        return Answer(True, ChangeSelection(ids=ids), problem)
    if what == "filter":
        return Answer(True, filter_of(data).selection())
    return Answer(True, problem="Nothing was decided.")


def filter_of(data: Mapping[str, str]) -> ChangesFilter:
    return ChangesFilter.of(data)


def chosen_ids(data: QueryDict) -> tuple[int, ...]:
    """The ticked changes: the boxes of this page, and `chosen` for those of other pages."""
    texts = [*data.getlist("change"), *data.get("chosen", "").split(",")]
    ids = {change_id(text) for text in texts} - {None}
    return tuple(sorted(pk for pk in ids if pk is not None))[:MOST_CHOSEN]
