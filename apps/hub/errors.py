"""What the hub refuses, by what to do about it."""

from __future__ import annotations

from apps.connectors.errors import Action, ConfigurationError, LockstepError, RecordError


class SchemaRefused(ConfigurationError):
    """A JSON Schema that a hub dataset cannot have."""

    code = "hub.schema_refused"
    default_remedy = "Use the keywords that the reference of the sync protocol lists."


class BreakingChange(ConfigurationError):
    """A change of the schema that clients with the older one could not live with."""

    code = "hub.schema_breaking"
    default_remedy = "Say that it may break; clients with an older schema then get 426."


class SchemaOutdated(LockstepError):
    """The client knows the dataset only as it was before a breaking change."""

    code = "hub.schema_outdated"
    action = Action.ASK
    default_remedy = "Keep the unsent edits, update the app, then sync again."


class TokenExpired(LockstepError):
    """The token is from before what the hub still remembers."""

    code = "hub.token_expired"
    action = Action.ASK
    default_remedy = (
        "Push the unsent edits, then pull without `since`: the pages make a new copy; when "
        "`has_more` is false, drop the records that did not come."
    )


class OutOfOrder(LockstepError):
    """Mutations are numbered without a gap, and one before these did not arrive."""

    code = "hub.out_of_order"
    action = Action.ASK
    default_remedy = "Send the mutations again from the number that the message names."


class ReplicaRevoked(LockstepError):
    """Somebody has taken this replica's access back."""

    code = "hub.replica_revoked"
    action = Action.ASK
    default_remedy = "Remove the local copy; ask an administrator, then register as a new replica."


class MutationRefused(RecordError):
    """One mutation that cannot be applied; the others go on. field: which one is wrong."""

    code = "hub.mutation_refused"
    default_remedy = "Take the record as the answer has it, and correct the edit."

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class PushConflict(RecordError):
    """Two have changed a field whose policy is to ask."""

    code = "hub.conflict"
    action = Action.ASK
    default_remedy = "Take the record as the answer has it; somebody decides on the value aside."


class DecisionClosed(LockstepError):
    """An edit that was set aside is decided already, or its record is forgotten."""

    code = "hub.decision_closed"
    action = Action.ASK
    default_remedy = "Nothing: look at the record as it is."


class TicketRefused(LockstepError):
    """The ticket was used, has expired, or never was."""

    code = "hub.ticket_refused"
    action = Action.ASK
    default_remedy = "Ask for a new ticket."
