"""When a rule is due: pure reckoning over its schedule fields and time zone."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from apps.connectors.errors import ConfigurationError
from apps.rules.models import Rule

MOST_MINUTES = 366 * 24 * 60
"""Of a rule that runs every so many minutes."""


def cron_problem(cron: str) -> str:
    """What is wrong with a cron expression; empty where nothing is."""
    if len(cron.split()) != 5:  # a sixth field would be seconds
        return f"'{cron}' is no cron expression: it has not five fields"
    try:
        CronSim(cron, datetime.now(UTC))
    except CronSimError as error:
        return f"'{cron}' is no cron expression: {error}"
    return ""


def validate_schedule(rule: Rule) -> None:
    """Raises ConfigurationError that says what is missing or wrong."""
    try:
        ZoneInfo(rule.time_zone)
    except (KeyError, ValueError, OSError):
        raise ConfigurationError(
            f"'{rule.time_zone}' is no time zone", where="time zone", remedy="Use Europe/Berlin."
        ) from None
    kind = rule.schedule_kind
    if kind == Rule.ScheduleKind.EVERY and not rule.every_minutes:
        raise ConfigurationError("say how many minutes", where="schedule")
    if kind == Rule.ScheduleKind.EVERY and (rule.every_minutes or 0) > MOST_MINUTES:
        raise ConfigurationError(
            "more than a year lies between two runs", where="schedule", remedy="Use cron."
        )
    if kind == Rule.ScheduleKind.DAILY and rule.daily_at is None:
        raise ConfigurationError("say at what time", where="schedule")
    if kind == Rule.ScheduleKind.DAILY and rule.daily_at.replace(second=0, microsecond=0) != (
        rule.daily_at
    ):
        raise ConfigurationError("a schedule counts in minutes", where="schedule")
    if kind == Rule.ScheduleKind.CRON:
        problem = cron_problem(rule.cron)
        if problem:
            raise ConfigurationError(
                problem,
                where="schedule",
                remedy="Five fields: minute hour day month weekday, such as 0 6 * * 1.",
            )


def due_times(rule: Rule, after: datetime) -> Iterator[datetime]:
    """Instants later than `after` at which the rule is due, ascending, without end.

    `daily` and `cron` follow the wall clock of the rule's zone: a time that a spring night skips
    comes right after the gap, one that an autumn night repeats comes once.
    """
    zone = ZoneInfo(rule.time_zone)
    match rule.schedule_kind:
        case Rule.ScheduleKind.EVERY:
            return _every(rule, after)
        case Rule.ScheduleKind.DAILY if rule.daily_at is not None:
            cron = f"{rule.daily_at.minute} {rule.daily_at.hour} * * *"
            return iter(CronSim(cron, after.astimezone(zone)))
        case Rule.ScheduleKind.CRON:
            return iter(CronSim(rule.cron, after.astimezone(zone)))
    return iter(())


def _every(rule: Rule, after: datetime) -> Iterator[datetime]:
    step = timedelta(minutes=rule.every_minutes or 1)
    start = rule.schedule_since or after
    due = start + step * max(0, (after - start) // step)
    while True:
        if due > after:
            yield due
        due += step


def next_due(rule: Rule, after: datetime, count: int = 5) -> list[datetime]:
    """The next `count` due times."""
    return list(islice(due_times(rule, after), count))
