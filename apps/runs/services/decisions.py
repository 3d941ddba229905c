"""Decisions of people as the planners take them."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa


def as_reconciler_takes_them(decisions: pa.Table) -> pa.Table:
    """For `Reconciler.add_decisions`; a table as `decisions_for` gives it."""
    texts = [_for_reconciler(orjson.loads(t)) for t in decisions.column("decision").to_pylist()]
    place = decisions.column_names.index("decision")
    return decisions.set_column(place, "decision", pa.array(texts, pa.string()))


def as_planner_takes_them(decisions: pa.Table) -> pa.Table:
    """For `Planner.add_decisions`: just the side that a person chose."""
    decided = [orjson.loads(text) for text in decisions.column("decision").to_pylist()]
    sides = pa.array([item.get("side") or "" for item in decided], pa.string())
    return decisions.append_column("side", sides)


def _for_reconciler(decision: dict[str, Any]) -> str:
    fields = {name: {"take": side} for name, side in decision.get("fields", {}).items()}
    for name, value in decision.get("values", {}).items():
        fields[name] = {"take": "value", "value": value}
    made = {
        "record": decision.get("side") or None,
        "fields": fields,
        "match": decision.get("match") or None,
    }
    return orjson.dumps({key: value for key, value in made.items() if value}).decode()
