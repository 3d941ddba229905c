"""Deciding many conflicts alike: what is offered, what would happen, and doing it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
from django.db.models import QuerySet

from apps.ledger.admin.conflicts.choices import BY_FIELD, DELETIONS, decision_for_side
from apps.ledger.admin.conflicts.inbox import Facets, InboxFilter
from apps.ledger.admin.sides import side_names
from apps.ledger.models import Conflict
from apps.ledger.selectors import conflicts, masked
from apps.ledger.services import Decision, decide_many
from apps.rules.selectors import rules

MOST_AT_ONCE = 1_000
EXAMPLES = 10


@dataclass(frozen=True, slots=True)
class BulkChoice:
    """One way to decide many: `left`, `right`, `keep` or `delete`."""

    name: str
    label: str
    icon: str
    sentence: str
    kinds: tuple[Conflict.Kind, ...]
    variant: str = ""


CHOICES = (
    BulkChoice(
        "left",
        "All from the left",
        "arrow_back",
        "Both sides get the values of the left one, for every open field.",
        BY_FIELD,
    ),
    BulkChoice(
        "right",
        "All from the right",
        "arrow_forward",
        "Both sides get the values of the right one, for every open field.",
        BY_FIELD,
    ),
    BulkChoice(
        "keep",
        "Keep all of them",
        "restore_from_trash",
        "The records come back on the side that deleted them.",
        DELETIONS,
    ),
    BulkChoice(
        "delete",
        "Delete all of them",
        "delete",
        "The records are deleted on the side that still has them.",
        DELETIONS,
        "danger",
    ),
)


def choice_named(name: str) -> BulkChoice | None:
    return next((choice for choice in CHOICES if choice.name == name), None)


def offered(wanted: InboxFilter, counted: Facets) -> list[BulkChoice]:
    """The choices that make sense for everything which the filter shows."""
    if wanted.state != Conflict.State.OPEN:
        return []
    kinds = {wanted.kind} if wanted.kind else set(counted.kinds)
    return [choice for choice in CHOICES if kinds and kinds <= set(choice.kinds)]


def preview(rows: QuerySet[Conflict], choice: BulkChoice, actor: Any) -> dict[str, Any]:
    """What would be decided: the number, examples, and what the person saw of each."""
    fitting = rows.filter(kind__in=choice.kinds)
    chosen = list(fitting.only("pk", "seen", "rule_id")[:MOST_AT_ONCE])
    known = {r.pk: r for r in rules(actor).filter(pk__in={c.rule_id for c in chosen})}
    return {
        "count": len(chosen),
        "left_for_later": fitting.count() - len(chosen),
        "not_fitting": rows.exclude(kind__in=choice.kinds).count(),
        "seen": orjson.dumps({str(c.pk): c.seen for c in chosen}).decode(),
        "examples": [
            (conflict, _sides(conflict, known)) for conflict in masked(fitting[:EXAMPLES])
        ],
        "more": max(0, len(chosen) - EXAMPLES),
    }


def _sides(conflict: Conflict, known: dict[UUID, Any]) -> dict[str, Any]:
    left, right = conflict.left or {}, conflict.right or {}
    names = side_names(known.get(conflict.rule_id))
    fields = conflict.field_names or list({**left, **right})[:3]
    return {
        "names": names,
        "lines": [(name, left.get(name), right.get(name)) for name in fields],
    }


def decide_seen(text: str, choice: BulkChoice, *, actor: Any, note: str) -> tuple[int, int]:
    """Decide what `preview` showed; returns how many were decided, and how many could not be."""
    seen = _seen(text)
    by_decision: dict[str, tuple[Decision, dict[UUID, str]]] = {}
    found = conflicts(actor, "decide").filter(pk__in=list(seen), kind__in=choice.kinds)
    for conflict in found:
        decision = decision_for_side(conflict, choice.name)
        if decision is not None:
            group = by_decision.setdefault(decision.record, (decision, {}))
            group[1][conflict.pk] = seen[conflict.pk]
    failed: dict[UUID, Exception] = {}
    counted: dict[str, int] = defaultdict(int)
    for decision, chosen in by_decision.values():
        failed |= decide_many(chosen, decision, actor=actor, note=note)
        counted["tried"] += len(chosen)
    return counted["tried"] - len(failed), len(failed) + len(seen) - counted["tried"]


def _seen(text: str) -> dict[UUID, str]:
    """What the form carried; nothing where it is not what `preview` wrote."""
    try:
        pairs = orjson.loads(text)
        return {UUID(pk): str(seen) for pk, seen in list(pairs.items())[:MOST_AT_ONCE]}
    except (AttributeError, ValueError):
        return {}
