"""Deletions and former values are forgotten in time; marks of fields seal what was stored."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db.models import F

from apps.hub.errors import TokenExpired
from apps.hub.models import HostedRecord, Mutation, Revision, ScopeExit, Sequence
from apps.hub.pulling import pull
from apps.hub.selectors import EVERYTHING
from apps.hub.services.housekeeping import forget_deletions, maintain, seal_as_marked
from apps.sources.models import Field
from tests.hub_world import Pusher, hosted

pytestmark = pytest.mark.django_db


def age(days: int) -> None:
    """Let time pass for all that is stored."""
    past = timedelta(days=days)
    HostedRecord.objects.update(changed_at=F("changed_at") - past)
    ScopeExit.objects.update(left_at=F("left_at") - past)
    Revision.objects.update(made_at=F("made_at") - past)
    Mutation.objects.update(created_at=F("created_at") - past)


def test_tombstones_go_and_whoever_was_away_begins_anew():
    tasks = hosted(scope_field="owner", tombstone_days=30)
    one = Pusher(tasks)
    away = pull(tasks, EVERYTHING, "", 100).token
    a = one.push("a", title="x").revision
    b = one.push("b", title="x", owner="ada").revision
    one.push("a", a, is_delete=True)
    knows = pull(tasks, EVERYTHING, away, 100).token
    age(20)
    assert forget_deletions(tasks) == 0
    pull(tasks, EVERYTHING, away, 100)
    one.push("b", b, owner="bob")
    age(20)
    assert forget_deletions(tasks) == 1
    assert Sequence.objects.get().forgotten == 3
    with pytest.raises(TokenExpired):
        pull(tasks, EVERYTHING, away, 100)
    assert pull(tasks, EVERYTHING, knows, 100).items
    age(20)
    assert forget_deletions(tasks) == 1
    assert not ScopeExit.objects.exists()


def test_an_old_edit_of_a_forgotten_record_does_not_bring_it_back():
    tasks = hosted(tombstone_days=30)
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x").revision
    one.push("a", base, is_delete=True)
    age(40)
    forget_deletions(tasks)
    assert not HostedRecord.objects.exists()
    outcome = two.push("a", base, title="from long ago")
    assert (outcome.status, outcome.record) == ("merged", None)
    assert not HostedRecord.objects.exists()


def test_conflicts_that_wait_are_not_forgotten():
    tasks = hosted(history_days=30)
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", price="1").revision
    one.push("a", base, price="2")
    two.push("a", base, price="3")
    two.push("a", base, nonsense=1)
    age(40)
    maintain()
    assert [m.status for m in Mutation.objects.all()] == ["conflict"]
    assert not Revision.objects.exists()


def test_marking_a_field_seals_all_there_is_and_unmarking_opens_it():
    tasks = hosted()
    one, two = Pusher(tasks), Pusher(tasks)
    base = one.push("a", title="x", price="1", owner="Ada").revision
    one.push("a", base, price="2", owner="Bob")
    two.push("a", base, price="3")
    before = pull(tasks, EVERYTHING, "", 10).items
    for mark in ("identity", ""):
        Field.objects.filter(dataset__name="tasks", name="owner").update(personal_data=mark)
        assert seal_as_marked(tasks) == 3
        assert seal_as_marked(tasks) == 0
        assert (HostedRecord.objects.get().body is None) == bool(mark)
        assert pull(tasks, EVERYTHING, "", 10).items == before
