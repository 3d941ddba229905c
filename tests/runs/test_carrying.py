"""What was not written is looked at again, and what depends on it waits, however many there are."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from django.conf import settings
from pytest_django import DjangoAssertNumQueries

from apps.ledger.models import Rejection
from apps.ledger.selectors import PlannedChange, run_changes
from apps.ledger.services import RejectedRecord, WorkIdentity, record_rejections
from apps.runs.models import Run
from apps.runs.services import ChangeSelection, approve_run, work_until_finished
from apps.runs.services.carrying import carried_keys
from apps.runs.services.dependents import RefusedRecords
from tests.platforms import PLAIN_FIELDS, Pair, lines

pytestmark = pytest.mark.django_db(transaction=True)


def cursor_pair(folder: Path) -> Pair:
    facts = {"delta": "cursor", "cursor_field": "changed"}
    return Pair(folder, fields=PLAIN_FIELDS, facts=facts)


def test_no_rejection_is_left_out(tmp_path: Path) -> None:
    pair = cursor_pair(tmp_path)
    pair.add_customers(1)
    run = pair.run()
    many = [
        RejectedRecord(Rejection.Stage.CHECK, "check.failed", "no", left_key=f'["{n}"]')
        for n in range(10_001)
    ]
    record_rejections(WorkIdentity(pair.rule.pk, run.pk, uuid4()), many)
    assert len(carried_keys(Run(rule=pair.rule))) == 10_001


@pytest.mark.parametrize("limit", [0, 50_000], ids=["segments", "rows"])
def test_what_was_left_out_of_an_approved_plan_is_carried_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setitem(settings.LOCKSTEP, "LEDGER_ROWS_LIMIT", limit)
    pair = cursor_pair(tmp_path)
    pair.add_customers(3)
    run = pair.run(asks_approval=True)
    first = min(change.pk for change in run_changes(run.pk, limit=10))
    approve_run(run, actor=None, selection=ChangeSelection(ids=(first,)))
    run = work_until_finished(run)
    assert (run.inserted, run.skipped) == (1, 2), lines(run)
    assert {left for left, _ in carried_keys(Run(rule=pair.rule))} == {'["2"]', '["3"]'}
    part = run.partitions.get(kind="records")
    refused = RefusedRecords(part.pk)
    assert list(refused.blocked([left_half(n) for n in (1, 2, 3)])) == [2, 3]


def test_what_depends_on_refused_changes_is_told_without_asking_the_database(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    refused = RefusedRecords(uuid4())
    with django_assert_num_queries(0):
        for start in range(0, 100, 10):
            batch = [right_half(n) for n in range(start, start + 10)]
            assert refused.blocked(batch) == {}
            refused.add(batch, {start, start + 1})
        batch = [left_half(n) for n in range(100)]
        assert list(refused.blocked(batch)) == [n for n in range(100) if n % 10 < 2]


def test_only_what_takes_the_other_half_for_granted_waits() -> None:
    refused = RefusedRecords(uuid4())
    insert = right_half(1, operation="insert")
    update = right_half(2)
    refused.add([insert, update], {1, 2})
    plain = [left_half(1, cause="changed"), left_half(2, cause="changed"), left_half(2)]
    assert [refused.blocked([change]) != {} for change in plain] == [True, False, True]


def right_half(number: int, operation: str = "update") -> PlannedChange:
    return half(number, operation, "right", "merged")


def left_half(number: int, cause: str = "merged") -> PlannedChange:
    return half(number, "update", "left", cause)


def half(number: int, operation: str, side: str, cause: str) -> PlannedChange:
    key = f'["{number}"]'
    return PlannedChange(
        number, operation, key, key, key, ("name",), "{}", "{}", "", side, "", "", cause
    )
