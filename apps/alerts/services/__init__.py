"""Writes of this room."""

from apps.alerts.services.channels import renew_secret, save_channel, test_channel
from apps.alerts.services.delivering import deliver_due
from apps.alerts.services.errors import IncidentClosed
from apps.alerts.services.escalating import escalate
from apps.alerts.services.forgetting import forget_ended
from apps.alerts.services.handling import acknowledge, comment, resolve, snooze
from apps.alerts.services.watching import watch

__all__ = [
    "IncidentClosed",
    "acknowledge",
    "comment",
    "deliver_due",
    "escalate",
    "forget_ended",
    "renew_secret",
    "resolve",
    "save_channel",
    "snooze",
    "test_channel",
    "watch",
]
