"""The database, never the broker, is the truth."""

from __future__ import annotations

from datetime import time, timedelta
from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from apps.core.clock import now
from apps.core.services import set_platform_paused
from apps.rules.models import Rule
from apps.rules.services import save_rule, set_enabled
from apps.runs.models import DueRun, Partition, Run
from apps.runs.services import dispatching, request_run, start_due_runs, tick, work_until_finished
from tests.platforms import PLAIN_FIELDS, Pair

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Messages to the broker, which loses them all."""
    messages: list[str] = []

    def send_task(name: str, args: list[str]) -> None:
        messages.extend(args)

    monkeypatch.setattr(dispatching.current_app, "send_task", send_task)
    return messages


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS, facts={"schedule_kind": "every", "every_minutes": 5})
    pair.add_customers(3)
    return pair


def test_a_message_that_the_broker_lost_is_sent_again(pair: Pair, sent: list[str]) -> None:
    run = request_run(pair.rule, actor=None)
    first = str(run.partitions.get().pk)
    assert sent == [first]
    tick()
    assert sent == [first], "not yet: the first message may still be on its way"
    Partition.objects.update(dispatched_at=now() - timedelta(minutes=5))
    tick()
    assert sent == [first, first]


def test_a_dead_workers_partition_is_sent_again_once_its_lease_is_over(
    pair: Pair, sent: list[str]
) -> None:
    request_run(pair.rule, actor=None)
    long_ago = now() - timedelta(minutes=5)
    Partition.objects.update(dispatched_at=long_ago, lease_until=now() + timedelta(minutes=1))
    tick()
    assert len(sent) == 1
    Partition.objects.update(lease_until=now() - timedelta(seconds=1))
    tick()
    assert len(sent) == 2


def test_a_broker_that_is_down_delays_and_loses_nothing(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    def down(*args: Any, **options: Any) -> None:
        raise OperationalError("connection refused")

    monkeypatch.setattr(dispatching.current_app, "send_task", down)
    run = request_run(pair.rule, actor=None)
    assert work_until_finished(run).status == "succeeded"


def test_a_run_between_two_steps_is_moved_on(pair: Pair, sent: list[str]) -> None:
    """A worker died after the last partition was planned and before the run was reviewed."""
    run = request_run(pair.rule, actor=None)
    from apps.runs.services import working

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(working, "advance", lambda run_id: None)
        for _ in range(2):
            for part in run.partitions.filter(state="to_plan"):
                working.work(part.pk)
    run.refresh_from_db()
    assert run.status == "planning"
    assert not run.partitions.filter(state__in=Partition.WORKABLE).exists()
    tick()
    run.refresh_from_db()
    assert run.status == "applying"


def test_a_due_rule_starts_once_however_many_schedulers_tick(pair: Pair, sent: list[str]) -> None:
    set_enabled(pair.rule, True, actor=None)
    assert start_due_runs() == []
    later = now() + timedelta(minutes=6)
    assert len(start_due_runs(later)) == 1
    assert start_due_runs(later) == []
    assert DueRun.objects.get().run == Run.objects.get()


def test_missed_times_are_one_run(pair: Pair, sent: list[str]) -> None:
    set_enabled(pair.rule, True, actor=None)
    assert len(start_due_runs(now() + timedelta(hours=2))) == 1
    assert DueRun.objects.count() == 1


def test_another_schedule_makes_up_for_no_time_that_has_passed(pair: Pair, sent: list[str]) -> None:
    set_enabled(pair.rule, True, actor=None)
    pair.rule.schedule_since = now() - timedelta(days=3)
    pair.rule.schedule_kind = Rule.ScheduleKind.DAILY
    pair.rule.daily_at = (now() - timedelta(hours=1)).time().replace(second=0, microsecond=0)
    save_rule(pair.rule, [], actor=None)
    assert start_due_runs() == []
    assert len(start_due_runs(now() + timedelta(days=1))) == 1


def test_a_schedule_that_cannot_be_reckoned_stops_no_other_rule(
    pair: Pair, tmp_path: Path, sent: list[str]
) -> None:
    facts = {"schedule_kind": "daily", "daily_at": time(6, 0)}
    bad = Pair(tmp_path, name="a bad one", fields=PLAIN_FIELDS, facts=facts)
    for rule in (bad.rule, pair.rule):
        set_enabled(rule, True, actor=None)
    Rule.objects.filter(pk=bad.rule.pk).update(time_zone="Atlantis/Capital")  # no longer there
    later = now() + timedelta(minutes=6)
    assert [run.rule for run in start_due_runs(later)] == [pair.rule]


def test_a_due_time_while_a_run_goes_on_is_skipped_and_says_why(
    pair: Pair, sent: list[str]
) -> None:
    set_enabled(pair.rule, True, actor=None)
    request_run(pair.rule, actor=None)
    assert start_due_runs(now() + timedelta(minutes=6)) == []
    assert "goes on already" in DueRun.objects.get().skipped


def test_nothing_is_due_while_everything_is_paused(pair: Pair, sent: list[str]) -> None:
    set_enabled(pair.rule, True, actor=None)
    set_platform_paused(True, actor=None)
    assert start_due_runs(now() + timedelta(minutes=6)) == []
    assert not DueRun.objects.exists()


def test_messages_carry_ids_only(pair: Pair, sent: list[str]) -> None:
    run = request_run(pair.rule, actor=None)
    assert sent == [str(run.partitions.get().pk)]


def test_a_rule_waits_for_the_rule_it_depends_on(
    pair: Pair, tmp_path: Path, sent: list[str]
) -> None:
    facts = {"schedule_kind": "every", "every_minutes": 5}
    dependent = Pair(tmp_path, name="a dependent", fields=PLAIN_FIELDS, facts=facts)
    dependent.rule.depends_on.add(pair.rule)
    set_enabled(dependent.rule, True, actor=None)
    set_enabled(pair.rule, True, actor=None)
    later = now() + timedelta(minutes=6)
    assert [run.rule for run in start_due_runs(later)] == [pair.rule]
    assert start_due_runs(later) == []
    work_until_finished(Run.objects.get())
    assert [run.rule for run in start_due_runs(later)] == [dependent.rule]
