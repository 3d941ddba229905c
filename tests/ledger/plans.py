"""Plans as planners hand them out, made by hand."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from uuid import UUID, uuid4

import orjson
import pyarrow as pa

from apps.engine.codec import image_hash
from apps.engine.types_sql import json_text, key_text
from apps.ledger.selectors import PlannedChange, planned_changes
from apps.ledger.services import WorkIdentity, store_plan

SCHEMA = pa.schema(
    [
        ("side", pa.string()),
        ("operation", pa.string()),
        ("cause", pa.string()),
        ("left_key", pa.string()),
        ("right_key", pa.string()),
        ("key_after", pa.string()),
        ("fields", pa.list_(pa.string())),
        ("before", pa.string()),
        ("after", pa.string()),
        ("image", pa.string()),
        ("base_left", pa.string()),
        ("base_right", pa.string()),
    ]
)


def work(rule_id: UUID | None = None, run_id: UUID | None = None) -> WorkIdentity:
    return WorkIdentity(rule_id or uuid4(), run_id or uuid4(), uuid4())


def key(value: object) -> str:
    return key_text([str(value)])


def change(operation: str, left: object, right: object, **more: Any) -> dict[str, Any]:
    """One row of a plan; left, right: plain keys, None where not known; images as dicts."""
    known = [None if value is None else key(value) for value in (left, right)]
    row = dict.fromkeys(SCHEMA.names) | {
        "side": "right",
        "operation": operation,
        "cause": {"insert": "new", "update": "changed", "delete": "deleted"}[operation],
        "left_key": known[0],
        "right_key": known[1],
        "fields": sorted(more.get("after") or {}),
    }
    row |= more
    if isinstance(row["after"], dict) and operation == "insert":
        row["image"] = row["image"] or image_hash(row["after"])
    for name in ("before", "after", "base_left", "base_right"):
        if isinstance(row[name], dict):
            row[name] = json_text(row[name])
    return row


def plan(identity: WorkIdentity, *rows: dict[str, Any], batch: int = 1_000) -> list[PlannedChange]:
    """Store a plan and read it back."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    store_table(identity, table, batch=batch)
    return planned_changes(identity.partition_id, 0, len(rows) + 1)


def store_table(identity: WorkIdentity, table: pa.Table, *, batch: int = 1_000) -> int:
    batches = (pa.Table.from_batches([part]) for part in table.to_batches(max_chunksize=batch))
    return store_plan(identity, batches, total=table.num_rows, transaction=nullcontext)


def image(text: str) -> Any:
    return orjson.loads(text)
