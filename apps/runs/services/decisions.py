"""Decisions of people as the one-way planner takes them."""

from __future__ import annotations

import orjson
import pyarrow as pa

_SIDES = {"left": "left", "delete": "left", "right": "right", "keep": "right", "insert": "right"}


def as_planner_takes_them(decisions: pa.Table) -> pa.Table:
    """A table as `decisions_for` gives it, with the side that a person let stand.

    A deletion on the left stands with `left` (or `delete`), the right record with `right`.
    """
    decided = [orjson.loads(text) for text in decisions.column("decision").to_pylist()]
    sides = [_SIDES.get(item.get("record", ""), "") for item in decided]
    return decisions.append_column("side", pa.array(sides, pa.string()))
