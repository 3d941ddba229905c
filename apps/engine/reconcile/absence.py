"""Records whose counterpart was deleted, or left the filter: by policy, side by side.

What is to be removed or marked goes to `dropping` (side, operation, keys, the row of the record,
cause); what comes back on the other side to `revived`; what a person has to say to `conflict`.
Where too little is known (a left record without a key was rejected), nothing is removed or marked
for being absent.
"""

from __future__ import annotations

from dataclasses import dataclass

from apps.connectors.types import TEXT
from apps.engine.codec import image_sql
from apps.engine.reconcile.layout import Layout, image_where
from apps.engine.reconcile.store import Store
from apps.engine.spec import DeletePolicy, EditDelete, LeavePolicy
from apps.engine.types_sql import canonical_sql, literal

_DROPPING = "dropping(side, operation, lk, rk, row, cause, held)"


@dataclass(frozen=True, slots=True)
class _Side:
    """The side that still holds the record."""

    name: str
    row: str
    became: str
    policy: DeletePolicy
    mark: str

    @property
    def seen(self) -> str:
        return f"md5(concat_ws(chr(10), kind, {literal(self.name)}, image))"


def judge_absent(store: Store) -> None:
    """Make `dropping` and `revived`, and the conflicts of deletions."""
    layout = store.layout
    store.run(
        "CREATE TABLE dropping(side VARCHAR, operation VARCHAR, lk VARCHAR, rk VARCHAR, "
        "row BIGINT, cause VARCHAR, held BOOLEAN, id BIGINT DEFAULT nextval('ids'))"
    )
    store.run(
        "CREATE TABLE revived(side VARCHAR, lk VARCHAR, rk VARCHAR, row BIGINT, cause VARCHAR)"
    )
    for became, row, target in (("left_new", "l", "right"), ("right_new", "r", "left")):
        store.run(
            f"INSERT INTO revived SELECT '{target}', lk, rk, {row}, 'new' FROM link "
            f"WHERE became = '{became}' AND edited"
        )
    right = _Side("right", "r", "left_gone", layout.rule.on_delete, _right_marked(layout))
    left = _Side("left", "l", "right_gone", layout.two_way.on_right_delete, _left_marked(layout))
    for side in (right, left):
        _judge_edited(store, side)
        _judge_deleted(store, side)
    _judge_left_out(store)
    if store.count("(SELECT 1 FROM rejected WHERE lk IS NULL)"):
        store.run("UPDATE dropping SET held = true WHERE cause <> 'left_filter'")


def _right_marked(layout: Layout) -> str:
    """SQL: the right record has its mark."""
    if layout.right_mark is None:
        return "false"
    _, sql, neutral = layout.right_value(layout.rule.mark_field, "t")
    return f"{canonical_sql(sql, neutral)} IS NOT DISTINCT FROM {literal(layout.right_mark)}"


def _left_marked(layout: Layout) -> str:
    if layout.left_mark is None:
        return "false"
    name = layout.two_way.left_mark_field
    text = canonical_sql(layout.raw_value(name, "t"), layout.left_types[name])
    return f"{text} IS NOT DISTINCT FROM {literal(layout.left_mark)}"


def _judge_edited(store: Store, side: _Side) -> None:
    """The record was deleted on the other side and edited on this one."""
    other = "left" if side.name == "right" else "right"
    policy = store.layout.two_way.edit_delete
    edited = f"became = '{side.became}' AND edited"
    if side.policy is DeletePolicy.IGNORE or policy is EditDelete.DELETE:
        return
    if policy is EditDelete.EDIT:
        store.run(
            f"INSERT INTO revived SELECT '{other}', lk, rk, {side.row}, 'revived' FROM link "
            f"WHERE {edited}"
        )
    else:
        _ask(store, side, "edit_delete", edited)


def _judge_deleted(store: Store, side: _Side) -> None:
    """The record was deleted on the other side and is as it was on this one, or that is no matter.

    A deletion that wins over an edit is still one that the policy marks, or that waits for a
    person.
    """
    rows = f"became = '{side.became}'"
    if store.layout.two_way.edit_delete is not EditDelete.DELETE:
        rows += " AND NOT edited"
    if side.policy is DeletePolicy.PROPAGATE:
        _drop(store, side, rows, "'deleted'")
    elif side.policy is DeletePolicy.MARK:
        store.run(
            f"INSERT INTO {_DROPPING} SELECT '{side.name}', 'mark', k.lk, k.rk, k.{side.row}, "
            f"'marked', false FROM link k JOIN {side.name}_side t ON t.rowid = k.{side.row} "
            f"WHERE {rows} AND NOT ({side.mark})"
        )
    elif side.policy is DeletePolicy.APPROVE:
        _ask(store, side, "delete", rows)


def _drop(store: Store, side: _Side, rows: str, cause: str) -> None:
    store.run(
        f"INSERT INTO {_DROPPING} "
        f"SELECT '{side.name}', 'delete', lk, rk, {side.row}, {cause}, false "
        f"FROM link WHERE {rows}"
    )


def _ask(store: Store, side: _Side, kind: str, rows: str) -> None:
    """A conflict for each of these links, unless a person has decided on just these values."""
    other = "left" if side.name == "right" else "right"
    image = image_sql(store.layout.values("t.f"))
    store.run(
        f"CREATE OR REPLACE TEMP TABLE asking AS SELECT q.*, {side.seen} AS seen FROM ("
        f"SELECT '{kind}' AS kind, k.lk, k.rk, k.{side.row} AS row, {image} AS image "
        f"FROM link k JOIN {side.name}_side t ON t.rowid = k.{side.row} WHERE {rows}) q"
    )
    store.run(
        "CREATE OR REPLACE TEMP TABLE answered AS SELECT a.*, "
        "json_extract_string(d.decision, '/record') AS answer FROM asking a JOIN decisions d "
        "ON d.lk = a.lk AND d.rk = a.rk AND d.kind = a.kind AND d.seen = a.seen"
    )
    removing = f"answer IN ('delete', '{other}')"
    store.run(
        f"INSERT INTO {_DROPPING} SELECT '{side.name}', 'delete', lk, rk, row, 'decided', false "
        f"FROM answered WHERE {removing}"
    )
    store.run(
        f"INSERT INTO revived SELECT '{other}', lk, rk, row, 'decided' FROM answered "
        f"WHERE answer IN ('keep', 'insert', '{side.name}')"
    )
    images = "image, NULL" if side.name == "left" else "NULL, image"
    store.run(
        "INSERT INTO conflict SELECT a.kind, a.lk, a.rk, CAST([] AS VARCHAR[]), "
        f"{images}, {base_images(store.layout)}, a.seen, NULL, NULL, NULL FROM asking a "
        "LEFT JOIN bases b ON b.lk = a.lk AND b.rk = a.rk "
        "ANTI JOIN (SELECT lk, rk FROM answered WHERE answer IN "
        "('delete', 'keep', 'insert', 'left', 'right')) y ON y.lk = a.lk AND y.rk = a.rk"
    )


def base_images(layout: Layout) -> str:
    """SQL of both images of the base `b`, as far as it holds the mapping's fields."""
    known = {name: f"b.bk[{place + 1}]" for place, name in enumerate(layout.names)}
    images = []
    for side in ("bl", "br"):
        texts = [(name, f"b.{side}[{place + 1}]", TEXT) for place, name in enumerate(layout.names)]
        image = image_where(texts, known.__getitem__)
        images.append(f"CASE WHEN b.bk IS NOT NULL THEN {image} END")
    return ", ".join(images)


def _judge_left_out(store: Store) -> None:
    """The left record is there, but no longer takes part."""
    policy = store.layout.rule.on_leave
    if policy is LeavePolicy.KEEP:
        return
    operation = "mark" if policy is LeavePolicy.MARK else "delete"
    marked = _right_marked(store.layout) if policy is LeavePolicy.MARK else "false"
    store.run(
        f"INSERT INTO {_DROPPING} "
        f"SELECT 'right', '{operation}', k.lk, k.rk, k.r, 'left_filter', false "
        "FROM link k JOIN right_side t ON t.rowid = k.r "
        f"WHERE k.became = 'left_out' AND NOT ({marked})"
    )
