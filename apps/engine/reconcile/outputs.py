"""The SQL of what a plan hands out: changes, refreshed links, links to forget."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from apps.connectors.types import TEXT
from apps.engine.codec import hash_sql, image_sql
from apps.engine.reconcile.layout import Layout, Value, image_where, names_where
from apps.engine.types_sql import canonical_sql, duckdb_type, from_canonical_sql, literal

TEXTS = pa.string()
KEYS = pa.schema([("left_key", TEXTS), ("right_key", TEXTS)])
CHANGES = pa.schema(
    [
        ("side", TEXTS),
        ("operation", TEXTS),
        *KEYS,
        ("key_after", TEXTS),
        ("fields", pa.list_(TEXTS)),
        *((n, TEXTS) for n in ("before", "after", "image", "cause", "base_left", "base_right")),
    ]
)
REFRESHES = pa.schema(
    [*KEYS, *((n, TEXTS) for n in ("left_image", "right_image", "base_left", "base_right"))]
)
CONFLICTS = pa.schema(
    [
        ("kind", TEXTS),
        *KEYS,
        ("fields", pa.list_(TEXTS)),
        *((n, TEXTS) for n in ("left", "right", "base_left", "base_right", "seen")),
        ("left_changed_at", pa.timestamp("us", tz="UTC")),
        ("right_changed_at", pa.timestamp("us", tz="UTC")),
        ("candidates", TEXTS),
    ]
)
_NO_FIELDS = "CAST([] AS VARCHAR[])"


def changes_sql(layout: Layout) -> Iterator[tuple[str, str]]:
    """What must have rows, and a query with the columns of CHANGES over it.

    Deletes and marks, updates, then inserts; the right side, then the left. Last come the derived
    fields of what is inserted on the left: without the insert they must not be written.
    """
    right, left = ("dropping WHERE side = 'right'", "dropping WHERE side = 'left'")
    yield right, _deletes(layout, "right")
    if layout.right_mark is not None:
        yield right, _right_marks(layout)
    yield "final WHERE right_write", _kept("right_update")
    yield "right_final", _right_inserts(layout)
    yield left, _deletes(layout, "left")
    if layout.left_mark is not None:
        yield left, _left_marks(layout)
    yield "final WHERE left_write", _kept("left_update")
    yield "left_final", _left_inserts(layout)
    if layout.derived & layout.settled:
        yield "left_final", _derived_updates(layout)


def updates_sql(layout: Layout) -> dict[str, str]:
    """Queries over `outcome` whose rows are kept in these tables."""
    return {
        "right_update": _right_updates(layout),
        "left_update": _left_updates(layout),
        "refresh": _refreshes(layout),
    }


def _kept(table: str) -> str:
    """SQL of what was kept of the pairs that are not parked."""
    return f"SELECT u.* EXCLUDE (id) FROM {table} u SEMI JOIN final p ON p.id = u.id"


def _any_right(layout: Layout) -> str:
    """SQL: a row of `outcome` is written to the right."""
    return "(" + " OR ".join(f"w{i}" for i in range(len(layout.names))) + ")"


def _cause(layout: Layout, lost: str, right: bool) -> str:
    """SQL of the cause of an update: the most telling one of its fields."""
    places = range(len(layout.names))

    def some(letter: str) -> str:
        return " OR ".join(f"(s{i} = '{letter}' AND {'w' if right else 't'}{i})" for i in places)

    return (
        f"CASE WHEN decided THEN 'decided' WHEN {some('M')} THEN 'merged' "
        f"WHEN {some(lost)} THEN 'overruled' ELSE 'changed' END"
    )


def _right_updates(layout: Layout) -> str:
    places = {name: i for i, name in enumerate(layout.names)}
    written = {name: f"w{i}" for name, i in places.items()}
    # Until the left half is written, too, what the left record held is the base of both sides: its
    # difference is counted then, and the right one's is still to come.
    half = {name: f"(s{i} = 'M' AND t{i})" for name, i in places.items()}
    left, right = (
        [
            (n, f"CASE WHEN {half[n]} THEN l{i} ELSE {letter}{i} END", layout.types[n])
            for n, i in places.items()
        ]
        for letter in ("n", "m")
    )
    return (
        "SELECT id, 'right', 'update', lk, rk, CASE WHEN rk_after <> rk THEN rk_after END, "
        f"{names_where(list(layout.names), written.__getitem__)}, "
        f"{image_where(layout.values('r'), written.__getitem__)}, "
        f"{image_where(layout.values('m'), written.__getitem__)}, {hash_sql(layout.values('m'))}, "
        f"{_cause(layout, 'r', True)}, {image_where(left, written.__getitem__)}, "
        f"{image_where(right, written.__getitem__)} "
        f"FROM outcome WHERE {_any_right(layout)}"
    )


def _left_updates(layout: Layout) -> str:
    flows = {w.name: f"p.x{w.place}" for w in layout.writes}
    before = [(w.name, layout.raw_value(w.name, "l"), w.neutral) for w in layout.writes]
    after = [(w.name, f"b.b{w.place}", w.neutral) for w in layout.writes]
    brought = {n: f"(p.s{i} IN ('L', 'l', 'M') AND p.t{i})" for i, n in enumerate(layout.names)}
    return (
        "SELECT p.id, 'left', 'update', p.lk, p.rk, "
        "CASE WHEN p.lk_after <> p.lk THEN p.lk_after END, "
        f"{names_where(list(flows), flows.__getitem__)}, {image_where(before, flows.__getitem__)}, "
        f"{image_where(after, flows.__getitem__)}, {hash_sql(layout.values('p.n'))}, "
        f"{_cause(layout, 'l', False)}, {image_where(layout.values('p.n'), brought.__getitem__)}, "
        f"{image_where(layout.translated('p.m', 'p.n'), brought.__getitem__)} FROM outcome p "
        "JOIN back b ON b.id = p.id JOIN left_side l ON l.rowid = p.l WHERE p.left_write"
    )


def _right_inserts(layout: Layout) -> str:
    given = {
        n: f"NOT (l.f{i} IS NULL AND {str(n in layout.assigned_right).lower()})"
        for i, n in enumerate(layout.names)
    }
    values = layout.values("l.f")
    image = image_where(values, given.__getitem__)
    return (
        "SELECT 'right', 'insert', i.lk, i.rk_after, NULL, "
        f"{names_where(list(layout.names), given.__getitem__)}, NULL, {image}, l.h, i.cause, "
        f"{image}, {image} FROM right_final i JOIN left_side l ON l.rowid = i.l"
    )


def _left_inserts(layout: Layout) -> str:
    given = {
        w.name: f"NOT (b.b{w.place} IS NULL AND {str(w.assigned).lower()})" for w in layout.writes
    }
    values: list[Value] = [(w.name, f"b.b{w.place}", w.neutral) for w in layout.writes]
    in_step = {n: _in_step(layout, i, n) for i, n in enumerate(layout.names)}
    return (
        "SELECT 'left', 'insert', i.lk_after, i.rk, NULL, "
        f"{names_where(list(given), given.__getitem__)}, NULL, "
        f"{image_where(values, given.__getitem__)}, a.h, i.cause, "
        f"{image_where(layout.values('a.f'), in_step.__getitem__)}, "
        f"{image_where(layout.translated('r.f', 'a.f'), in_step.__getitem__)} FROM left_final i "
        "JOIN back b ON b.id = i.id JOIN ahead a ON a.id = i.id JOIN right_side r ON r.rowid = i.r"
    )


def _in_step(layout: Layout, i: int, name: str) -> str:
    """SQL: an insert to the left brings this field into step; others follow, now or later."""
    if name in layout.derived:
        if name not in layout.settled:
            return "false"
        return f"(a.f{i} IS NOT DISTINCT FROM r.f{i})"
    if name in layout.assigned_left:
        return f"(r.f{i} IS NOT NULL)"
    return "true"


def _derived_updates(layout: Layout) -> str:
    """Derived fields of records that come from the right: the left's values count."""
    names = [name for name in layout.names if name in layout.derived & layout.settled]
    place = {name: i for i, name in enumerate(layout.names)}
    differs = {n: f"(a.f{place[n]} IS DISTINCT FROM r.f{place[n]})" for n in names}
    after = [value for value in layout.values("a.f") if value[0] in differs]
    before = [value for value in layout.values("r.f") if value[0] in differs]
    whole = [
        (n, f"a.f{i}" if n in differs else f"r.f{i}", layout.types[n]) for n, i in place.items()
    ]
    patch = image_where(after, differs.__getitem__)
    return (
        "SELECT 'right', 'update', i.lk_after, i.rk, NULL, "
        f"{names_where(names, differs.__getitem__)}, {image_where(before, differs.__getitem__)}, "
        f"{patch}, {hash_sql(whole)}, 'overruled', {patch}, {patch} FROM left_final i "
        "JOIN ahead a ON a.id = i.id JOIN right_side r ON r.rowid = i.r "
        f"WHERE {' OR '.join(differs.values())}"
    )


def _deletes(layout: Layout, side: str) -> str:
    whole = layout.whole_right("t") if side == "right" else layout.raw_values("t")
    return (
        f"SELECT '{side}', 'delete', d.lk, d.rk, NULL, {_NO_FIELDS}, {image_sql(whole)}, NULL, "
        f"NULL, d.cause, NULL, NULL FROM dropping d JOIN {side}_side t ON t.rowid = d.row "
        f"WHERE d.side = '{side}' AND d.operation = 'delete' AND NOT d.held"
    )


def _right_marks(layout: Layout) -> str:
    name, sql, neutral = layout.right_value(layout.rule.mark_field, "t")
    new = (
        f"CAST({from_canonical_sql(literal(layout.right_mark), neutral)} AS {duckdb_type(neutral)})"
    )
    after = image_sql([(name, new, neutral)])
    whole = [(n, new if n == name else s, kind) for n, s, kind in layout.values("t.f")]
    patch = after if name in layout.types else "'{}'"
    return (
        f"SELECT 'right', 'update', d.lk, d.rk, NULL, [{literal(name)}], "
        f"{image_sql([(name, sql, neutral)])}, {after}, {hash_sql(whole)}, d.cause, "
        f"'{{}}', {patch} "
        "FROM dropping d JOIN right_side t ON t.rowid = d.row "
        "WHERE d.side = 'right' AND d.operation = 'mark' AND NOT d.held"
    )


def _left_marks(layout: Layout) -> str:
    name = layout.two_way.left_mark_field
    neutral = layout.left_types[name]
    text = literal(layout.left_mark)
    after = image_where([(name, text, TEXT)], lambda _: "true")
    moved = {n: f"(a.f{i} IS DISTINCT FROM t.f{i})" for i, n in enumerate(layout.names)}
    return (
        f"SELECT 'left', 'update', d.lk, d.rk, NULL, [{literal(name)}], "
        f"{image_sql([(name, layout.raw_value(name, 't'), neutral)])}, {after}, a.h, d.cause, "
        f"{image_where(layout.values('a.f'), moved.__getitem__)}, '{{}}' "
        "FROM dropping d JOIN left_side t ON t.rowid = d.row JOIN ahead a ON a.id = d.id "
        "WHERE d.side = 'left' AND d.operation = 'mark' AND NOT d.held"
    )


def refreshes_sql(layout: Layout) -> list[tuple[str, str]]:
    """What must have rows, and a query with the columns of REFRESHES over it."""
    same = image_sql(layout.values("l.f")), image_sql(layout.values("r.f"))
    return [
        ("refresh", _kept("refresh")),
        (
            "found",
            f"SELECT f.lk, f.rk, l.h, r.h, {same[0]}, {same[1]} FROM found f "
            "JOIN left_side l ON l.rowid = f.l JOIN right_side r ON r.rowid = f.r WHERE l.h = r.h",
        ),
    ]


def _refreshes(layout: Layout) -> str:
    sides = []
    for column, base in (("n", "bl"), ("r", "br")):
        values: list[Value] = [
            (
                n,
                f"CASE WHEN s{i} = 'A' THEN {canonical_sql(f'{column}{i}', layout.types[n])} "
                f"ELSE {base}{i} END",
                TEXT,
            )
            for i, n in enumerate(layout.names)
        ]
        sides.append(image_where(sorted(values), lambda n: _known(layout, n)))
    agreed = " OR ".join(f"s{i} = 'A'" for i in range(len(layout.names)))
    return (
        "SELECT id, lk, rk, md5(left_base), md5(right_base), left_base, right_base FROM "
        f"(SELECT id, lk, rk, li, ri, linked, ({agreed}) AS agreed, {sides[0]} AS left_base, "
        f"{sides[1]} AS right_base FROM outcome) WHERE CASE WHEN linked "
        "THEN md5(left_base) <> li OR md5(right_base) <> ri ELSE agreed END"
    )


def _known(layout: Layout, name: str) -> str:
    place = layout.names.index(name)
    return f"(bk{place} OR s{place} = 'A')"


def gone_sql() -> str:
    """Query with the columns of KEYS."""
    return (
        "SELECT lk, rk FROM link WHERE became = 'gone' "
        "UNION ALL SELECT old_lk, rk FROM left_final WHERE old_lk IS NOT NULL "
        "AND lk_after IS DISTINCT FROM old_lk "
        "UNION ALL SELECT lk, old_rk FROM right_final WHERE old_rk IS NOT NULL "
        "AND rk_after IS DISTINCT FROM old_rk"
    )
