"""Settling: outcomes, keys that the target gave, and the base of the link."""

from __future__ import annotations

from typing import Any

import orjson
import pyarrow as pa
import pytest

from apps.connectors.types import NeutralType
from apps.engine.codec import image_hash, image_hashes
from apps.engine.types_sql import json_text
from apps.ledger.models import Change, Link
from apps.ledger.selectors import bases_of, link_batches
from apps.ledger.services import Refusal, Stored, hold_links, refresh_links, settle
from tests.ledger.plans import change, key, plan, work

pytestmark = pytest.mark.django_db


def base(link: Link) -> tuple[Any, Any]:
    return tuple(text if text is None else orjson.loads(text) for text in link.base())


def snapshot() -> list[tuple[Any, ...]]:
    """Everything that settling may touch, but for ids and what is sealed anew."""
    links = [
        (link.left_key, link.right_key, link.left_image, link.right_image, link.state, base(link))
        for link in Link.objects.order_by("right_key")
    ]
    names = ("sequence", "left_key", "right_key", "outcome", "code", "settled_at", "image")
    return [*links, *Change.objects.order_by("sequence").values_list(*names)]


def refreshed(*rows: tuple[str, str, Any, Any]) -> pa.Table:
    columns = [[key(row[0]) for row in rows], [key(row[1]) for row in rows]]
    columns += [[None if row[n] is None else json_text(row[n]) for row in rows] for n in (2, 3)]
    names = ("left_key", "right_key", "base_left", "base_right")
    arrays = [pa.array(column, pa.string()) for column in columns]
    return pa.table(arrays, names=names)


def test_an_insert_makes_a_link_whose_base_is_what_was_stored():
    mine = work()
    (planned,) = plan(
        mine,
        change(
            "insert", 1, 1,
            after={"id": "1", "name": "Añ\x1f"}, base_left={"name": "Añ\x1f"},
            base_right={"name": "Añ\x1f"},
        ),
    )  # fmt: skip
    stored = Stored(after='{"id":"1","name":"An"}', base_right='{"name":"An"}')

    settle(mine, [planned], {}, stored={1: stored})

    link = Link.objects.get()
    assert base(link) == ({"name": "Añ\x1f"}, {"name": "An"})
    assert link.right_image == image_hash({"name": "An"}) != link.left_image
    assert Change.objects.get().images()[1] == {"id": "1", "name": "An"}


def test_the_hash_of_an_image_is_the_engines():
    record = {"b": 'tab\t unit\x1f quote" back\\slash \\u001f ü', "a": None}
    table = pa.table({"b": [record["b"]], "a": pa.array([None], pa.string())})
    types = {name: NeutralType.parse("text") for name in table.column_names}

    assert [image_hash(record)] == image_hashes(table, types)


def test_a_key_that_the_target_assigned_becomes_known():
    mine = work()
    (planned,) = plan(mine, change("insert", 7, None, after={"name": "x"}))

    settle(mine, [planned], {}, stored={1: Stored(own_key=key(4711))})

    assert Change.objects.get().right_key == key(4711)
    assert bytes(Change.objects.get().right_hash) == bytes(Link.objects.get().right_hash)
    assert Link.objects.get().right_key == key(4711)


def test_a_left_insert_learns_its_left_key():
    mine = work()
    (planned,) = plan(
        mine,
        change("insert", None, "r", side="left", after={"n": "1"}, base_left={"m": "1"},
               base_right={"m": "1"}),
    )  # fmt: skip

    settle(mine, [planned], {}, stored={1: Stored(own_key=key(12))})

    link = Link.objects.get()
    assert (link.left_key, link.right_key) == (key(12), key("r"))
    assert base(link) == ({"m": "1"}, {"m": "1"})


def test_two_changes_of_one_record_patch_their_own_fields():
    mine = work()
    refresh_links(mine, refreshed(("1", "a", {"x": "0", "y": "0"}, {"x": "0", "y": "0"})))
    planned = plan(
        mine,
        change("update", 1, "a", side="left", after={"lx": "1"}, base_left={"x": "1"},
               base_right={"x": "1"}),
        change("update", 1, "a", after={"y": "2"}, base_left={"y": "2"}, base_right={"y": "2"}),
    )  # fmt: skip

    settle(mine, planned, {2: Refusal(Change.Outcome.STALE, "record.stale", "moved")})

    assert base(Link.objects.get()) == ({"x": "1", "y": "0"}, {"x": "1", "y": "0"})
    assert list(Change.objects.order_by("sequence").values_list("outcome", flat=True)) == [
        "applied",
        "stale",
    ]


def test_settling_twice_leaves_the_same_rows():
    mine = work()
    refresh_links(
        mine,
        refreshed(
            ("1", "a", {"x": "0"}, {"x": "0"}),
            ("2", "b", {"x": "0"}, {"x": "0"}),
            ("3", "c", {"x": "0"}, {"x": "0"}),
        ),
    )
    planned = plan(
        mine,
        change("delete", 1, "a", before={"x": "0"}),
        change("update", 2, "b", after={"x": "5"}, key_after=key("z"), base_left={"x": "5"},
               base_right={"x": "5"}),
        change("insert", 4, None, after={"x": "9"}, base_left={"x": "9"}, base_right={"x": "9"}),
        change("update", 3, "c", after={"x": "7"}, base_left={"x": "7"}, base_right={"x": "7"}),
    )  # fmt: skip
    refused = {4: Refusal(Change.Outcome.REJECTED, "record.invalid", "no")}
    stored = {3: Stored(own_key=key("new"))}

    settle(mine, planned, refused, stored=stored)
    once = snapshot()
    settle(mine, planned, refused, stored=stored)

    assert snapshot() == once
    assert {(link.left_key, link.right_key) for link in Link.objects.all()} == {
        (key(2), key("z")),
        (key(3), key("c")),
        (key(4), key("new")),
    }


def test_keys_that_change_places_keep_their_own_bases():
    mine = work()
    refresh_links(
        mine, refreshed(("1", "a", {"x": "1"}, {"x": "1"}), ("2", "b", {"x": "2"}, {"x": "2"}))
    )
    planned = plan(
        mine,
        change("update", 1, "a", after={"k": "b"}, key_after=key("b"), base_left={"k": "b"},
               base_right={"k": "b"}),
        change("update", 2, "b", after={"k": "a"}, key_after=key("a"), base_left={"k": "a"},
               base_right={"k": "a"}),
    )  # fmt: skip

    settle(mine, planned, {})

    bases = {link.left_key: (link.right_key, base(link)[0]) for link in Link.objects.all()}
    assert bases == {
        key(1): (key("b"), {"x": "1", "k": "b"}),
        key(2): (key("a"), {"x": "2", "k": "a"}),
    }


def test_a_record_that_takes_over_a_deleted_ones_key_starts_with_its_own_base():
    mine = work()
    refresh_links(mine, refreshed(("1", "a", {"x": "1", "y": "1"}, {"x": "1", "y": "1"})))
    planned = plan(
        mine,
        change("delete", 1, "a", before={"x": "1"}),
        change("insert", 2, "a", after={"x": "2"}, base_left={"x": "2"}, base_right={"x": "2"}),
    )

    settle(mine, planned, {})

    assert base(Link.objects.get()) == ({"x": "2"}, {"x": "2"})
    assert Link.objects.get().left_key == key(2)


def test_an_undo_holds_the_link_of_a_record_that_it_removed():
    mine = work()
    refresh_links(mine, refreshed(("1", "a", {"x": "1"}, {"x": "1"})))
    planned = plan(mine, change("delete", 1, "a", before={"x": "1"}, base_right="null"))

    settle(mine, planned, {}, hold=True)

    link = Link.objects.get()
    assert (link.state, base(link)) == ("held", ({"x": "1"}, None))


def test_held_links_are_as_both_sides_are_now():
    mine = work()
    hold_links(mine, refreshed(("1", "a", {"x": "1"}, {"x": "2"}), ("2", "b", None, {"x": "3"})))

    found = bases_of(mine.rule_id, [key(1), key(2)]).to_pylist()
    assert sorted((row["left"], row["right"]) for row in found if row["left"]) == [
        ('{"x":"1"}', '{"x":"2"}')
    ]
    assert [row["right"] for row in found if row["left"] is None] == ['{"x":"3"}']
    (table,) = link_batches(mine.rule_id)
    assert set(table.column("state").to_pylist()) == {"held"}
    assert "" in table.column("left_image").to_pylist()


def test_a_one_way_rule_keeps_both_hashes_and_no_base():
    mine = work()
    (planned,) = plan(mine, change("insert", 1, 1, after={"x": "1"}))

    settle(mine, [planned], {}, stored={1: Stored(image_hash="as-stored")}, first_links=True)

    link = Link.objects.get()
    assert (link.left_image, link.right_image) == (planned.image, "as-stored")
    assert link.sealed_base is None


def test_a_base_does_not_open_in_another_link():
    mine = work()
    refresh_links(
        mine, refreshed(("1", "a", {"x": "1"}, {"x": "1"}), ("2", "b", {"x": "2"}, {"x": "2"}))
    )
    first, second = Link.objects.order_by("left_key")
    first.sealed_base = second.sealed_base

    with pytest.raises(Exception, match="altered or moved"):
        first.base()


def test_link_batches_hold_every_link_once(monkeypatch):
    monkeypatch.setattr("apps.ledger.selectors.link_tables.LINK_BATCH", 3)
    mine = work()
    refresh_links(mine, refreshed(*((str(n), f"r{n}", {"x": "1"}, None) for n in range(8))))
    refresh_links(work(), refreshed(("1", "a", {"x": "1"}, None)))

    tables = list(link_batches(mine.rule_id))

    assert [table.num_rows for table in tables] == [3, 3, 2]
    keys = [text for table in tables for text in table.column("right_key").to_pylist()]
    assert sorted(keys) == sorted(key(f"r{n}") for n in range(8))


def test_a_link_to_a_key_that_the_target_gave_again_outlives_the_old_ones_deletion():
    """Somebody deleted right 3; that key goes to the counterpart of left 1; then left 3 goes."""
    mine = work()
    refresh_links(mine, refreshed((3, 3, {"name": "c"}, {"name": "c"})))
    a = {"name": "a"}
    insert, delete = plan(
        mine,
        change("insert", 1, None, after=a, base_left=a, base_right=a),
        change("delete", 3, 3, side="left", before={"name": "c"}),
    )
    settle(mine, [insert], {}, stored={1: Stored(own_key=key(3))})
    settle(mine, [delete], {})
    assert list(Link.objects.values_list("left_key", "right_key")) == [(key(1), key(3))]
