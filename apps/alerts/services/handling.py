"""What people do with an incident."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from django.db import transaction

from apps.alerts.models import Incident, IncidentEvent, IncidentState
from apps.alerts.selectors import incidents
from apps.alerts.services.errors import IncidentClosed
from apps.alerts.services.escalating import drop_unsent, tell_of_recovery
from apps.alerts.services.timeline import note
from apps.audit.actions import Act
from apps.audit.services import record
from apps.core.clock import now
from apps.core.selectors import require

if TYPE_CHECKING:
    from apps.accounts.models import User


@transaction.atomic
def acknowledge(incident: Incident, *, actor: User | None, text: str = "") -> None:
    """Somebody takes it up: nobody else is told. Raises IncidentClosed."""
    taken = _taken(incident, actor)
    taken.state = IncidentState.ACKNOWLEDGED
    taken.acknowledged_at, taken.acknowledged_by = now(), actor
    taken.snoozed_until = taken.snoozed_size = taken.next_step_at = None
    taken.save()
    drop_unsent(taken)
    note(taken, IncidentEvent.Kind.ACKNOWLEDGED, text, actor=actor)
    record(Act.INCIDENT_ACKNOWLEDGED, taken, actor=actor, reason=text)


@transaction.atomic
def snooze(
    incident: Incident, *, actor: User | None, hours: int | None = None, text: str = ""
) -> None:
    """Be still until it gets worse (twice as much, or more severe), or the hours are over."""
    taken = _taken(incident, actor)
    taken.state = IncidentState.SNOOZED
    taken.snoozed_until = now() + timedelta(hours=hours) if hours else None
    taken.snoozed_size, taken.next_step_at = taken.size, None
    taken.save()
    drop_unsent(taken)
    until = f"{hours} hours, or until it gets worse" if hours else "until it gets worse"
    note(taken, IncidentEvent.Kind.SNOOZED, f"{until}. {text}".strip(), actor=actor)
    record(Act.INCIDENT_SNOOZED, taken, actor=actor, reason=text, details={"hours": hours})


@transaction.atomic
def resolve(incident: Incident, *, actor: User | None, cause: str, fix: str) -> None:
    """It is done. cause, fix: what it was and what helped, shown to whom it happens again.

    The problem may still be seen (a failed run stays the last one until the next); it opens the
    incident again only when it happens anew. Raises IncidentClosed.
    """
    taken = _taken(incident, actor)
    taken.state = IncidentState.RESOLVED
    taken.resolved_at, taken.resolved_by = now(), actor
    taken.found_cause, taken.fix = cause.strip()[:500], fix.strip()[:500]
    taken.next_step_at = None
    taken.save()
    note(taken, IncidentEvent.Kind.RESOLVED, taken.fix, actor=actor)
    tell_of_recovery(taken)
    record(Act.INCIDENT_RESOLVED, taken, actor=actor, reason=taken.fix)


@transaction.atomic
def comment(incident: Incident, *, actor: User | None, text: str) -> None:
    """Add a line to the timeline, also when it is over."""
    require(actor, incidents, "handle", incident)
    if text.strip():
        note(incident, IncidentEvent.Kind.COMMENT, text.strip(), actor=actor)


def _taken(incident: Incident, actor: User | None) -> Incident:
    require(actor, incidents, "handle", incident)
    found = Incident.objects.select_for_update().get(pk=incident.pk)
    if not found.is_live:
        raise IncidentClosed("this incident is over already")
    return found
