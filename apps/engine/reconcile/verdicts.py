"""Decide pairs, field by field.

`pairs` holds a slice of the pairs that are not simply as they were. For right field i: l{i} the
left view, r{i} the right value, bl{i} and br{i} the base's texts, bk{i} whether the base holds the
field, s{i} the verdict and v{i} the text of a merged value:

''    nothing to do;                       A  both agree: the base moves on;
R, L  the left (right) value goes to the other side; r, l  the same, and overrules an edit;
M     both sides get v{i};                 P  still to be merged;
C     a person decides;                    X  a side cannot take it: nothing happens.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from apps.connectors.types import Kind, NeutralType
from apps.engine.reconcile.layout import Layout
from apps.engine.reconcile.store import Store
from apps.engine.spec import FieldPolicy, Winner
from apps.engine.types_sql import canonical_sql, literal

_WINNERS = {Winner.LEFT: "'r'", Winner.RIGHT: "'l'", Winner.ASK: "'C'"}
LEAST_ROWS = 250
VALUES_PER_MB = 500
PENDING = (FieldPolicy.COUNTER, FieldPolicy.SET, FieldPolicy.TEXT, FieldPolicy.EXPRESSION)


def choose_pairs(store: Store) -> Iterator[tuple[int, int]]:
    """Make `open_pair`: the open links and the `found` pairs that differ; give slices of its rows.

    There is always one, though it may be empty. DuckDB keeps blocks of every column of a table that
    is being made in memory, and pairs have many columns: so they are decided slice by slice.
    """
    store.run(
        "CREATE TABLE open_pair AS SELECT * FROM ("
        "SELECT k.lk, k.rk, k.li, k.ri, k.l, k.r, true AS linked FROM link k "
        "WHERE k.became = 'pair' "
        "UNION ALL SELECT f.lk, f.rk, '', '', f.l, f.r, false FROM found f "
        "JOIN left_side l ON l.rowid = f.l JOIN right_side r ON r.rowid = f.r WHERE l.h <> r.h"
        ") ORDER BY l"
    )
    rows = max(LEAST_ROWS, store.memory_limit_mb * VALUES_PER_MB // len(store.layout.names))
    for start in range(0, max(store.count("open_pair"), 1), rows):
        yield start, start + rows


def make_pairs(store: Store, rows: tuple[int, int], now: datetime) -> None:
    """Make `pairs` of these rows of `open_pair`."""
    layout = store.layout
    places = range(len(layout.names))
    store.run(
        "CREATE OR REPLACE TABLE pairs AS WITH "
        f"slice AS (SELECT * FROM open_pair WHERE rowid >= {rows[0]} AND rowid < {rows[1]}), "
        f"wide AS (SELECT c.*, {_wide(layout)} FROM slice c "
        "JOIN left_side l ON l.rowid = c.l JOIN right_side r ON r.rowid = c.r "
        "LEFT JOIN bases b ON b.lk = c.lk AND b.rk = c.rk AND c.li <> '' AND c.ri <> ''), "
        f"seen AS (SELECT *, {_changed(layout)} FROM wide) SELECT nextval('ids') AS id, "
        f"* EXCLUDE ({', '.join(f'lc{i}, rc{i}, eq{i}' for i in places)}), "
        f"{_verdicts(layout)}, false AS decided FROM ("
        f"SELECT *, {_times(layout, now)} FROM seen)"
    )


def _wide(layout: Layout) -> str:
    parts = []
    for i in range(len(layout.names)):
        parts.append(f"l.f{i} AS l{i}, r.f{i} AS r{i}")
        parts.append(f"b.bl[{i + 1}] AS bl{i}, b.br[{i + 1}] AS br{i}")
        parts.append(f"coalesce(b.bk[{i + 1}], false) AS bk{i}")
    two_way = layout.two_way
    times = ["NULL", "NULL"]
    if two_way.left_modified:
        neutral = layout.left_types[two_way.left_modified]
        times[0] = _instant(layout.raw_value(two_way.left_modified, "l"), neutral)
    if two_way.right_modified:
        _, sql, neutral = layout.right_value(two_way.right_modified, "r")
        times[1] = _instant(sql, neutral)
    return ", ".join([*parts, f"{times[0]} AS left_time", f"{times[1]} AS right_time"])


def _instant(sql: str, neutral: NeutralType) -> str:
    """SQL of a modification time as a timestamp in UTC, NULL where it is none."""
    if neutral.kind not in (Kind.TIMESTAMP, Kind.TIMESTAMPTZ, Kind.DATE):
        return "CAST(NULL AS TIMESTAMP)"
    value = f"CAST({sql} AS TIMESTAMP)"
    return f"CASE WHEN isfinite({value}) THEN {value} END"


def _times(layout: Layout, now: datetime) -> str:
    """Who is newer: above 0 the left, below 0 the right, 0 or NULL nobody."""
    moment = f"TIMESTAMP {literal(now.astimezone(UTC).strftime('%Y-%m-%d %H:%M:%S.%f'))}"
    left, right = (
        f"CAST(epoch_us(least({side}_time, {moment})) AS HUGEINT)" for side in ("left", "right")
    )
    gap = max(1, layout.two_way.minimum_gap_seconds * 1_000_000)
    ahead = f"({left} - {right})"
    return (
        f"CASE WHEN left_time IS NULL OR right_time IS NULL OR abs({ahead}) < {gap} THEN 0 "
        f"ELSE sign({ahead}) END AS newer"
    )


def _changed(layout: Layout) -> str:
    parts = []
    for i, name in enumerate(layout.names):
        neutral = layout.types[name]
        for side in "lr":
            text = canonical_sql(f"{side}{i}", neutral)
            parts.append(f"(bk{i} AND {text} IS DISTINCT FROM b{side}{i}) AS {side}c{i}")
        parts.append(f"(l{i} IS NOT DISTINCT FROM r{i}) AS eq{i}")
    return ", ".join(parts)


def _verdicts(layout: Layout) -> str:
    parts = []
    for i, name in enumerate(layout.names):
        parts.append(f"CAST({_verdict(layout, i, name)} AS VARCHAR) AS s{i}")
        parts.append(f"CAST(NULL AS VARCHAR) AS v{i}")
    return ", ".join(parts)


def _verdict(layout: Layout, i: int, name: str) -> str:
    derived = name in layout.derived
    first = "'R'" if derived else _winner(layout.two_way.first_contact, layout)
    if not derived:
        if name in layout.assigned_left:
            first = f"CASE WHEN r{i} IS NULL THEN 'R' ELSE {first} END"
        if name in layout.assigned_right:
            first = f"CASE WHEN l{i} IS NULL THEN 'L' ELSE {first} END"
    policy = layout.two_way.policy_of(name).policy
    counts = policy is FieldPolicy.COUNTER and not derived
    agreed = f"NOT (lc{i} AND rc{i})" if counts else "true"
    right_only, both = ("'r'", "'r'") if derived else ("'L'", _policy(layout, i, name))
    return (
        f"CASE WHEN NOT bk{i} THEN CASE WHEN eq{i} THEN 'A' ELSE {first} END "
        f"WHEN NOT lc{i} AND NOT rc{i} THEN '' WHEN eq{i} AND {agreed} THEN 'A' "
        f"WHEN NOT rc{i} THEN 'R' "
        f"WHEN NOT lc{i} THEN {right_only} ELSE {both} END"
    )


def _winner(winner: Winner, layout: Layout) -> str:
    if winner is Winner.NEWEST:
        tie = _WINNERS[layout.two_way.tie]
        return f"CASE WHEN newer > 0 THEN 'r' WHEN newer < 0 THEN 'l' ELSE {tie} END"
    return _WINNERS[winner]


def _policy(layout: Layout, i: int, name: str) -> str:
    policy = layout.two_way.policy_of(name).policy
    if policy in (FieldPolicy.LEFT, FieldPolicy.RIGHT, FieldPolicy.ASK, FieldPolicy.NEWEST):
        return _winner(Winner(policy.value), layout)
    if policy in PENDING or layout.types[name].is_wide_decimal:
        return "'P'"
    sign = ">" if policy is FieldPolicy.HIGHEST else "<"
    return f"CASE WHEN r{i} IS NULL OR l{i} {sign} r{i} THEN 'r' ELSE 'l' END"
