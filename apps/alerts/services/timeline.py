"""What happened to an incident, line by line."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apps.alerts.models import Incident, IncidentEvent
from apps.core.clock import now

if TYPE_CHECKING:
    from apps.accounts.models import User


def note(
    incident: Incident, kind: IncidentEvent.Kind, text: str = "", *, actor: User | None = None
) -> None:
    IncidentEvent.objects.create(
        incident=incident, kind=kind, text=text[:500], actor=actor, at=now()
    )
