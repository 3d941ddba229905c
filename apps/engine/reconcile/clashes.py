"""Keys and unique values that a planned write would take from another record.

Such a record is parked as a whole, with a conflict of the kind `unique`; the other record is never
touched. What is parked stays as it is, so its old value counts again: hence the rounds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from apps.engine.codec import image_sql
from apps.engine.reconcile.absence import base_images
from apps.engine.reconcile.layout import Layout
from apps.engine.reconcile.matching import MOST_CANDIDATES
from apps.engine.reconcile.outcome import unique_places
from apps.engine.reconcile.store import Store
from apps.engine.types_sql import canonical_sql, literal

ROUNDS = 100
_PLANNED = ("final", "left_final", "right_final")
_STAYS = {
    side: f"ANTI JOIN final p ON p.{row} = t.rowid "
    f"ANTI JOIN dropping d ON d.row = t.rowid AND d.side = '{side}' AND d.operation = 'delete' "
    "AND NOT d.held"
    for side, row in (("left", "l"), ("right", "r"))
}


@dataclass(frozen=True, slots=True)
class _Rule:
    """Something that only one record of a side may have.

    holders: SQL of (id, key, value, takes): who will have which value, and whether the plan gives
    it to them; id is NULL for records that the plan does not touch.
    """

    fields: tuple[str, ...]
    holders: str


def park_clashes(store: Store) -> None:
    """Take out of `final`, `left_final` and `right_final` what clashes."""
    store.run("CREATE TABLE parked(id BIGINT, fields VARCHAR[], candidates VARCHAR)")
    for table in _PLANNED:
        store.run(f"CREATE TABLE parked_{table} AS FROM {table} WHERE false")
    if not any(store.count(table) for table in _PLANNED):
        return
    rules = list(_rules(store.layout))
    for _ in range(ROUNDS):
        before = store.count("parked")
        for rule in rules:
            _park(store, rule)
        if store.count("parked") == before:
            break
    if store.count("parked"):
        _report(store)


def _rules(layout: Layout) -> Iterator[_Rule]:
    yield _Rule(layout.mapping.key, _right_keys())
    yield _Rule(_into_left_key(layout), _left_keys())
    for place in unique_places(layout):
        yield _Rule((layout.names[place],), _right_values(layout, place))
        yield _Rule((layout.names[place],), _left_values(layout, place))


def _into_left_key(layout: Layout) -> tuple[str, ...]:
    """The right fields that a left key is written from."""
    key = layout.mapping.left.key
    return tuple(sorted({n for w in layout.writes if w.name in key for n in w.sources}))


def _right_keys() -> str:
    return (
        "SELECT id, rk AS key, rk_after AS value, rk_after <> rk AND right_write AS takes "
        "FROM final UNION ALL SELECT id, NULL, rk_after, true FROM right_final "
        "UNION ALL SELECT NULL, t.rk, t.rk, false FROM right_side t "
        "ANTI JOIN final p ON p.r = t.rowid UNION ALL SELECT NULL, rk, rk, false FROM unreadable"
    )


def _left_keys() -> str:
    return (
        "SELECT id, lk AS key, lk_after AS value, lk_after <> lk AND left_write AS takes "
        "FROM final UNION ALL SELECT id, NULL, lk_after, true FROM left_final "
        "UNION ALL SELECT NULL, t.lk, t.lk, false FROM left_side t "
        "ANTI JOIN final p ON p.l = t.rowid "
        "UNION ALL SELECT NULL, lk, lk, false FROM (SELECT lk FROM left_out UNION "
        "SELECT lk FROM rejected)"
    )


def _right_values(layout: Layout, i: int) -> str:
    neutral = layout.types[layout.names[i]]
    return (
        f"SELECT id, rk AS key, m{i} AS value, w{i} "
        f"AS takes FROM final UNION ALL SELECT x.id, NULL, {canonical_sql(f'l.f{i}', neutral)}, "
        "true FROM right_final x JOIN left_side l ON l.rowid = x.l "
        f"UNION ALL SELECT NULL, t.rk, {canonical_sql(f't.f{i}', neutral)}, false "
        f"FROM right_side t {_STAYS['right']}"
    )


def _left_values(layout: Layout, i: int) -> str:
    neutral = layout.types[layout.names[i]]
    return (
        f"SELECT id, lk AS key, n{i} AS value, g{i} AS takes FROM final "
        f"UNION ALL SELECT x.id, NULL, {canonical_sql(f'a.f{i}', neutral)}, true "
        "FROM left_final x JOIN ahead a ON a.id = x.id "
        f"UNION ALL SELECT NULL, t.lk, {canonical_sql(f't.f{i}', neutral)}, false "
        f"FROM left_side t {_STAYS['left']}"
    )


def _park(store: Store, rule: _Rule) -> None:
    """Park what takes a value that another record has or takes, too."""
    fields = "[" + ", ".join(literal(name) for name in rule.fields) + "]"
    keys = "list(key ORDER BY key) FILTER (key IS NOT NULL AND NOT takes)"
    store.run(
        f"CREATE OR REPLACE TEMP TABLE holders AS WITH holder AS ({rule.holders}) "
        "SELECT * FROM holder WHERE value IN (SELECT value FROM holder WHERE takes)"
    )
    store.run(
        f"CREATE OR REPLACE TEMP TABLE clash AS SELECT h.id, {fields} AS fields, "
        f"CAST(to_json(coalesce(list_slice(v.keys, 1, {MOST_CANDIDATES}), [])) AS VARCHAR) "
        f"AS candidates FROM holders h JOIN (SELECT value, {keys} AS keys FROM holders "
        "GROUP BY value HAVING count(*) > 1) v ON v.value = h.value WHERE h.takes"
    )
    store.run("INSERT INTO parked FROM clash")
    for table in _PLANNED:
        store.run(f"INSERT INTO parked_{table} FROM {table} WHERE id IN (SELECT id FROM clash)")
        store.run(f"DELETE FROM {table} WHERE id IN (SELECT id FROM clash)")


def _report(store: Store) -> None:
    layout = store.layout
    left, right = (image_sql(layout.values(f"{row}.f")) for row in "lr")
    pair = f"md5(concat_ws(chr(10), {left}, {right}))"
    for table, lk, rk, images, bases, seen, joins in (
        ("final", "x.lk", "x.rk", f"{left}, {right}", base_images(layout), pair,
         "JOIN left_side l ON l.rowid = x.l JOIN right_side r ON r.rowid = x.r "
         "LEFT JOIN bases b ON b.lk = x.lk AND b.rk = x.rk"),
        ("left_final", "NULL", "x.rk", f"NULL, {right}", "NULL, NULL", f"md5({right})",
         "JOIN right_side r ON r.rowid = x.r"),
        ("right_final", "x.lk", "NULL", f"{left}, NULL", "NULL, NULL", f"md5({left})",
         "JOIN left_side l ON l.rowid = x.l"),
    ):  # fmt: skip
        store.run(
            f"INSERT INTO conflict SELECT 'unique', {lk}, {rk}, p.fields, {images}, {bases}, "
            f"{seen}, NULL, NULL, p.candidates FROM parked_{table} x {joins} "
            "JOIN (SELECT id, list_distinct(flatten(list(fields))) AS fields, "
            "any_value(candidates) AS candidates FROM parked GROUP BY id) p ON p.id = x.id"
        )
