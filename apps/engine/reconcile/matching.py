"""First match: which unlinked records of both sides are the same.

Records find each other by the mapping's match fields, normalised, or by the key of the right side
where it names none. One on each side is a pair (`found`). Several on one side are for a person to
tell apart before anything is written for them: conflicts of the kind `match`, one per left record
(with the right records that it may be), or one per right record where no left one is like it.
All others are new (`new_left`, `new_right`).
"""

from __future__ import annotations

from apps.connectors.errors import FieldMissing
from apps.connectors.types import TEXT
from apps.engine.codec import image_sql
from apps.engine.reconcile.layout import Layout
from apps.engine.reconcile.store import Store
from apps.engine.spec import Normalisation
from apps.engine.types_sql import canonical_sql, key_sql

MOST_CANDIDATES = 50
_ABROAD = r"regexp_matches({0}, '^\s*(\+|00)')"
_DIGITS = "regexp_replace({0}, '[^0-9]', '', 'g')"
_WITHOUT_TRUNK = _DIGITS.format("replace({0}, '(0)', '')")
_STEPS = {
    Normalisation.ACCENTS: "strip_accents({})",
    Normalisation.CASE: "lower({})",
    Normalisation.EMAIL: "lower(trim({}))",
    Normalisation.TRIM: r"trim(regexp_replace({}, '[\s\p{{Z}}]+', ' ', 'g'))",
    # +49 (0)30 1 and 0049 30 1 are one number: of those with a country, 00 and (0) tell nothing.
    Normalisation.PHONE: f"CASE WHEN {_ABROAD} "
    f"THEN nullif('+' || regexp_replace({_WITHOUT_TRUNK}, '^00', ''), '+') ELSE {_DIGITS} END",
}
_SEEN = "md5(concat_ws(chr(10), kind, image, candidates))"


def normalised_sql(text: str, how: tuple[Normalisation, ...]) -> str:
    """SQL of a text, evened out; what becomes empty is NULL, and matches nothing.

    Compatibility forms (`unicode`) are made when records are added: DuckDB cannot.
    """
    value = f"nfc_normalize({text})"
    for step, sql in _STEPS.items():
        if step in how:
            value = sql.format(value)
    return f"nullif({value}, '')"


def match(store: Store) -> None:
    """Make `found`, `new_left`, `new_right` and the conflicts of ambiguous matches."""
    _collect(store)
    store.run("CREATE TABLE found(l BIGINT, r BIGINT, lk VARCHAR, rk VARCHAR)")
    store.run("CREATE TABLE new_left(l BIGINT, lk VARCHAR)")
    store.run("CREATE TABLE new_right(r BIGINT, rk VARCHAR)")
    store.run(
        "CREATE TABLE ambiguous(kind VARCHAR, row BIGINT, side VARCHAR, lk VARCHAR, rk VARCHAR, "
        "image VARCHAR, candidates VARCHAR, seen VARCHAR)"
    )
    _group(store)
    if store.counted.get("decisions"):
        _decide(store)
        _group(store)
    store.run(
        "INSERT INTO found SELECT l.row, r.row, l.key, r.key FROM lone l JOIN lone r "
        "ON l.side = 'left' AND r.side = 'right' AND l.m = r.m"
    )
    paired = "SELECT m FROM lone WHERE m IS NOT NULL GROUP BY m HAVING count(*) > 1"
    for side in ("left", "right"):
        store.run(
            f"INSERT INTO new_{side} SELECT row, key FROM lone WHERE side = '{side}' "
            f"AND (m IS NULL OR m NOT IN ({paired}))"
        )
    if store.count("crowd"):
        _add_conflicts(store)


def _collect(store: Store) -> None:
    """`unlinked`: side, row, key, m of each record that no link names."""
    layout = store.layout
    left, right = ("l.rk", "r.rk") if not layout.mapping.match else _match_sql(layout)
    store.run(
        "CREATE TABLE unlinked AS "
        f"SELECT 'left' AS side, l.rowid AS row, l.lk AS key, {left} AS m FROM left_side l "
        "ANTI JOIN links k ON k.lk = l.lk ANTI JOIN other_links o ON o.lk = l.lk "
        "ANTI JOIN unreadable u ON u.rk = l.rk "
        f"UNION ALL SELECT 'right', r.rowid, r.rk, {right} FROM right_side r "
        "ANTI JOIN links k ON k.rk = r.rk ANTI JOIN other_links o ON o.rk = r.rk "
        "ANTI JOIN rejected x ON x.rk = r.rk ANTI JOIN left_out y ON y.rk = r.rk"
    )


def _match_sql(layout: Layout) -> tuple[str, str]:
    sides = []
    for row in "lr":
        values = []
        for spec in layout.mapping.match:
            if spec.field not in layout.columns:
                raise FieldMissing(f"the match field '{spec.field}' is not mapped", where="mapping")
            column = layout.compatible.get(spec.field, layout.columns[spec.field])
            text = canonical_sql(f"{row}.{column}", layout.types[spec.field])
            values.append(normalised_sql(text, spec.normalise))
        missing = " OR ".join(f"{value} IS NULL" for value in values)
        key = key_sql([(value, TEXT) for value in values])
        sides.append(f"CASE WHEN NOT ({missing}) THEN {key} END")
    return sides[0], sides[1]


def _group(store: Store) -> None:
    """`lone`: at most one of a side has its match value; `ambiguous`: all others."""
    store.run(
        "CREATE OR REPLACE TEMP TABLE crowd AS SELECT m FROM unlinked WHERE m IS NOT NULL "
        "GROUP BY m HAVING count(*) FILTER (side = 'left') > 1 "
        "OR count(*) FILTER (side = 'right') > 1"
    )
    store.run(
        "CREATE OR REPLACE TEMP TABLE lone AS SELECT * FROM unlinked u "
        "WHERE u.m IS NULL OR u.m NOT IN (SELECT m FROM crowd)"
    )
    if not store.count("crowd"):
        return
    store.run("DELETE FROM ambiguous")
    image_left, image_right = (image_sql(store.layout.values(f"{row}.f")) for row in "lr")
    keys = f"to_json(list(rk ORDER BY rk)[1:{MOST_CANDIDATES}])"
    store.run(
        "INSERT INTO ambiguous WITH candidate AS ("
        f"SELECT m, CAST({keys} AS VARCHAR) AS candidates "
        "FROM (SELECT m, key AS rk FROM unlinked WHERE side = 'right') GROUP BY m), "
        "person AS (SELECT m FROM unlinked WHERE side = 'left' AND m IS NOT NULL) "
        f"SELECT *, {_SEEN} AS seen FROM ("
        f"SELECT 'match' AS kind, u.row, u.side, l.lk, NULL AS rk, {image_left} AS image, "
        "coalesce(c.candidates, '[]') AS candidates FROM unlinked u SEMI JOIN crowd x ON x.m = u.m "
        "JOIN left_side l ON l.rowid = u.row LEFT JOIN candidate c ON c.m = u.m "
        "WHERE u.side = 'left' "
        f"UNION ALL SELECT 'match', u.row, u.side, NULL, r.rk, {image_right}, '[]' "
        "FROM unlinked u SEMI JOIN crowd x ON x.m = u.m ANTI JOIN person p ON p.m = u.m "
        "JOIN right_side r ON r.rowid = u.row WHERE u.side = 'right')"
    )


def _decide(store: Store) -> None:
    """Take out what people have told apart: pairs, and records that are new."""
    if not store.count("ambiguous"):
        return
    store.run(
        "CREATE TEMP TABLE told AS SELECT a.row, a.side, a.lk, a.rk, "
        "json_extract_string(d.decision, '/match') AS match FROM ambiguous a JOIN decisions d "
        "ON d.kind = 'match' AND d.seen = a.seen AND coalesce(d.lk, '') = coalesce(a.lk, '') "
        "AND coalesce(d.rk, '') = coalesce(a.rk, '')"
    )
    store.run(
        "INSERT INTO found SELECT t.row, u.row, t.lk, u.key FROM told t "
        "JOIN unlinked u ON u.side = 'right' AND u.key = t.match WHERE t.side = 'left' "
        "AND t.match IN (SELECT match FROM told GROUP BY match HAVING count(*) = 1)"
    )
    store.run("INSERT INTO new_left SELECT row, lk FROM told WHERE side = 'left' AND match IS NULL")
    store.run(
        "INSERT INTO new_right SELECT row, rk FROM told WHERE side = 'right' AND match IS NULL"
    )
    store.run(
        "DELETE FROM unlinked WHERE (side = 'left' AND (row IN (SELECT l FROM found) "
        "OR row IN (SELECT l FROM new_left))) OR (side = 'right' AND (row IN (SELECT r FROM found) "
        "OR row IN (SELECT r FROM new_right)))"
    )


def _add_conflicts(store: Store) -> None:
    store.run(
        "INSERT INTO conflict SELECT kind, lk, rk, CAST([] AS VARCHAR[]), "
        "CASE WHEN side = 'left' THEN image END, CASE WHEN side = 'right' THEN image END, "
        "NULL, NULL, seen, NULL, NULL, candidates FROM ambiguous"
    )
