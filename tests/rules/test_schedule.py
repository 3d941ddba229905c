"""Due times: zones, daylight saving, wrong input."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest

from apps.connectors.errors import ConfigurationError
from apps.rules.models import Rule
from apps.rules.schedule import next_due, validate_schedule

NOON = datetime(2026, 3, 28, 12, 0, tzinfo=UTC)


def rule(**facts: Any) -> Rule:
    return Rule(name="r", **facts)


def test_every_counts_from_the_moment_it_was_enabled() -> None:
    every = rule(
        schedule_kind="every", every_minutes=10, schedule_since=NOON - timedelta(minutes=3)
    )
    minutes = [int((due - NOON).total_seconds() / 60) for due in next_due(every, NOON, 3)]
    assert minutes == [7, 17, 27]


def test_daily_follows_the_wall_clock_over_a_spring_night() -> None:
    daily = rule(schedule_kind="daily", daily_at=time(6, 0), time_zone="Europe/Berlin")
    hours = [due.astimezone(UTC).hour for due in next_due(daily, NOON - timedelta(days=1), 3)]
    assert hours == [5, 4, 4]


def test_a_time_that_a_spring_night_skips_is_not_lost() -> None:
    daily = rule(schedule_kind="daily", daily_at=time(2, 30), time_zone="Europe/Berlin")
    first, second = next_due(daily, NOON, 2)
    assert first.astimezone(UTC).date() == datetime(2026, 3, 29, tzinfo=UTC).date()
    assert second.astimezone(UTC).date() == datetime(2026, 3, 30, tzinfo=UTC).date()


def test_a_time_that_an_autumn_night_repeats_comes_once() -> None:
    daily = rule(schedule_kind="daily", daily_at=time(2, 30), time_zone="Europe/Berlin")
    evening = datetime(2026, 10, 24, 18, 0, tzinfo=UTC)
    days = [due.date().day for due in next_due(daily, evening, 3)]
    assert days == [25, 26, 27]


def test_cron() -> None:
    monday = rule(schedule_kind="cron", cron="15 6 * * 1", time_zone="America/New_York")
    (due,) = next_due(monday, NOON, 1)
    assert due.astimezone(UTC) == datetime(2026, 3, 30, 10, 15, tzinfo=UTC)


def test_manual_is_never_due() -> None:
    assert next_due(rule(), NOON) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"time_zone": "Europe/Nowhere"}, "no time zone"),
        ({"time_zone": "../etc/passwd"}, "no time zone"),
        ({"schedule_kind": "every"}, "how many minutes"),
        ({"schedule_kind": "daily"}, "at what time"),
        ({"schedule_kind": "cron", "cron": "61 * * * *"}, "no cron expression"),
        ({"schedule_kind": "cron", "cron": ""}, "no cron expression"),
        ({"schedule_kind": "cron", "cron": "*/5 * * * * *"}, "not five fields"),
        ({"schedule_kind": "every", "every_minutes": 99_999_999_999}, "more than a year"),
        ({"schedule_kind": "daily", "daily_at": time(6, 0, 30)}, "counts in minutes"),
    ],
)
def test_wrong_schedules_say_what_is_wrong(facts: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        validate_schedule(rule(**facts))
