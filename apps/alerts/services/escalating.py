"""Telling people, step by step, until somebody acknowledges.

What is told and to whom becomes rows first (`Delivery`); sending them is another's work. A step is
taken by moving the incident on to the next one, so that each is taken once, however many schedulers
there are. Its messages are named by the moment at which it was due: an escalation that begins anew
tells anew.

Nothing is told of a rule that somebody has paused or switched off, nor of rules that are not fresh
while everything is paused: the incident is there, and its step waits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta
from uuid import UUID
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.db import transaction
from django.db.models import Q, QuerySet

from apps.accounts.models import User
from apps.alerts.models import (
    Channel,
    Delivery,
    EscalationPolicy,
    EscalationStep,
    Incident,
    IncidentEvent,
    Kind,
    Severity,
)
from apps.alerts.selectors import Policies
from apps.alerts.services.timeline import note
from apps.core.clock import now
from apps.core.selectors import may, platform_state
from apps.rules.models import Rule

logger = logging.getLogger("lockstep.alerts")
AT_ONCE = 200
DAYS_AHEAD = 8


def begin_escalation(incident: Incident, policies: Policies) -> None:
    """From the first step on. The caller saves the incident."""
    policy = _policy(incident, policies)
    incident.next_step = incident.rounds = 0
    first = _steps(policy)[:1] if incident.severity >= policy.least_severity else []
    incident.next_step_at = None
    if first:
        due = now() + timedelta(minutes=first[0].after_minutes)
        incident.next_step_at = _in_working_hours(due, policy, incident.severity)


def escalate(moment: datetime | None = None) -> int:
    """Take the steps that are due; how many."""
    moment = moment or now()
    policies = Policies.read()
    due = _told(Incident.objects.filter(next_step_at__lte=moment, state__in=Incident.LOUD))
    taken = 0
    for pk in list(due.order_by("next_step_at").values_list("pk", flat=True)[:AT_ONCE]):
        try:
            taken += _take_step(pk, policies, moment)
        except Exception:
            logger.exception("a step of incident %s failed; the others go on", pk)
    return taken


def _told(incidents: QuerySet[Incident]) -> QuerySet[Incident]:
    """Without those that nobody is told of for now."""
    off = Q(rule__enabled=False) & ~Q(rule__schedule_kind=Rule.ScheduleKind.MANUAL)
    incidents = incidents.filter(Q(rule=None) | ~(Q(rule__paused=True) | off))
    return incidents.exclude(kind=Kind.STALE) if platform_state().paused else incidents


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
    is_over = incident.next_step > number and not policy.repeat_minutes  # steps were removed
    if is_over or number < 0 or incident.severity < policy.least_severity:
        return _wait(incident, None)
    hour = _in_working_hours(moment, policy, incident.severity)
    if hour > moment:  # nobody took it when it was due
        return _wait(incident, hour)
    round_number = f", round {incident.rounds + 1}" if incident.rounds else ""
    due = (incident.next_step_at or moment).timestamp()
    told = _tell(incident, steps[number], f"step {number + 1}{round_number} {due:.3f}")
    _go_on(incident, policy, steps, number, moment)
    whom = ", ".join(told) or "nobody: its channel is disabled, or nobody has an address"
    note(incident, IncidentEvent.Kind.ESCALATED, f"Step {number + 1}: {whom}")
    return True


def _wait(incident: Incident, until: datetime | None) -> bool:
    incident.next_step_at = until
    incident.save(update_fields=["next_step_at", "updated_at"])
    return False


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


def tell_of_recovery(incident: Incident, policies: Policies | None = None) -> None:
    """Tell those who were told of the incident that it is over, once; in working hours.

    What nobody has got is not sent any more. What was tried may have arrived.
    """
    steps = drop_unsent(incident)
    tried = steps.filter(attempts__gt=0, channel__enabled=True)
    told = set(tried.values_list("channel_id", "recipient"))
    due = _in_working_hours(
        now(), _policy(incident, policies or Policies.read()), incident.severity
    )
    for channel_id, recipient in told:
        _deliver(incident, channel_id, recipient, "over", due)


def drop_unsent(incident: Incident) -> QuerySet[Delivery]:
    """Send no more messages of its steps; gives all that there are."""
    steps = Delivery.objects.filter(incident=incident, occasion__startswith="step ")
    steps.filter(state=Delivery.State.PENDING).update(
        state=Delivery.State.DROPPED, next_attempt_at=None, updated_at=now()
    )
    return steps


def _tell(incident: Incident, step: EscalationStep, occasion: str) -> list[str]:
    """Make the messages of a step; to whom, as the timeline says it."""
    channel = step.channel
    if not channel.enabled:
        return []
    if channel.kind != Channel.Kind.MAIL:
        _deliver(incident, channel.pk, "", occasion)
        return [channel.name]
    people = _people(step, incident)
    for person in people:
        _deliver(incident, channel.pk, person.email, occasion)
    return [str(person) for person in people]


def _people(step: EscalationStep, incident: Incident) -> list[User]:
    """Who gets the mail of a step: active people with an address, each once.

    Of a role only those who may see the incident; who is named is meant.
    """
    named = step.people.filter(is_active=True).exclude(email="")
    by_role = User.objects.filter(groups__in=step.groups.all(), is_active=True).exclude(email="")
    reached = [person for person in by_role.distinct() if may(person, "view", incident)]
    return list({person.pk: person for person in (*named, *reached)}.values())


def _deliver(
    incident: Incident,
    channel_id: UUID,
    recipient: str,
    occasion: str,
    due: datetime | None = None,
) -> None:
    Delivery.objects.get_or_create(
        incident=incident,
        channel_id=channel_id,
        recipient=recipient,
        occasion=occasion,
        defaults={"next_attempt_at": due or now()},
    )


def _policy(incident: Incident, policies: Policies) -> EscalationPolicy:
    return policies.of_id(incident.rule_id or incident.source_id)


def _steps(policy: EscalationPolicy) -> list[EscalationStep]:
    return list(policy.steps.select_related("channel")) if not policy._state.adding else []


def _in_working_hours(due: datetime, policy: EscalationPolicy, severity: int) -> datetime:
    """The same moment where somebody is to be told then, else the next working hour's beginning.

    Hours that end before they begin go on over night: they are those of the day they begin on.
    Moments are compared in UTC, so that hours which a change of clocks brings twice count twice.
    """
    if severity >= Severity.CRITICAL:
        return due
    try:
        zone = ZoneInfo(policy.time_zone)
    except (ZoneInfoNotFoundError, ValueError):
        logger.warning("escalation policy %s has no such time zone", policy.pk)
        return due
    for opens, closes in _working_hours(due.astimezone(zone).date(), zone, policy):
        if due < closes:
            return max(due, opens)
    return due


def _working_hours(
    today: date, zone: ZoneInfo, policy: EscalationPolicy
) -> Iterable[tuple[datetime, datetime]]:
    """Beginnings and ends, in UTC, from yesterday's on."""
    begin, end = policy.work_from or time.min, policy.work_until
    for ahead in range(-1, DAYS_AHEAD):
        day = today + timedelta(days=ahead)
        if str(day.isoweekday()) not in policy.work_days:
            continue
        last = day if end is not None and end > begin else day + timedelta(days=1)
        opens = datetime.combine(day, begin, zone)
        closes = datetime.combine(last, end or time.min, zone)
        yield opens.astimezone(UTC), closes.astimezone(UTC)
