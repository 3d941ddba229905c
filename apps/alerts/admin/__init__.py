"""The face for people."""

from apps.alerts.admin.channel import ChannelAdmin, DeliveryAdmin
from apps.alerts.admin.incident import IncidentAdmin
from apps.alerts.admin.policy import EscalationPolicyAdmin

__all__ = ["ChannelAdmin", "DeliveryAdmin", "EscalationPolicyAdmin", "IncidentAdmin"]
