"""Incidents, whom they are told to, and what was sent."""

from apps.alerts.models.delivery import Channel, Delivery
from apps.alerts.models.incident import (
    Incident,
    IncidentEvent,
    IncidentState,
    Kind,
    Severity,
)
from apps.alerts.models.policy import EscalationPolicy, EscalationStep

__all__ = [
    "Channel",
    "Delivery",
    "EscalationPolicy",
    "EscalationStep",
    "Incident",
    "IncidentEvent",
    "IncidentState",
    "Kind",
    "Severity",
]
