"""What handling an incident and telling of it may meet with."""

from __future__ import annotations

from apps.connectors.errors import Action, ConfigurationError, LockstepError


class IncidentClosed(LockstepError):
    """Somebody handles an incident that is over."""

    code = "incident.closed"
    action = Action.ASK
    default_remedy = "Nothing to do: look at the incident."


class ChannelInvalid(ConfigurationError):
    code = "channel.invalid"
    default_remedy = "Correct the channel."


class NotDelivered(LockstepError):
    """A message did not arrive; it is tried again."""

    code = "channel.not_delivered"
    action = Action.RETRY
    default_remedy = "Look at the channel: its address, its server, and what that answers."
