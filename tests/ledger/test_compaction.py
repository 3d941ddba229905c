"""Compaction and retention: the same history in less space, and no longer than it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings

from apps.core.clock import now
from apps.ledger.models import (
    Change,
    Conflict,
    EarlierValues,
    Rejection,
    Segment,
    SegmentContent,
    SegmentKeys,
    SegmentPart,
)
from apps.ledger.segments import writing
from apps.ledger.selectors import change_by_id, change_groups, change_page, record_changes
from apps.ledger.services import (
    RejectedRecord,
    WorkIdentity,
    compaction,
    maintain,
    record_conflicts,
    record_rejections,
    withdraw_conflicts,
)
from tests.ledger.plans import key, work
from tests.ledger.test_conflicts import met
from tests.ledger.test_segments import COUNT, facts, mixed, settle_all, stored

pytestmark = pytest.mark.django_db(transaction=True)
LONG_AGO = now() - timedelta(days=10_000)


def later() -> datetime:
    return now() + timedelta(days=1)


def compact(*kept: WorkIdentity) -> Any:
    return maintain(
        compact_before=later(), expire_before=LONG_AGO, kept_runs={work.run_id for work in kept}
    )


def history(*works: WorkIdentity) -> list[Any]:
    pages = [change_page(item.run_id, limit=COUNT) for item in works]
    return [[(c.pk, c.settled_at, facts(c)) for c in page] for page in pages] + [
        change_groups(item.run_id) for item in works
    ]


@pytest.fixture
def large(monkeypatch) -> Iterator[WorkIdentity]:
    """A settled plan on segments of 40, with rows for what turned out otherwise."""
    monkeypatch.setitem(settings.LOCKSTEP, "LEDGER_ROWS_LIMIT", 0)
    monkeypatch.setattr(writing, "SEGMENT_ROWS", 40)
    mine = work()
    stored(mine, mixed())
    settle_all(mine)
    monkeypatch.setitem(settings.LOCKSTEP, "LEDGER_ROWS_LIMIT", 50_000)
    return mine


@pytest.fixture
def small() -> WorkIdentity:
    mine = work()
    stored(mine, mixed())
    settle_all(mine)
    return mine


def test_rows_move_to_segments_and_read_the_same(small):
    other = work()
    stored(other, mixed(20))
    before = history(small, other)

    assert compact().rows == COUNT + 20

    assert not Change.objects.exists()
    assert history(small, other) == before
    assert record_changes([small.rule_id], right_key=key(17))[0].run_id == small.run_id
    assert compact().rows == 0


def test_what_turned_out_otherwise_is_folded_into_its_segment(large):
    before = history(large)
    assert Change.objects.exists()
    old = set(Segment.objects.values_list("pk", flat=True))

    assert compact().folded == 3

    assert not Change.objects.exists()
    assert history(large) == before
    assert not old & set(SegmentContent.objects.values_list("pk", flat=True))
    assert change_by_id(before[0][7][0]) is not None


def test_small_segments_of_a_rule_become_one(small):
    compact()
    works = [small]
    for _ in range(8):
        works.append(work(small.rule_id))
        stored(works[-1], mixed(10))
        compact(small)
    before = history(*works)

    compact()

    assert Segment.objects.count() == SegmentKeys.objects.count() < 8
    assert history(*works) == before
    assert {change.run_id for change in record_changes([small.rule_id], right_key=key(5))} == {
        item.run_id for item in works
    }


@pytest.mark.parametrize("after", ["write_segment", "_delete_rows", "remove_segments"])
def test_a_crash_between_two_steps_loses_and_doubles_nothing(large, small, monkeypatch, after):
    before = history(large, small)
    real = getattr(compaction, after)

    def crash(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(compaction, after, crash)
        with pytest.raises(KeyboardInterrupt):
            compact()
    assert history(large, small) == before
    compact()
    assert history(large, small) == before
    assert SegmentContent.objects.count() == Segment.objects.count()


def test_rows_that_somebody_else_moved_meanwhile_stay_single(small, monkeypatch):
    before = history(small)
    real = compaction.write_segment

    def disturbed(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        Change.objects.filter(pk=before[0][0][0]).delete()

    monkeypatch.setattr(compaction, "write_segment", disturbed)
    assert compact().rows == 0
    assert history(small) == before


def test_what_runs_need_stays_where_it_is(large, small):
    rows = Change.objects.count()
    done = compact(large, small)

    assert (done.rows, done.folded) == (0, 0)
    assert Change.objects.count() == rows


def test_what_is_past_its_time_goes_from_both_shelves(large, small):
    kept = work()
    stored(kept, mixed(10))
    before = history(kept)

    done = maintain(compact_before=LONG_AGO, expire_before=later(), kept_runs={kept.run_id})

    assert done.expired_segments == 3
    assert history(kept) == before
    assert not change_page(large.run_id)
    assert not change_page(small.run_id)
    assert not SegmentPart.objects.exists()
    assert not SegmentContent.objects.exists()


def test_what_an_open_conflict_names_does_not_expire(large, small):
    record_conflicts(small, met(1))
    record_conflicts(WorkIdentity(small.rule_id, large.run_id, large.partition_id), met(2))
    before = history(large, small)

    maintain(compact_before=LONG_AGO, expire_before=later(), kept_runs=())

    assert history(large, small) == before


def test_conflicts_and_rejections_that_are_over_go_when_their_time_is_past(small):
    record_conflicts(small, met(1, 2))
    again = WorkIdentity(small.rule_id, uuid4(), uuid4())
    record_conflicts(again, met(1, 2, right="later "))
    withdraw_conflicts(small.rule_id, uuid4(), left_keys=[key(2)])
    made = [RejectedRecord("check", "record.required", "x", left_key=key(n)) for n in (1, 2, 3)]
    record_rejections(small, made)
    open_one, resolved, dismissed = Rejection.objects.order_by("left_key")
    Rejection.objects.filter(pk=resolved.pk).update(state="resolved")
    Rejection.objects.filter(pk=dismissed.pk).update(state="dismissed")

    assert (
        maintain(compact_before=LONG_AGO, expire_before=LONG_AGO, kept_runs=()).expired_closed == 0
    )
    done = maintain(compact_before=LONG_AGO, expire_before=later(), kept_runs=())

    assert done.expired_closed == 5
    waiting = Conflict.objects.get()
    assert (waiting.left_key, waiting.right) == (key(1), {"name": "later 1", "mail": "r"})
    assert not EarlierValues.objects.exists()
    assert Rejection.objects.get() == open_one


def test_the_task_keeps_what_waits(monkeypatch, tmp_path):
    from apps.ledger.tasks import maintain as task
    from apps.runs.models import Run
    from tests.platforms import Pair

    pair = Pair(tmp_path)
    pair.add_customers(3)
    waiting, done = pair.run(), pair.run(mode=Run.Mode.DRY_RUN)
    Run.objects.filter(pk=waiting.pk).update(status="waiting")
    Change.objects.update(planned_at=now() - timedelta(days=1_000))

    task()

    assert Change.objects.filter(run_id=waiting.pk).count() == 3
    assert not change_page(done.pk)
