"""Error classes, by what to do about them.

They stand on the ground floor because connectors and the engine raise them; every room above
uses the same ones. A code is stable: documentation, rejections and (later) incidents refer to it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Action(StrEnum):
    """What helps against an error."""

    RETRY = "retry"
    FIX_CONFIGURATION = "fix_configuration"
    FIX_RECORD = "fix_record"
    ASK = "ask"
    BUG = "bug"


class LockstepError(Exception):
    """Base of every error that Lockstep raises on purpose.

    `message` says what happened, `where` names the place (a source, a field, a line), `remedy`
    says what to do. None of them ever holds a secret or the value of a personal field.
    """

    code: ClassVar[str] = "internal"
    action: ClassVar[Action] = Action.BUG
    default_remedy: ClassVar[str] = "Report this with the run's log: it is a fault of Lockstep."

    def __init__(self, message: str, *, where: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.remedy = remedy or self.default_remedy

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.where, self.remedy))


def _rebuild(cls: type[LockstepError], message: str, where: str, remedy: str) -> LockstepError:
    return cls(message, where=where, remedy=remedy)


# Retry later.


class Unreachable(LockstepError):
    code = "source.unreachable"
    action = Action.RETRY
    default_remedy = "Check that the host name and port are right, and that the server is up."


class ConnectionLost(LockstepError):
    code = "source.connection_lost"
    action = Action.RETRY
    default_remedy = "Lockstep tries again by itself; if it keeps happening, look at the server."


class TargetBusy(LockstepError):
    """A lock, a deadlock or a statement deadline on the other side."""

    code = "source.busy"
    action = Action.RETRY
    default_remedy = "Lockstep tries again by itself; long transactions on the target delay it."


class OutOfSpace(LockstepError):
    code = "source.out_of_space"
    action = Action.RETRY
    default_remedy = "Free space where the target writes; the run continues from its checkpoint."


class SourceChanged(LockstepError):
    """Somebody wrote to the data while it was being read."""

    code = "source.changed"
    action = Action.RETRY
    default_remedy = "Lockstep tries again by itself; let whoever writes the file replace it whole."


class LeaseLost(LockstepError):
    """Another worker has taken this work over: stop at once, write nothing."""

    code = "run.lease_lost"
    action = Action.RETRY
    default_remedy = "Nothing to do: another worker continues this partition."


class SandboxDied(LockstepError):
    code = "expression.died"
    action = Action.FIX_CONFIGURATION
    default_remedy = "Simplify the expression: it used more memory or time than it may."


# Fix the configuration.


class ConfigurationError(LockstepError):
    code = "configuration.invalid"
    action = Action.FIX_CONFIGURATION
    default_remedy = "Correct the setting that the message names."


class SignInRefused(ConfigurationError):
    code = "source.sign_in_refused"
    default_remedy = "Check the user name, set the password again, and check the server's rules."


class TlsFailed(ConfigurationError):
    code = "source.tls_failed"
    default_remedy = "Check the TLS mode and the certificate authority of this source."


class PermissionRefused(ConfigurationError):
    code = "source.permission_refused"
    default_remedy = "Grant the rights that the message names to the source's user."


class DatasetMissing(ConfigurationError):
    code = "dataset.missing"
    default_remedy = "Discover the source again; create the dataset or change the mapping."


class FieldMissing(ConfigurationError):
    code = "field.missing"
    default_remedy = "Discover the source again and change the mapping, or restore the field."


class SchemaMismatch(ConfigurationError):
    code = "schema.mismatch"
    default_remedy = "Discover the source again and adapt the mapping to the types it has now."


class KeyMissing(ConfigurationError):
    code = "key.missing"
    default_remedy = "Choose match fields that identify a record on both sides."


class ExpressionRefused(ConfigurationError):
    code = "expression.refused"
    default_remedy = "Use only the functions listed in the expression reference."


class EmptySource(ConfigurationError):
    code = "guard.empty_source"
    default_remedy = (
        "Check that the source is complete. If it is meant to be empty, switch off "
        "'refuse an empty source' on the rule."
    )


class GuardStopped(ConfigurationError):
    code = "guard.stopped"
    default_remedy = "Look at the plan; raise the guard's limit on the rule if the plan is right."


# Fix the record.


class RecordError(LockstepError):
    """A record that cannot be read, converted or written. It becomes a rejection, not a failure."""

    code = "record.invalid"
    action = Action.FIX_RECORD
    default_remedy = "Correct the record at its source, or edit the rejection and replay it."


class MalformedRecord(RecordError):
    code = "record.malformed"


class MalformedFile(RecordError):
    """From here on the file cannot be split into records."""

    code = "file.malformed"
    default_remedy = "Correct the file at the place named, or export it again."
