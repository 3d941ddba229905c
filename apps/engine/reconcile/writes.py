"""What would be written to the left, and the left view that it would give.

Right values (as they will be) go through the backward program; what it writes is laid over the
left record as it was read; that goes through the forward program. `back` holds the left values
by number, `ahead` the new left view and key, both of the slice of pairs that is being decided. A
record that a program rejects goes to `refused_write`; one that the filter would leave out is left
alone (it is in neither).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import orjson
import pyarrow as pa

from apps.engine.program import LEFT_KEY, RIGHT_KEY, ROW, RecordRejection, Transformed
from apps.engine.reconcile.layout import Layout, Write
from apps.engine.reconcile.store import Store
from apps.engine.types_sql import duckdb_type, from_canonical_sql, literal

Program = Callable[[pa.RecordBatch], Transformed]
BATCH_ROWS = 10_000
_REJECTED = pa.schema(
    [
        ("id", pa.int64()),
        *((name, pa.string()) for name in ("code", "message", "field", "name", "record")),
        ("stop", pa.bool_()),
    ]
)


def make_written(store: Store) -> None:
    """Make `tried`: the number and keys of all that was tried on the left."""
    store.run("CREATE TABLE tried(id BIGINT, lk VARCHAR, rk VARCHAR)")


def try_updates(store: Store, backward: Program, forward: Program) -> None:
    """Fill `back`, `ahead` and `refused_write` for what `pairs` writes to the left."""
    _make_tables(store)
    layout = store.layout
    flows = " OR ".join(flows_left(layout, i) for i in range(len(layout.names)))
    store.run(f"INSERT INTO attempt SELECT id, lk, rk, l, r FROM pairs p WHERE {flows}")
    _try(store, backward, forward)


def try_inserts(store: Store, backward: Program, forward: Program) -> None:
    """Fill `back`, `ahead` and `refused_write` for inserts and marks of the left."""
    _make_tables(store)
    store.run("INSERT INTO attempt SELECT id, NULL, rk, NULL, r FROM left_insert")
    _try(store, backward, forward)
    if store.layout.left_mark is not None:
        _run(store, "ahead", forward, _marked_left(store.layout))


def _make_tables(store: Store) -> None:
    layout = store.layout
    written = "".join(f", b{w.place} {duckdb_type(w.neutral)}" for w in layout.writes)
    view = "".join(f", f{i} {duckdb_type(layout.types[n])}" for i, n in enumerate(layout.names))
    store.run(f"CREATE OR REPLACE TABLE back(id BIGINT, lk VARCHAR{written})")
    store.run(f"CREATE OR REPLACE TABLE ahead(id BIGINT, lk VARCHAR, h VARCHAR{view})")
    store.run(
        "CREATE OR REPLACE TABLE attempt(id BIGINT, lk VARCHAR, rk VARCHAR, l BIGINT, r BIGINT)"
    )


def _try(store: Store, backward: Program, forward: Program) -> None:
    if not store.count("attempt"):
        return
    _run(store, "back", backward, _merged_right(store.layout))
    _run(store, "ahead", forward, _new_left(store.layout))
    store.run("INSERT INTO tried SELECT id, lk, rk FROM attempt")
    store.counted["left_alone"] = store.counted.get("left_alone", 0) + store.count(
        "attempt a ANTI JOIN ahead v ON v.id = a.id ANTI JOIN refused_write w ON w.id = a.id"
    )


def flows_left(layout: Layout, i: int, row: str = "p") -> str:
    """SQL: field i of a pair goes to the left."""
    merged = _merged_value(layout, i, row)
    return (
        f"({row}.s{i} IN ('L', 'l') OR ({row}.s{i} = 'M' AND {merged} IS DISTINCT FROM {row}.l{i}))"
    )


def flows_into(layout: Layout, write: Write, row: str = "p") -> str:
    """SQL: a right field from which this left field comes goes to the left."""
    parts = [
        flows_left(layout, i, row) for i, name in enumerate(layout.names) if name in write.sources
    ]
    return f"({' OR '.join(parts)})" if parts else "false"


def _merged_value(layout: Layout, i: int, row: str) -> str:
    neutral = layout.types[layout.names[i]]
    value = from_canonical_sql(f"{row}.v{i}", neutral)
    return f"TRY(CAST({value} AS {duckdb_type(neutral)}))"


def right_after(layout: Layout, i: int, row: str = "p", left: str = "l") -> str:
    """SQL of field i of a pair's right record as it will be; `left` begins the left view."""
    return (
        f"CASE WHEN {row}.s{i} IN ('R', 'r') THEN {row}.{left}{i} "
        f"WHEN {row}.s{i} = 'M' THEN {_merged_value(layout, i, row)} ELSE {row}.r{i} END"
    )


def _merged_right(layout: Layout) -> str:
    """SQL of right records as they will be, by number, in fields named as the program's."""
    fields = [
        f"CASE WHEN p.id IS NULL THEN r.f{i} ELSE {right_after(layout, i)} END AS f{i}"
        for i in range(len(layout.names))
    ]
    extra = [f"r.{column} AS {column}" for column in layout.extra.values()]
    return (
        f"SELECT a.id, {', '.join([*fields, *extra])} FROM attempt a "
        "JOIN right_side r ON r.rowid = a.r LEFT JOIN pairs p ON p.id = a.id"
    )


def _new_left(layout: Layout) -> str:
    """SQL of left records with what the backward program writes laid over them."""
    written = {write.name: write for write in layout.writes}
    fields = []
    for name, neutral in layout.left_types.items():
        old = layout.raw_value(name, "l")
        if name in written:
            new = f"b.b{written[name].place}"
            value = (
                f"CASE WHEN p.id IS NULL OR {flows_into(layout, written[name])} "
                f"THEN {new} ELSE {old} END"
            )
        else:
            value = f"CAST({old} AS {duckdb_type(neutral)})"
        fields.append(value)
    columns = ", ".join(f"{value} AS x{place}" for place, value in enumerate(fields))
    return (
        f"SELECT b.id, {columns} FROM back b JOIN attempt a ON a.id = b.id "
        "LEFT JOIN left_side l ON l.rowid = a.l LEFT JOIN pairs p ON p.id = b.id"
    )


def _marked_left(layout: Layout) -> str:
    """SQL of left records with their mark, by the number of their `dropping`."""
    mark = layout.two_way.left_mark_field
    fields = []
    for place, (name, neutral) in enumerate(layout.left_types.items()):
        value = layout.raw_value(name, "l")
        if name == mark:
            value = from_canonical_sql(literal(layout.left_mark), neutral)
        fields.append(f"CAST({value} AS {duckdb_type(neutral)}) AS x{place}")
    return (
        f"SELECT d.id, {', '.join(fields)} FROM dropping d JOIN left_side l ON l.rowid = d.row "
        "WHERE d.side = 'left' AND d.operation = 'mark'"
    )


def _run(store: Store, target: str, program: Program, sql: str) -> None:
    """Run a program over the rows of a query (id first) and keep what it gives."""
    layout = store.layout
    left = target == "ahead"
    names = list(layout.left_types) if left else [*layout.names, *layout.extra]
    types = layout.left_types if left else {**layout.types, **layout.extra_types}
    start = 0
    for table in store.batches(sql, None, BATCH_ROWS):
        columns = [table.column(i + 1).cast(types[n].arrow) for i, n in enumerate(names)]
        rows = pa.array(range(start, start + table.num_rows), pa.int64())
        batch = pa.table([*columns, rows], names=[*names, ROW]).combine_chunks().to_batches()[0]
        _keep(store, target, program(batch), table.column(0).combine_chunks(), start)
        start += table.num_rows
    store.flush()


def _keep(store: Store, target: str, outcome: Transformed, ids: pa.Array, start: int) -> None:
    layout = store.layout
    records = outcome.records
    numbers = ids.take(pa.array([row - start for row in records[ROW].to_pylist()], pa.int64()))
    columns: list[tuple[str, pa.Array | pa.ChunkedArray]] = [("id", numbers)]
    if target == "back":
        columns.append(("lk", records[RIGHT_KEY]))
        columns += [(f"b{write.place}", records[write.name]) for write in layout.writes]
        store.insert("back", columns, "*")
    else:
        columns.append(("lk", records[LEFT_KEY]))
        columns += [(f"f{i}", records[name]) for i, name in enumerate(layout.names)]
        fields = ", ".join(f"f{i}" for i in range(len(layout.names)))
        store.insert("ahead", columns, f"id, lk, {store.hashed('f')}, {fields}")
    _keep_rejections(store, outcome.rejected, ids, start, stop=False)
    _keep_rejections(store, outcome.stops, ids, start, stop=True)


def _keep_rejections(
    store: Store, rejections: Iterable[RecordRejection], ids: pa.Array, start: int, *, stop: bool
) -> None:
    rows = [
        {
            "id": ids[(rejection.row or 0) - start].as_py(),
            "code": rejection.code,
            "message": rejection.message,
            "field": rejection.field,
            "name": rejection.check,
            "record": orjson.dumps(rejection.record).decode(),
            "stop": stop,
        }
        for rejection in rejections
    ]
    if rows:
        table = pa.Table.from_pylist(rows, schema=_REJECTED)
        store.insert("refused_write", [(name, table[name]) for name in _REJECTED.names], "*")
