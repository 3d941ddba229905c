"""Reads of conflicts: the inbox, its counts, and the decisions that a run must honour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pyarrow as pa
from django.db.models import Count, Q, QuerySet

from apps.ledger.models import Conflict
from apps.ledger.selectors.keys import key_candidates, key_hash
from apps.ledger.selectors.scopes import conflicts

OPEN = (Conflict.State.OPEN, Conflict.State.DECIDED)

DECISIONS = pa.schema(
    [(name, pa.string()) for name in ("kind", "left_key", "right_key", "seen", "decision")]
)


@dataclass(frozen=True, slots=True)
class ConflictFilter:
    """Which conflicts: empty values do not narrow. `search`: a key, plain or canonical."""

    state: str = Conflict.State.OPEN.value
    rule_ids: Sequence[UUID] = ()
    kind: str = ""
    run_id: UUID | None = None
    search: str = ""

    def applied(self, rows: QuerySet[Conflict]) -> QuerySet[Conflict]:
        """The rows that pass."""
        exact: Mapping[str, Any] = {"state": self.state, "kind": self.kind, "run_id": self.run_id}
        rows = rows.filter(**{name: value for name, value in exact.items() if value})
        if self.rule_ids:
            rows = rows.filter(rule_id__in=self.rule_ids)
        if self.search:
            hashes = [key_hash(text) for text in key_candidates(self.search)]
            rows = rows.filter(Q(left_hash__in=hashes) | Q(right_hash__in=hashes))
        return rows


def conflict_page(
    actor: Any, wanted: ConflictFilter, *, after: UUID | None = None, limit: int = 50
) -> list[Conflict]:
    """One page, newest first; `after` is the last id of the page before."""
    rows = wanted.applied(conflicts(actor))
    if after is not None:
        rows = rows.filter(pk__lt=after)  # ids are ordered by time
    return list(rows.order_by("-pk")[:limit])


def conflict_counts(actor: Any, wanted: ConflictFilter) -> dict[tuple[str, str], int]:
    """Number of conflicts by state and kind; the filter's own state and kind do not narrow."""
    wide = ConflictFilter("", wanted.rule_ids, "", wanted.run_id, wanted.search)
    rows = wide.applied(conflicts(actor)).order_by().values_list("state", "kind")
    return {(state, kind): n for state, kind, n in rows.annotate(n=Count("pk"))}


def decisions_for(rule_id: UUID) -> pa.Table:
    """What people decided and no run has written yet (schema `DECISIONS`).

    Keys are NULL where the conflict has none; seen: the values that the decision holds for;
    decision: JSON, see `services.Decision`.
    """
    rows = Conflict.objects.filter(rule_id=rule_id, state=Conflict.State.DECIDED)
    columns: list[list[str | None]] = [[] for _ in DECISIONS]
    for conflict in rows.iterator():
        values = (
            conflict.kind,
            conflict.left_key or None,
            conflict.right_key or None,
            conflict.decided_seen,
            orjson.dumps(conflict.decision).decode(),
        )
        for column, value in zip(columns, values, strict=True):
            column.append(value)
    return pa.table([pa.array(column, pa.string()) for column in columns], schema=DECISIONS)
