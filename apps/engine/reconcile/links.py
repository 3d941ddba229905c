"""What has become of each link, and which sides may be touched at all.

`link` holds the links that are not as they were: with the rows of both sides and a state.

pair:       both records are there, at least one differs from its image;
left_gone, right_gone: one record was deleted; `edited`: the other one was edited since (in a field
            that the base holds; `weigh_edits`);
left_out:   the left record no longer passes the filter;
left_new, right_new: the other side is absent on purpose (held), and this one was edited since;
gone:       neither side is there;
unknown:    a side could not be read well enough to judge.
"""

from __future__ import annotations

from apps.engine.reconcile.store import Store
from apps.engine.types_sql import canonical_sql, literal

DUPLICATE_KEY = "record.duplicate_key"
_SAME_KEY = "several left records have the same key"
_NO_KEY = "the record has no key"


def find_unreadable(store: Store) -> None:
    """Records that share a key, or have none, are present and unknown."""
    repeated = "SELECT lk FROM left_side GROUP BY lk HAVING count(*) > 1 OR lk IS NULL"
    store.run(f"CREATE TEMP TABLE repeated AS {repeated}")
    message = f"CASE WHEN lk IS NULL THEN {literal(_NO_KEY)} ELSE {literal(_SAME_KEY)} END"
    store.run(
        f"INSERT INTO refused SELECT lk, NULL, {literal(DUPLICATE_KEY)}, {message}, "
        "'', '', '{}', false FROM repeated"
    )
    store.run(
        "INSERT INTO rejected SELECT l.lk, l.rk FROM left_side l "
        "JOIN repeated x ON x.lk IS NOT DISTINCT FROM l.lk"
    )
    store.run("DELETE FROM left_side WHERE lk IS NULL OR lk IN (SELECT lk FROM repeated)")
    store.run("INSERT INTO unreadable SELECT rk FROM right_side GROUP BY rk HAVING count(*) > 1")
    store.run(
        "INSERT INTO refused SELECT NULL, rk, 'record.ambiguous', "
        "'several right records have the same key', '', '', '{}', false FROM unreadable"
    )
    store.run("DELETE FROM right_side WHERE rk IN (SELECT rk FROM unreadable)")


def open_links(store: Store, *, complete: bool) -> None:
    """Make `link`."""
    there = "l.lk IS NOT NULL AND r.rk IS NOT NULL"
    left_same = "CASE WHEN l.lk IS NULL THEN k.li = '' ELSE l.h = k.li END"
    right_same = "CASE WHEN r.rk IS NULL THEN k.ri = '' ELSE r.h = k.ri END"
    absent = "absent" if complete else "unknown"
    store.run(
        "CREATE TABLE link AS SELECT *, CASE "
        "WHEN rejected OR unreadable THEN 'unknown' "
        "WHEN l IS NULL AND r IS NULL THEN CASE WHEN left_out THEN 'gone' "
        f"ELSE '{'gone' if complete else 'unknown'}' END "
        "WHEN left_out THEN 'left_out' "
        "WHEN l IS NOT NULL AND r IS NOT NULL THEN 'pair' "
        "WHEN held AND l IS NULL AND li = '' THEN 'right_new' "
        "WHEN held AND r IS NULL AND ri = '' THEN 'left_new' "
        f"WHEN {literal(absent)} = 'unknown' THEN 'unknown' "
        "WHEN l IS NULL THEN 'left_gone' ELSE 'right_gone' END AS became, "
        "CASE WHEN l IS NULL THEN ri <> '' AND NOT right_same "
        "ELSE li <> '' AND NOT left_same END AS edited "
        "FROM (SELECT k.lk, k.rk, k.li, k.ri, k.state, l.rowid AS l, r.rowid AS r, "
        "k.state = 'held' AS held, o.lk IS NOT NULL AS left_out, x.lk IS NOT NULL AS rejected, "
        f"u.rk IS NOT NULL AS unreadable, {left_same} AS left_same, {right_same} AS right_same "
        "FROM links k LEFT JOIN left_side l ON l.lk = k.lk LEFT JOIN right_side r ON r.rk = k.rk "
        "LEFT JOIN (SELECT DISTINCT lk FROM left_out) o ON o.lk = k.lk "
        "LEFT JOIN (SELECT DISTINCT lk FROM rejected) x ON x.lk = k.lk "
        "LEFT JOIN unreadable u ON u.rk = k.rk "
        f"WHERE NOT (left_same AND right_same AND (({there}) OR k.state = 'held')))"
    )


def weigh_edits(store: Store) -> None:
    """Take back `edited` where no field that the base holds differs from it.

    The hashes differ as well where the base lacks a field that the mapping has by now.
    """
    layout = store.layout
    for side, row, states in (
        ("left", "l", "'right_gone', 'left_new'"),
        ("right", "r", "'left_gone', 'right_new'"),
    ):
        changed = " OR ".join(
            f"(b.bk[{i + 1}] AND {canonical_sql(sql, neutral)} IS DISTINCT FROM b.b{row}[{i + 1}])"
            for i, (_, sql, neutral) in enumerate(layout.values("t.f"))
        )
        store.run(
            f"UPDATE link SET edited = q.changed FROM (SELECT k.lk, k.rk, ({changed}) AS changed "
            f"FROM link k JOIN bases b ON b.lk = k.lk AND b.rk = k.rk "
            f"JOIN {side}_side t ON t.rowid = k.{row} "
            f"WHERE k.edited AND k.became IN ({states}) AND list_contains(b.bk, true)) q "
            "WHERE link.lk = q.lk AND link.rk = q.rk"
        )
