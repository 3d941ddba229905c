"""The plan of each pair, once it is known what the left side makes of what is written to it.

`outcome` holds a slice of the pairs with: n{i} the left view afterwards, m{i} the right value
afterwards, s{i} the verdict; t{i} whether the field goes to the left, x{j} whether left field j is
written and `left_write` whether any is; w{i} whether the field is written to the right; `lk_after`
and `rk_after` the keys afterwards.

What is planned of it is kept in `right_update`, `left_update` and `refresh`, and each pair in
`final`, as far as clashes and counts need it. `left_final` and `right_final` hold the inserts.

A left field may feed more than one right field, so what is written to the left can change further
fields of the left view; those flow to the right in the same plan.
"""

from __future__ import annotations

from apps.engine.reconcile.layout import Layout
from apps.engine.reconcile.outputs import updates_sql
from apps.engine.reconcile.store import Store
from apps.engine.reconcile.writes import flows_into, flows_left, right_after
from apps.engine.spec import CheckKind, Severity
from apps.engine.types_sql import canonical_sql, key_sql


def make_final(store: Store) -> None:
    """Make `final`, `right_update`, `left_update` and `refresh`, all of them empty."""
    unique = "".join(
        f", m{i} VARCHAR, w{i} BOOLEAN, n{i} VARCHAR, g{i} BOOLEAN"
        for i in unique_places(store.layout)
    )
    store.run(
        "CREATE TABLE final(id BIGINT, lk VARCHAR, rk VARCHAR, l BIGINT, r BIGINT, "
        "lk_after VARCHAR, rk_after VARCHAR, left_write BOOLEAN, right_write BOOLEAN, "
        f"agreed BOOLEAN{unique})"
    )
    for table in ("right_update", "left_update"):
        store.run(
            f"CREATE TABLE {table}(id BIGINT, side VARCHAR, operation VARCHAR, lk VARCHAR, "
            "rk VARCHAR, key_after VARCHAR, fields VARCHAR[], before VARCHAR, after VARCHAR, "
            "image VARCHAR, cause VARCHAR, base_left VARCHAR, base_right VARCHAR)"
        )
    store.run(
        "CREATE TABLE refresh(id BIGINT, lk VARCHAR, rk VARCHAR, left_image VARCHAR, "
        "right_image VARCHAR, base_left VARCHAR, base_right VARCHAR)"
    )


def unique_places(layout: Layout) -> list[int]:
    """The fields whose values only one record of a side may have."""
    return [
        layout.names.index(check.field)
        for check in layout.rule.checks
        if check.kind is CheckKind.UNIQUE and check.severity is not Severity.WARN
    ]


def make_outcome(store: Store) -> None:
    """Keep what becomes of `pairs`."""
    layout = store.layout
    store.run(
        f"CREATE OR REPLACE TABLE outcome AS SELECT *, {_right_keys(layout)} AS rk_after, "
        f"{_right_writes(layout)} FROM "
        f"(SELECT *, {_right_values(layout)} FROM (SELECT * REPLACE ({_verdicts(layout)}), "
        f"{_left_views(layout)} FROM (SELECT *, ({_left_write(layout)}) AS left_write "
        f"FROM ({_tried(layout)}))) p)"
    )
    for table, sql in updates_sql(layout).items():
        store.run(f"INSERT INTO {table} {sql}")
    store.run(f"INSERT INTO final {_final(layout)}")


def _final(layout: Layout) -> str:
    places = range(len(layout.names))
    columns = ["id", "lk", "rk", "l", "r", "lk_after", "rk_after", "left_write"]
    columns.append("(" + " OR ".join(f"w{i}" for i in places) + ")")
    columns.append("(" + " OR ".join(f"s{i} = 'A'" for i in places) + ")")
    for i in unique_places(layout):
        neutral = layout.types[layout.names[i]]
        columns += [canonical_sql(f"m{i}", neutral), f"w{i}", canonical_sql(f"n{i}", neutral)]
        columns.append(f"left_write AND n{i} IS DISTINCT FROM l{i}")
    return f"SELECT {', '.join(columns)} FROM outcome"


def finish_inserts(store: Store) -> None:
    """Make `left_final` and `right_final`."""
    store.run(
        "CREATE TABLE left_final AS SELECT i.*, a.lk AS lk_after FROM left_insert i "
        "JOIN ahead a ON a.id = i.id"
    )
    store.run(
        "CREATE TABLE right_final AS SELECT i.*, l.rk AS rk_after FROM right_insert i "
        "JOIN left_side l ON l.rowid = i.l"
    )


def make_inserts(store: Store) -> None:
    """Make `left_insert` and `right_insert` of the new and the revived records."""
    store.run(
        "CREATE TABLE left_insert AS SELECT nextval('ids') AS id, r, rk, old_lk, cause FROM ("
        "SELECT r, rk, CAST(NULL AS VARCHAR) AS old_lk, 'new' AS cause FROM new_right "
        "UNION ALL SELECT row, rk, lk, cause FROM revived WHERE side = 'left')"
    )
    store.run(
        "CREATE TABLE right_insert AS SELECT nextval('ids') AS id, l, lk, old_rk, cause FROM ("
        "SELECT l, lk, CAST(NULL AS VARCHAR) AS old_rk, 'new' AS cause FROM new_left "
        "UNION ALL SELECT row, lk, rk, cause FROM revived WHERE side = 'right')"
    )


def _tried(layout: Layout) -> str:
    """SQL: each pair with what was tried on the left."""
    flows = ", ".join(f"{flows_left(layout, i)} AS t{i}" for i in range(len(layout.names)))
    moved = [
        f"(a.id IS NOT NULL AND {flows_into(layout, w)} AND b.b{w.place} IS DISTINCT FROM "
        f"{layout.raw_value(w.name, 'l')})"
        for w in layout.writes
    ]
    writes = ", ".join(f"{sql} AS x{w.place}" for sql, w in zip(moved, layout.writes, strict=True))
    views = ", ".join(f"a.f{i} AS a{i}" for i in range(len(layout.names)))
    return (
        f"SELECT p.*, {flows}, {views}, a.id IS NOT NULL AS accepted, "
        f"{writes or 'false AS x0'}, coalesce(a.lk, p.lk) AS lk_after "
        "FROM pairs p LEFT JOIN ahead a ON a.id = p.id LEFT JOIN back b ON b.id = p.id "
        "JOIN left_side l ON l.rowid = p.l"
    )


def _left_write(layout: Layout) -> str:
    return " OR ".join(f"x{write.place}" for write in layout.writes) or "false"


def _right_writes(layout: Layout) -> str:
    return ", ".join(
        f"(s{i} IN ('R', 'r', 'M') AND m{i} IS DISTINCT FROM r{i}) AS w{i}"
        for i in range(len(layout.names))
    )


def _left_views(layout: Layout) -> str:
    return ", ".join(
        f"CASE WHEN left_write THEN a{i} ELSE l{i} END AS n{i}" for i in range(len(layout.names))
    )


def _verdicts(layout: Layout) -> str:
    parts = []
    for i in range(len(layout.names)):
        induced = f"left_write AND s{i} IN ('', 'A', 'R', 'r') AND a{i} IS DISTINCT FROM l{i}"
        parts.append(
            f"CASE WHEN t{i} AND NOT accepted THEN 'X' "
            f"WHEN s{i} IN ('L', 'l') AND NOT left_write THEN 'A' "
            f"WHEN {induced} THEN CASE WHEN a{i} IS NOT DISTINCT FROM r{i} THEN 'A' "
            f"WHEN s{i} = 'r' THEN 'r' ELSE 'R' END ELSE s{i} END AS s{i}"
        )
        parts.append(f"t{i} AND left_write AS t{i}")
    return ", ".join(parts)


def _right_values(layout: Layout) -> str:
    return ", ".join(
        f"{right_after(layout, i, 'p', 'n')} AS m{i}" for i in range(len(layout.names))
    )


def _right_keys(layout: Layout) -> str:
    """SQL of the right key afterwards; only a mapped key can move."""
    places = {name: place for place, name in enumerate(layout.names)}
    if not all(name in places for name in layout.mapping.key):
        return "rk"
    return key_sql([(f"m{places[n]}", layout.types[n]) for n in layout.mapping.key])
