"""What people decided about fields that both sides changed, and what is still to be asked."""

from __future__ import annotations

from apps.connectors.types import TEXT
from apps.engine.codec import image_sql
from apps.engine.reconcile.layout import Layout, image_where, names_where
from apps.engine.reconcile.store import Store
from apps.engine.types_sql import canonical_sql, from_canonical_sql, literal

KINDS = ("fields", "first_contact")


def _open(layout: Layout) -> dict[str, str]:
    return {name: f"(s{i} = 'C')" for i, name in enumerate(layout.names)}


def _some_open(layout: Layout) -> str:
    return "(" + " OR ".join(_open(layout).values()) + ")"


def _seen(layout: Layout) -> str:
    is_open = _open(layout)
    left, right = (image_where(layout.values(side), is_open.__getitem__) for side in "lr")
    return f"md5(concat_ws(chr(10), {left}, {right}))"


def apply_decisions(store: Store) -> None:
    """Turn open fields of `pairs` into what a person chose for just these values.

    A decision on a clash of unique values may name any field.
    """
    if not store.counted.get("decisions"):
        return
    layout = store.layout
    store.run(
        "CREATE OR REPLACE TEMP TABLE chosen AS "
        "SELECT p.id, d.decision, false AS any_field FROM pairs p JOIN decisions d "
        f"ON d.lk = p.lk AND d.rk = p.rk AND d.seen = {_seen(layout)} "
        f"AND d.kind IN ({', '.join(map(literal, KINDS))}) WHERE {_some_open(layout)}"
    )
    left, right = (image_sql(layout.values(side)) for side in "lr")
    store.run(
        "INSERT INTO chosen SELECT p.id, d.decision, true FROM pairs p JOIN decisions d "
        "ON d.lk = p.lk AND d.rk = p.rk AND d.kind = 'unique' "
        f"AND d.seen = md5(concat_ws(chr(10), {left}, {right}))"
    )
    for i, name in enumerate(layout.names):
        store.run(_choose(layout, i, name))


def _choose(layout: Layout, i: int, name: str) -> str:
    """SQL that applies decisions to one field; what does not fit its type stays open.

    Of a value that both sides hold already (a counter in doubt), only the base moves on.
    """
    pointer = f"/fields/{name.replace('~', '~0').replace('/', '~1')}"
    take = f"json_extract_string(c.decision, {literal(pointer + '/take')})"
    whole = "json_extract_string(c.decision, '/record')"
    value = (
        f"CASE WHEN take = 'base' THEN br{i} "
        f"ELSE json_extract_string(decision, {literal(pointer + '/value')}) END"
    )
    typed = f"TRY({from_canonical_sql('value', layout.types[name])})"
    verdict = (
        "CASE take WHEN 'left' THEN 'R' WHEN 'right' THEN 'L' "
        f"WHEN 'base' THEN CASE WHEN bk{i} THEN 'M' END WHEN 'value' THEN 'M' END"
    )
    chosen = (
        f"SELECT id, value, {verdict} AS verdict, value IS NOT NULL AND {typed} IS NULL AS unfit "
        f"FROM (SELECT *, {value} AS value FROM (SELECT p.id, p.br{i}, p.bk{i}, c.decision, "
        f"CASE WHEN c.any_field THEN {take} ELSE coalesce({take}, {whole}) END AS take "
        f"FROM pairs p JOIN chosen c ON c.id = p.id WHERE c.any_field OR p.s{i} = 'C'))"
    )
    text = canonical_sql(f"pairs.l{i}", layout.types[name])
    agreed = (
        f"pairs.l{i} IS NOT DISTINCT FROM pairs.r{i} AND (q.verdict <> 'M' OR q.value = {text})"
    )
    return (
        f"UPDATE pairs SET s{i} = CASE WHEN {agreed} THEN 'A' ELSE q.verdict END, "
        f"v{i} = q.value, decided = true FROM ({chosen}) q "
        "WHERE q.id = pairs.id AND q.verdict IS NOT NULL AND NOT (q.verdict = 'M' AND q.unfit)"
    )


def ask(store: Store) -> None:
    """A conflict for each pair with open fields."""
    layout = store.layout
    if not store.count(f"pairs WHERE {_some_open(layout)}"):
        return
    is_open = _open(layout)
    known = " OR ".join(f"(s{i} = 'C' AND bk{i})" for i in range(len(layout.names)))
    images = ", ".join(image_where(layout.values(side), lambda _: "true") for side in "lr")
    store.run(
        f"INSERT INTO conflict SELECT CASE WHEN {known} THEN 'fields' ELSE 'first_contact' END, "
        f"lk, rk, {names_where(list(layout.names), is_open.__getitem__)}, {images}, "
        f"{_bases(layout)}, {_seen(layout)}, left_time, right_time, NULL "
        f"FROM pairs WHERE {_some_open(layout)}"
    )


def _bases(layout: Layout) -> str:
    """SQL of both images of the base, NULL where it is unknown."""
    known = {name: f"bk{i}" for i, name in enumerate(layout.names)}
    images = []
    for side in ("bl", "br"):
        texts = [(name, f"{side}{i}", TEXT) for i, name in enumerate(layout.names)]
        image = image_where(texts, known.__getitem__)
        images.append(f"CASE WHEN {' OR '.join(known.values())} THEN {image} END")
    return ", ".join(images)
