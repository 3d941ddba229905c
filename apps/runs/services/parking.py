"""Conflicts that applying meets: a write of which nobody knows whether it got through."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from apps.ledger.models import Conflict
from apps.ledger.selectors import PlannedChange

_SCHEMA = pa.schema(
    [
        ("kind", pa.string()),
        ("left_key", pa.string()),
        ("right_key", pa.string()),
        ("fields", pa.list_(pa.string())),
        ("left", pa.string()),
        ("right", pa.string()),
    ]
)


def in_doubt_conflicts(changes: Sequence[PlannedChange]) -> pa.Table:
    """Inserts in doubt as `record_conflicts` takes them; both sides show what was to be written."""
    rows = [
        {
            "kind": Conflict.Kind.IN_DOUBT.value,
            "left_key": change.left_key or None,
            "right_key": change.right_key or None,
            "fields": list(change.fields),
            "left": change.base_left or change.after,
            "right": change.base_right or change.after,
        }
        for change in changes
    ]
    return pa.Table.from_pylist(rows, schema=_SCHEMA)
