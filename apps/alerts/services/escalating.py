"""Telling people, step by step, until somebody acknowledges.

What is told and to whom becomes rows first (`Delivery`); sending them is another's work. A step is
taken by moving the incident on to the next one, so that each is taken once, however many schedulers
there are.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import transaction

from apps.accounts.models import User
from apps.alerts.models import (
    Channel,
    Delivery,
    EscalationPolicy,
    EscalationStep,
    Incident,
    IncidentEvent,
    Severity,
)
from apps.alerts.selectors import Policies
from apps.alerts.services.timeline import note
from apps.core.clock import now

logger = logging.getLogger("lockstep.alerts")
AT_ONCE = 200
DAYS_AHEAD = 8


def begin_escalation(incident: Incident, policies: Policies) -> None:
    """From the first step on. The caller saves the incident, or has just inserted it."""
    policy = _policy(incident, policies)
    incident.next_step = incident.rounds = 0
    first = _steps(policy)[:1] if incident.severity >= policy.least_severity else []
    incident.next_step_at = None
    if first:
        due = now() + timedelta(minutes=first[0].after_minutes)
        incident.next_step_at = _in_working_hours(due, policy, incident.severity)
    Incident.objects.filter(pk=incident.pk).update(
        next_step=0, rounds=0, next_step_at=incident.next_step_at
    )


def escalate(moment: datetime | None = None) -> int:
    """Take the steps that are due; how many."""
    moment = moment or now()
    policies = Policies.read()
    due = Incident.objects.filter(next_step_at__lte=moment, state__in=Incident.LOUD)
    return sum(
        _take_step(pk, policies, moment)
        for pk in list(due.order_by("next_step_at").values_list("pk", flat=True)[:AT_ONCE])
    )


@transaction.atomic
def _take_step(incident_id: UUID, policies: Policies, moment: datetime) -> bool:
    rows = Incident.objects.select_for_update().filter(
        pk=incident_id, next_step_at__lte=moment, state__in=Incident.LOUD
    )
    incident = rows.first()
    if incident is None:
        return False
    policy = _policy(incident, policies)
    steps = _steps(policy)
    number = min(incident.next_step, len(steps) - 1)
    if number < 0:
        incident.next_step_at = None
        incident.save(update_fields=["next_step_at"])
        return False
    round_number = f", round {incident.rounds + 1}" if incident.rounds else ""
    began = incident.created_at.timestamp()
    told = _tell(incident, steps[number], f"step {number + 1}{round_number} {began:.0f}")
    _go_on(incident, policy, steps, number, moment)
    if told:
        note(incident, IncidentEvent.Kind.ESCALATED, f"Step {number + 1}: {', '.join(told)}")
    return True


def _go_on(
    incident: Incident,
    policy: EscalationPolicy,
    steps: list[EscalationStep],
    number: int,
    moment: datetime,
) -> None:
    """Set the time of the next step, or of the same one again where it was the last."""
    due: datetime | None = None
    if number + 1 < len(steps):
        incident.next_step = number + 1
        pause = steps[number + 1].after_minutes - steps[number].after_minutes
        due = moment + timedelta(minutes=max(pause, 0))
    elif policy.repeat_minutes:
        incident.next_step = number
        incident.rounds += 1
        due = moment + timedelta(minutes=policy.repeat_minutes)
    incident.next_step_at = _in_working_hours(due, policy, incident.severity) if due else None
    incident.save(update_fields=["next_step", "next_step_at", "rounds", "updated_at"])


def tell_of_recovery(incident: Incident) -> None:
    """Tell those who were told of the incident that it is over, once."""
    told = incident.deliveries.filter(occasion__startswith="step ")
    for channel_id, recipient in set(told.values_list("channel_id", "recipient")):
        _deliver(incident, channel_id, recipient, "over")


def _tell(incident: Incident, step: EscalationStep, occasion: str) -> list[str]:
    """Make the messages of a step; to whom, as the timeline says it."""
    channel = step.channel
    if not channel.enabled:
        return []
    if channel.kind != Channel.Kind.MAIL:
        _deliver(incident, channel.pk, "", occasion)
        return [channel.name]
    people = _people(step)
    for person in people:
        _deliver(incident, channel.pk, person.email, occasion)
    return [str(person) for person in people]


def _people(step: EscalationStep) -> list[User]:
    """Who gets the mail of a step: active people with an address, each once."""
    named = step.people.filter(is_active=True).exclude(email="")
    by_role = User.objects.filter(groups__in=step.groups.all(), is_active=True).exclude(email="")
    return list({person.pk: person for person in (*named, *by_role)}.values())


def _deliver(incident: Incident, channel_id: UUID, recipient: str, occasion: str) -> None:
    Delivery.objects.get_or_create(
        incident=incident,
        channel_id=channel_id,
        recipient=recipient,
        occasion=occasion,
        defaults={"next_attempt_at": now()},
    )


def _policy(incident: Incident, policies: Policies) -> EscalationPolicy:
    return policies.of_id(incident.rule_id or incident.source_id)


def _steps(policy: EscalationPolicy) -> list[EscalationStep]:
    return list(policy.steps.select_related("channel")) if not policy._state.adding else []


def _in_working_hours(due: datetime, policy: EscalationPolicy, severity: int) -> datetime:
    """The same moment where somebody is to be told then, else the next working hour's beginning."""
    if severity >= Severity.CRITICAL:
        return due
    try:
        zone = ZoneInfo(policy.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        logger.warning("escalation policy %s has no such time zone", policy.pk)
        return due
    local = due.astimezone(zone)
    begin, end = policy.work_from or time.min, policy.work_until or time.max
    for day in _days(local, policy.work_days):
        opens = datetime.combine(day, begin, zone)
        closes = datetime.combine(day, end, zone)
        if local < closes:
            return max(local, opens).astimezone(due.tzinfo)
    return due


def _days(local: datetime, work_days: str) -> Iterable[datetime]:
    for ahead in range(DAYS_AHEAD):
        day = local + timedelta(days=ahead)
        if str(day.isoweekday()) in work_days:
            yield day
