"""The segment shelf: what is planned in large runs reads as if it lay on the row shelf."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pyarrow as pa
import pytest
from django.conf import settings as platform
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.core.protected import ProtectedValueError
from apps.ledger.models import Change, Segment, SegmentContent, SegmentKeys, SegmentPart
from apps.ledger.segments import bloom, files, writing
from apps.ledger.segments.reading import OpenSegment
from apps.ledger.selectors import (
    ChangeFilter,
    PlanReader,
    applied_sample,
    change_by_id,
    change_counts,
    change_groups,
    change_page,
    changes_of_field,
    key_hash,
    record_changes,
)
from apps.ledger.services import (
    Refusal,
    Stored,
    WorkIdentity,
    discard_plan,
    forget_rule,
    settle,
    skip_others,
)
from tests.ledger.plans import SCHEMA, change, key, store_table, work

pytestmark = pytest.mark.django_db

COUNT = 100


@pytest.fixture
def on_segments(monkeypatch):
    """Every plan goes to segments; several of them, of several row groups."""
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 0)
    monkeypatch.setattr(writing, "SEGMENT_ROWS", 40)
    monkeypatch.setattr(files, "GROUP_ROWS", 16)
    monkeypatch.setattr("apps.ledger.selectors.plans.GROUP_ROWS", 16)


def mixed(count: int = COUNT) -> list[dict[str, Any]]:
    """Deletes, updates of one field or another, and inserts."""
    rows = []
    for n in range(count):
        if n % 10 == 0:
            rows.append(change("delete", n, n, before={"name": f"old {n}"}))
        elif n % 10 < 4:
            field = "name" if n % 2 else "mail"
            rows.append(change("update", n, n, before={field: "x"}, after={field: f"{n}"},
                               base_left={field: f"{n}"}, base_right={field: f"{n}"}))  # fmt: skip
        else:
            rows.append(change("insert", n, n, after={"id": str(n), "name": f"né {n}"}))
    return rows


def stored(identity: WorkIdentity, rows: list[dict[str, Any]]) -> int:
    return store_table(identity, pa.Table.from_pylist(rows, schema=SCHEMA), batch=7)


def facts(change_: Change) -> tuple[Any, ...]:
    return (
        change_.sequence,
        change_.side,
        change_.operation,
        change_.cause,
        change_.left_key,
        change_.right_key,
        tuple(change_.field_names),
        change_.images(),
        change_.base(),
        change_.image,
        change_.outcome,
        change_.code,
        change_.message,
    )


def settle_all(identity: WorkIdentity, batch: int = 9) -> None:
    """Apply a plan of `mixed`: some are refused, some stored otherwise, in small batches."""
    reader, after = PlanReader(identity.partition_id), 0
    while planned := reader.next(after, batch):
        numbers = [item.sequence for item in planned]
        refused = {
            n: Refusal(Change.Outcome.STALE, "record.stale", f"moved {n}")
            for n in numbers
            if n % 12 == 0
        }
        back = {
            item.sequence: Stored(after='{"id":"1","name":"stored"}')
            for item in planned
            if item.operation == "insert" and item.sequence % 9 == 0
        }
        settle(identity, planned, refused, stored=back)
        after = numbers[-1]


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_both_shelves_tell_the_same(on_segments, monkeypatch, limit):
    large, small = work(), work()
    stored(large, mixed())
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 1_000)
    stored(small, mixed())
    assert SegmentPart.objects.count() == 3
    assert Change.objects.filter(run_id=large.run_id).count() == 0

    for step in ("planned", "settled"):
        if step == "settled":
            settle_all(large)
            settle_all(small)
        for narrowed in (
            {},
            {"operation": "update"},
            {"outcome": "stale"},
            {"outcome": "applied", "operation": "insert"},
            {"search_key": "17"},
            {"search_key": key(17)},
            {"search_key": "nobody"},
            {"cause": "deleted"},
            {"side": "left"},
        ):
            pages = [paged(item.run_id, limit, **narrowed) for item in (large, small)]
            assert pages[0] == pages[1], (step, narrowed)
        assert change_counts(large.run_id) == change_counts(small.run_id)
        assert change_groups(large.run_id) == change_groups(small.run_id)
        assert sum(change_counts(large.run_id).values()) == COUNT


def paged(run_id: UUID, limit: int, **narrowed: Any) -> list[tuple[Any, ...]]:
    found: list[Change] = []
    while True:
        after = found[-1].pk if found else None
        page = change_page(run_id, after_id=after, limit=limit, **narrowed)
        found += page
        if len(page) < limit:
            return [facts(item) for item in found]


def test_the_plan_is_read_as_from_the_row_shelf(on_segments, monkeypatch):
    large, small = work(), work()
    stored(large, mixed())
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 1_000)
    stored(small, mixed())
    reads = []
    for identity in (large, small):
        reader, after, read = PlanReader(identity.partition_id), 0, []
        while batch := reader.next(after, 11):
            read += batch
            after = batch[-1].sequence
        reads.append(read)

    assert reads[0] == reads[1]
    assert [item.sequence for item in reads[0]] == list(range(1, COUNT + 1))


def test_a_segment_is_opened_once_while_its_plan_is_read(on_segments, monkeypatch):
    mine = work()
    stored(mine, mixed())
    opened = []
    monkeypatch.setattr(
        "apps.ledger.selectors.plans.OpenSegment",
        lambda segment: opened.append(segment.pk) or OpenSegment(segment),
    )
    reader, after = PlanReader(mine.partition_id), 0
    while batch := reader.next(after, 5):
        after = batch[-1].sequence

    assert len(opened) == len(set(opened)) == 3


def test_a_clean_run_writes_no_rows_at_all(on_segments):
    mine = work()
    stored(mine, mixed())
    reader = PlanReader(mine.partition_id)
    for after in (0, 16):
        batch = reader.next(after, 16)
        settle(mine, batch, {})

    assert not Change.objects.filter(run_id=mine.run_id).exists()
    assert change_counts(mine.run_id)["insert", "planned"] > 0
    assert reader.next(batch[-1].sequence, 1)


def test_settling_segments_twice_leaves_the_same_rows(on_segments):
    mine = work()
    stored(mine, mixed())
    planned = PlanReader(mine.partition_id).next(0, 16)
    refused = {3: Refusal(Change.Outcome.REJECTED, "record.invalid", "no")}
    back = {5: Stored(after='{"id":"4","name":"other"}')}

    settle(mine, planned, refused, stored=back)
    once = [facts(item) for item in change_page(mine.run_id, limit=COUNT)]
    settle(mine, planned, refused, stored=back)

    assert [facts(item) for item in change_page(mine.run_id, limit=COUNT)] == once
    assert Change.objects.count() == 2
    assert once[2][-3:] == ("rejected", "record.invalid", "no")
    assert once[4][7][1] == {"id": "4", "name": "other"}


def test_a_change_has_one_id_wherever_it_lies(on_segments):
    mine = work()
    stored(mine, mixed())
    settle_all(mine)

    for item in change_page(mine.run_id, limit=COUNT):
        found = change_by_id(item.pk)
        assert found is not None
        assert facts(found) == facts(item)
    assert change_by_id(5) is None


def test_one_records_life_across_rules_and_shelves(on_segments, monkeypatch):
    mine, other = work(), work()
    again = work(mine.rule_id)
    stored(mine, mixed())
    stored(again, [change("delete", 8, 8, before={"name": "né 8"})])
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 1_000)
    stored(other, [change("insert", 8, "r8", after={"name": "x"})])

    rules = [mine.rule_id, other.rule_id]
    life = record_changes(rules, left_key=key(8), right_key=key(8))

    assert [(item.rule_id, item.operation) for item in life] == [
        (other.rule_id, "insert"),
        (mine.rule_id, "delete"),
        (mine.rule_id, "insert"),
    ]
    assert record_changes(rules, right_key=key("r8")) == life[:1]
    assert (
        record_changes(rules, left_key=key(8), before=life[1].planned_at)[0].run_id == mine.run_id
    )
    assert len(record_changes(rules, left_key=key(8), limit=2)) == 2
    assert record_changes([other.rule_id], left_key=key(7)) == []


def test_a_lookup_opens_only_segments_that_may_hold_the_key(on_segments, monkeypatch):
    mine = work()
    stored(mine, mixed())
    opened = []
    monkeypatch.setattr(
        "apps.ledger.segments.reading.OpenSegment",
        lambda segment: opened.append(segment.pk) or OpenSegment(segment),
    )

    assert record_changes([mine.rule_id], right_key=key(17))
    assert len(opened) == 1
    assert not record_changes([mine.rule_id], right_key=key("100000"))
    assert len(opened) == 1


def test_changes_of_a_field_between_two_dates(on_segments, monkeypatch):
    mine = work()
    stored(mine, mixed())
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 1_000)
    later = work(mine.rule_id)
    stored(later, mixed(20))
    since = Segment.objects.earliest("pk").planned_from
    until = Change.objects.earliest("planned_at").planned_at

    found = changes_of_field(mine.rule_id, "mail", since, until, limit=COUNT)
    assert {item.run_id for item in found} == {mine.run_id}
    assert len(found) == sum("mail" in row["fields"] for row in mixed())
    newest = changes_of_field(mine.rule_id, "mail", since, _later(until), limit=2)
    assert {item.run_id for item in newest} == {later.run_id}
    assert changes_of_field(mine.rule_id, "nothing", since, _later(until)) == []


def _later(moment: Any) -> Any:
    from datetime import timedelta

    return moment + timedelta(seconds=1)


def test_a_selection_skips_the_others_on_both_shelves(on_segments, monkeypatch):
    large, small = work(), work()
    stored(large, mixed())
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 1_000)
    stored(small, mixed())
    kept = ChangeFilter(operations=("delete",))
    for identity in (large, small):
        assert skip_others(identity.run_id, identity.partition_id, kept) == 90
        assert skip_others(identity.run_id, identity.partition_id, kept) == 0
        settle_all(identity)

    assert change_counts(large.run_id) == change_counts(small.run_id)
    assert change_counts(large.run_id)["insert", "skipped"] == 60
    assert paged(large.run_id, 8) == paged(small.run_id, 8)


def test_a_sample_of_what_was_written(on_segments):
    mine = work()
    stored(mine, mixed())
    settle_all(mine)

    sample = applied_sample(mine.run_id, 30)

    assert len({item.pk for item in sample}) == 30
    assert {item.outcome for item in sample} == {"applied"}
    assert "delete" not in {item.operation for item in sample}


def test_a_plan_that_is_discarded_leaves_nothing(on_segments):
    mine, other = work(), work()
    stored(mine, mixed())
    stored(other, mixed(50))
    discard_plan(mine.partition_id)

    assert not change_page(mine.run_id)
    assert set(SegmentPart.objects.values_list("run_id", flat=True)) == {other.run_id}
    assert SegmentContent.objects.count() == SegmentKeys.objects.count() == Segment.objects.count()
    forget_rule(other.rule_id)
    assert not Segment.objects.exists()
    assert not SegmentContent.objects.exists()


def test_a_large_run_of_small_partitions_goes_to_segments_too(monkeypatch):
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 30)
    first = work()
    second = WorkIdentity(first.rule_id, first.run_id, work().partition_id)
    stored(first, mixed(20))
    stored(second, mixed(20))

    assert Change.objects.filter(partition_id=first.partition_id).count() == 20
    assert SegmentPart.objects.get().partition_id == second.partition_id
    assert len(paged(first.run_id, 6)) == 40


def test_contents_are_sealed_each_with_its_own_key(on_segments):
    mine = work()
    stored(mine, mixed())
    first, second = SegmentContent.objects.order_by("pk")[:2]
    assert b"PAR1" not in bytes(first.content)
    assert b"old 0" not in bytes(first.content)

    first.content = second.content
    first.save()
    with pytest.raises(ProtectedValueError):
        change_page(mine.run_id)
    first.sealed_key = second.sealed_key
    first.save()
    with pytest.raises(ProtectedValueError):
        change_page(mine.run_id)


def test_a_segment_that_would_be_too_large_becomes_several(on_segments, monkeypatch):
    monkeypatch.setattr(writing, "SEGMENT_BYTES", 6_000)
    mine = work()
    stored(mine, mixed())

    assert Segment.objects.count() > 3
    assert max(Segment.objects.values_list("size", flat=True)) <= 6_100
    assert [row[0] for row in paged(mine.run_id, 100)] == list(range(1, COUNT + 1))


@settings(deadline=None)
@given(st.lists(st.text(min_size=1), min_size=1, max_size=300))
def test_a_key_filter_lets_every_key_pass_that_it_holds(keys):
    blocks = bloom.block_count(len(keys))
    content = bloom.build(pa.chunked_array([pa.array([*keys, None, ""])]), blocks)

    assert len(content) == blocks * bloom.BLOCK_BYTES
    for text in keys:
        digest = key_hash(text)
        place = (bloom.block_of(digest) & (blocks - 1)) * bloom.BLOCK_BYTES
        assert bloom.may_hold(content[place : place + bloom.BLOCK_BYTES], digest)


def test_a_key_filter_keeps_nearly_all_others_out():
    held = [key(n) for n in range(4_000)]
    blocks = bloom.block_count(len(held))
    content = bloom.build(pa.chunked_array([held]), blocks)
    passed = 0
    for n in range(4_000, 8_000):
        digest = key_hash(key(n))
        place = (bloom.block_of(digest) & (blocks - 1)) * bloom.BLOCK_BYTES
        passed += bloom.may_hold(content[place : place + bloom.BLOCK_BYTES], digest)

    assert passed < 20


def test_ids_of_the_row_shelf_go_on_from_their_own(on_segments, monkeypatch):
    large, small = work(), work()
    stored(large, mixed())
    settle_all(large)
    assert Change.objects.filter(run_id=large.run_id).exists()
    monkeypatch.setitem(platform.LOCKSTEP, "LEDGER_ROWS_LIMIT", 1_000)
    stored(small, mixed(3))

    ids = [item.pk for item in change_page(small.run_id)]
    assert 0 < min(ids) <= max(ids) < 1 << 32
    assert max(item.pk for item in change_page(large.run_id, limit=COUNT)) < 0
