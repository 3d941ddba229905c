"""Merge the values that no single CASE can: in Python, or by a person's expression (sandboxed)."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from apps.connectors.errors import ConfigurationError
from apps.engine.codec import canonical_texts
from apps.engine.program import ROW, Transformed
from apps.engine.reconcile.layout import Layout
from apps.engine.reconcile.merging import ASK, Values, merge_value
from apps.engine.reconcile.programs import POLICY_NAMES, POLICY_ROW
from apps.engine.reconcile.store import Store
from apps.engine.reconcile.verdicts import PENDING
from apps.engine.spec import FieldPolicy
from apps.engine.types_sql import canonical_sql, duckdb_type, from_canonical_sql

BATCH_ROWS = 10_000
Program = Callable[[pa.RecordBatch], Transformed]


def merge_pending(store: Store, evaluate: Program | None) -> None:
    """Turn each pending field of `pairs` into a merged value (M) or a question (C)."""
    layout = store.layout
    store.run(
        "CREATE OR REPLACE TABLE merged(id BIGINT, place INTEGER, value VARCHAR, known BOOLEAN)"
    )
    places = [i for i in range(len(layout.names)) if _may_be_pending(layout, i)]
    for i in places:
        name = layout.names[i]
        if not store.count(f"pairs WHERE s{i} = 'P'"):
            continue
        if layout.two_way.policy_of(name).policy is FieldPolicy.EXPRESSION:
            _evaluate(store, i, name, evaluate)
        else:
            _merge(store, i, name)
        store.flush()
        store.run(
            f"UPDATE pairs SET s{i} = CASE WHEN m.known THEN 'M' ELSE 'C' END, v{i} = m.value "
            f"FROM merged m WHERE m.id = pairs.id AND m.place = {i}"
        )
        store.run(f"UPDATE pairs SET s{i} = 'C' WHERE s{i} = 'P'")


def _may_be_pending(layout: Layout, i: int) -> bool:
    name = layout.names[i]
    picks_a_side = layout.two_way.policy_of(name).policy not in PENDING
    return layout.types[name].is_wide_decimal or not picks_a_side


def _merge(store: Store, i: int, name: str) -> None:
    layout = store.layout
    spec, neutral = layout.two_way.policy_of(name), layout.types[name]
    left, right = (canonical_sql(f"{side}{i}", neutral) for side in "lr")
    sql = f"SELECT id, {left} AS l, {right} AS r, bl{i} AS b FROM pairs WHERE s{i} = 'P'"
    for table in store.batches(sql, None, BATCH_ROWS):
        merged = [
            merge_value(spec, neutral, Values(row["l"], row["r"], row["b"]))
            for row in table.to_pylist()
        ]
        texts = pa.array([None if value is ASK else value for value in merged], pa.string())
        known = pa.array([value is not ASK for value in merged], pa.bool_())
        _keep(store, table.column("id"), i, texts, known)


def _evaluate(store: Store, i: int, name: str, evaluate: Program | None) -> None:
    """An expression that fails for a record leaves it pending."""
    if evaluate is None:
        raise ConfigurationError("the policy's expression is not compiled", where=f"field '{name}'")
    layout = store.layout
    neutral = layout.types[name]
    base = f"CAST(TRY({from_canonical_sql(f'bl{i}', neutral)}) AS {duckdb_type(neutral)})"
    sql = f"SELECT id, l{i} AS l, r{i} AS r, {base} AS b FROM pairs WHERE s{i} = 'P'"
    for table in store.batches(sql, None, BATCH_ROWS):
        outcome = evaluate(_policy_batch(layout, name, table))
        rows = outcome.records[ROW]
        texts = canonical_texts(outcome.records.select([name]), {name: neutral})[name]
        known = pa.array([True] * len(rows), pa.bool_())
        _keep(store, table.column("id").take(rows), i, texts, known)


def _policy_batch(layout: Layout, name: str, table: pa.Table) -> pa.RecordBatch:
    """The values of one field for the program of all policies; other fields are empty."""
    rows = pa.array(range(table.num_rows), pa.int64())
    columns = {POLICY_ROW: rows, ROW: rows}
    for policy in layout.two_way.fields:
        if policy.policy is FieldPolicy.EXPRESSION and policy.field in layout.types:
            kind = layout.types[policy.field].arrow
            for short, value in zip("lrb", POLICY_NAMES, strict=True):
                columns[f"{value} {policy.field}"] = (
                    table.column(short).cast(kind)
                    if policy.field == name
                    else pa.nulls(table.num_rows, kind)
                )
    return pa.table(columns).combine_chunks().to_batches()[0]


def _keep(store: Store, ids: pa.ChunkedArray, place: int, texts: pa.Array, known: pa.Array) -> None:
    places = pa.array([place] * len(ids), pa.int32())
    store.insert(
        "merged", [("id", ids), ("place", places), ("value", texts), ("known", known)], "*"
    )
