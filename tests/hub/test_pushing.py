"""Edits of replicas: applied, merged, in conflict, rejected; each once."""

from __future__ import annotations

from typing import Any

import pytest

from apps.core.clock import now
from apps.engine.spec import EditDelete
from apps.hub import clocks
from apps.hub.bodies import loaded
from apps.hub.errors import OutOfOrder
from apps.hub.models import HostedDataset, HostedRecord, Mutation, Replica, Revision
from apps.hub.selectors import Access
from apps.hub.services import push
from apps.sources.models import Field
from tests.hub_world import Pusher, hosted

pytestmark = pytest.mark.django_db


@pytest.fixture
def tasks() -> HostedDataset:
    return hosted()


def record(tasks: HostedDataset, key: str = "a") -> dict[str, Any] | None:
    row = HostedRecord.objects.get(hosted=tasks, key=key)
    return None if row.is_deleted else loaded(row.body or "")


def test_a_new_record_is_applied_and_gets_the_next_number(tasks):
    one = Pusher(tasks)
    outcome = one.push("a", title="Buy milk")
    assert (outcome.status, outcome.revision) == ("applied", 1)
    assert one.push("b", title="Sleep").revision == 2
    assert record(tasks) == {"id": "a", "title": "Buy milk"}


def test_edits_of_different_fields_are_merged(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="Buy milk", done=False).revision
    assert two.push("a", base, title="Buy oat milk").status == "applied"
    outcome = one.push("a", base, done=True)
    assert outcome.status == "merged"
    assert outcome.record == {"id": "a", "title": "Buy oat milk", "done": True}


def test_of_two_edits_of_a_field_the_later_one_wins_whichever_comes_first(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    earlier, later = (clocks.stamp_of(ms) for ms in (1_000, 2_000))
    for key, order in (("a", (earlier, later)), ("b", (later, earlier))):
        base = one.push(key, title="Old", stamp=clocks.stamp_of(500)).revision
        one.push(key, base, title=f"at {order[0]}", stamp=order[0])
        outcome = two.push(key, base, title=f"at {order[1]}", stamp=order[1])
        assert outcome.status == ("applied" if order[1] == later else "merged") or key == "a"
        assert record(tasks, key)["title"] == f"at {later}"
    lost = Mutation.objects.get(key="b")
    assert loaded(lost.kept) == {"title": f"at {earlier}"}


def test_a_clock_that_runs_ahead_is_held_to_ours_and_told_of(tasks):
    one = Pusher(tasks)
    year = 365 * 24 * 3600 * 1000
    ahead = int(now().timestamp() * 1000) + year
    assert one.push("a", title="x", stamp=clocks.stamp_of(ahead)).status == "applied"
    stamp = HostedRecord.objects.get().clocks[""]
    assert int(stamp, 16) >> 16 <= int(now().timestamp() * 1000) + clocks.AHEAD
    assert Replica.objects.get().skew == pytest.approx(year, abs=60_000)


def test_counters_add_up_and_sets_keep_what_either_added(tasks):
    one, two, three = Pusher(tasks), Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", stock=10, tags=["red"]).revision
    one.push("a", base, increments={"stock": 5}, added={"tags": ["blue"]})
    two.push("a", base, increments={"stock": -2}, added={"tags": ["green"]})
    assert record(tasks)["stock"] == 13
    assert record(tasks)["tags"] == ["red", "blue", "green"]
    three.push("a", base, stock=11, tags=["red", "pink"])  # what an app without operations sends
    assert record(tasks)["stock"] == 14
    assert set(record(tasks)["tags"]) == {"red", "blue", "green", "pink"}


def test_a_member_that_others_add_meanwhile_is_not_removed(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", tags=["red"]).revision
    one.push("a", base, added={"tags": ["blue"]})
    two.push("a", base, removed={"tags": ["red", "blue"]})
    assert record(tasks)["tags"] == ["blue"]


def test_lines_are_merged_and_overlapping_ones_are_asked_about(tasks):
    one, two, three = Pusher(tasks), Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", note="1\n2\n3\n").revision
    one.push("a", base, note="one\n2\n3\n")
    outcome = two.push("a", base, note="1\n2\nthree\n")
    assert outcome.record["note"] == "one\n2\nthree\n"
    assert three.push("a", base, note="eins\n2\n3\n").status == "conflict"


def test_a_conflict_parks_its_field_and_lets_the_others_through(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", price="1.00").revision
    one.push("a", base, price="2.00")
    outcome = two.push("a", base, price="3.00", done=True)
    assert (outcome.status, outcome.fields, outcome.code) == (
        "conflict",
        ("price",),
        "hub.conflict",
    )
    assert outcome.record["price"] == "2.00"
    assert outcome.record["done"] is True
    waiting = Mutation.objects.get(state="open")
    assert loaded(waiting.kept) == {"price": "3.00"}


@pytest.mark.parametrize(
    ("facts", "field"),
    [
        ({"title": "x" * 41}, "title"),
        ({"title": None}, "title"),
        ({"nonsense": 1}, "nonsense"),
        ({"stock": 1.5}, "stock"),
        ({"stock": True}, "stock"),
        ({"stock": 2**63}, "stock"),
        ({"price": "1.005"}, "price"),
        ({"tags": "red"}, "tags"),
        ({"increments": {"title": 1}}, "title"),
        ({"added": {"title": ["x"]}}, "title"),
        ({"id": "b"}, "id"),
    ],
)
def test_an_edit_that_does_not_fit_is_rejected_and_the_others_go_on(tasks, facts, field):
    one = Pusher(tasks)
    base = one.push("a", title="x").revision
    outcomes = push(
        tasks, one.replica, [one.edit("a", base, **facts), one.edit("b", title="y")], one.access
    )
    assert [outcome.status for outcome in outcomes] == ["rejected", "applied"]
    assert outcomes[0].fields == (field,)
    assert outcomes[0].record == {"id": "a", "title": "x"}


def test_a_repeated_push_does_nothing_twice_and_gets_the_same_answers(tasks):
    one = Pusher(tasks)
    edits = [
        one.edit("a", title="x", stock=1),
        one.edit("a", increments={"stock": 1}),
        one.edit("a", nonsense=1),
    ]
    first = push(tasks, one.replica, edits, one.access)
    assert [outcome.status for outcome in first] == ["applied", "applied", "rejected"]
    again = push(tasks, one.replica, edits, one.access)
    assert again == first
    more = push(tasks, one.replica, [*edits, one.edit("a", increments={"stock": 1})], one.access)
    assert more[:3] != []
    assert record(tasks)["stock"] == 3
    assert Revision.objects.count() == 3


def test_a_repeated_push_tells_what_others_did_since(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    edit = one.edit("a", title="x")
    base = push(tasks, one.replica, [edit], one.access)[0].revision
    two.push("a", base, is_delete=True)
    again = push(tasks, one.replica, [edit], one.access)[0]
    assert (again.status, again.record) == ("merged", None)


def test_a_gap_in_the_numbers_is_refused_so_that_no_edit_is_skipped(tasks):
    one = Pusher(tasks)
    lost = one.edit("a", title="lost on the way")
    with pytest.raises(OutOfOrder, match="mutation 1 was expected, not 2"):
        push(tasks, one.replica, [one.edit("b", title="y")], one.access)
    assert push(tasks, one.replica, [lost], one.access)[0].status == "applied"


def test_own_edits_in_between_are_nobody_elses(tasks):
    """Two edits of a field, made offline one after the other: no conflict with oneself."""
    one = Pusher(tasks)
    base = one.push("a", title="x", price="1.00").revision
    edits = [one.edit("a", base, price="2.00"), one.edit("a", base, price="3.00")]
    assert [o.status for o in push(tasks, one.replica, edits, one.access)] == ["applied"] * 2
    assert one.push("a", base, price="4.00").status == "applied"
    assert record(tasks)["price"] == "4.00"


def test_what_the_edit_says_of_its_base_counts_more_than_the_history(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", stock=10).revision
    two.push("a", base, increments={"stock": 5})
    edits = [one.edit("a", base, stock=12), one.edit("a", base, stock=13, seen={"stock": 12})]
    push(tasks, one.replica, edits, one.access)
    assert record(tasks)["stock"] == 18


def test_without_a_history_nothing_is_overwritten_unasked(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", price="1.00", stock=1).revision
    two.push("a", base, price="2.00", stock=2)
    Revision.objects.all().delete()
    outcome = one.push("a", base, price="3.00", stock=3)
    assert outcome.status == "conflict"
    assert set(outcome.fields) == {"price", "stock"}


@pytest.mark.parametrize(
    ("policy", "status", "lives"),
    [("delete", "merged", False), ("edit", "merged", True), ("ask", "conflict", False)],
)
def test_an_edit_of_what_another_deleted(policy, status, lives):
    tasks = hosted("policy", edit_delete=EditDelete(policy))
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x").revision
    one.push("a", base, is_delete=True)
    outcome = two.push("a", base, title="y")
    assert outcome.status == status
    assert (record(tasks) is not None) == lives
    if lives:
        assert record(tasks) == {"id": "a", "title": "y"}
    else:
        assert loaded(Mutation.objects.get().kept) == {"title": "y"}


@pytest.mark.parametrize(
    ("policy", "status", "lives"),
    [("delete", "applied", False), ("edit", "merged", True), ("ask", "conflict", True)],
)
def test_a_delete_of_what_another_edited(policy, status, lives):
    tasks = hosted("policy", edit_delete=EditDelete(policy))
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x").revision
    one.push("a", base, title="y")
    assert two.push("a", base, is_delete=True).status == status
    assert (record(tasks) is not None) == lives


def test_a_deleted_record_can_be_made_anew_and_its_old_edits_do_not_reach_it(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="first life").revision
    one.push("a", base, is_delete=True)
    assert one.push("a", title="second life").status == "applied"
    outcome = two.push("a", base, stamp=clocks.stamp_of(1), title="an edit of the first")
    assert outcome.status == "merged"
    assert record(tasks)["title"] == "second life"


def test_two_who_make_the_same_record_are_merged(tasks):
    one, two = Pusher(tasks), Pusher(tasks)
    one.push("a", title="x", stock=1, stamp=clocks.stamp_of(1))
    outcome = two.push("a", title="y", stock=2, stamp=clocks.stamp_of(2))
    assert outcome.status == "merged"
    assert record(tasks) == {"id": "a", "title": "y", "stock": 3}


def test_an_account_edits_within_its_scope_only():
    tasks = hosted("scoped", scope_field="owner")
    ada, bob = Pusher(tasks, Access.to_values("ada")), Pusher(tasks, Access.to_values("bob"))
    base = ada.push("a", title="x", owner="ada").revision
    outcome = bob.push("a", base, title="y")
    assert (outcome.status, outcome.record, outcome.revision) == ("rejected", None, None)
    assert bob.push("b", title="y", owner="ada").status == "rejected"
    assert bob.push("b", title="y").status == "rejected"
    assert ada.push("a", base, owner="bob").status == "rejected"
    assert record(tasks) == {"id": "a", "title": "x", "owner": "ada"}


def test_values_of_datasets_with_personal_fields_are_stored_sealed(tasks):
    Field.objects.filter(dataset__name="tasks", name="owner").update(personal_data="identity")
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", owner="Ada Lovelace", price="1.00").revision
    one.push("a", base, owner="Ada King", price="2.00")
    two.push("a", base, price="3.00", owner="A. L.", stamp=clocks.stamp_of(1))
    for model in (HostedRecord, Revision, Mutation):
        for row in model.objects.values():
            texts = [value for value in row.values() if isinstance(value, str)]
            assert not any("Ada" in text or "A. L." in text for text in texts)
    assert two.push("a", base, done=True).record == {
        "id": "a",
        "title": "x",
        "owner": "Ada King",
        "price": "2.00",
        "done": True,
    }
