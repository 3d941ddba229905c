"""Errors of runs, by what to do about them."""

from __future__ import annotations

from apps.connectors.errors import Action, ConfigurationError, LockstepError


class RunRefused(ConfigurationError):
    """A run cannot be started now."""

    code = "run.refused"
    default_remedy = "Wait for the run that is going on, or resume what is paused."


class OtherDatasets(ConfigurationError):
    """A mapping leads to other datasets than those that plan or links are about."""

    code = "run.other_datasets"
    default_remedy = "Set the mapping back, and make a new mapping and rule for the other datasets."


class NotWaiting(RunRefused):
    """Somebody wants to decide about a plan that does not wait for a decision."""

    code = "run.not_waiting"
    default_remedy = "Look at the run: it has been decided, cancelled, or has expired."


class RunCancelled(LockstepError):
    code = "run.cancelled"
    action = Action.ASK
    default_remedy = "Start the rule again when you want; what was written stays written."


class PartitionFailed(LockstepError):
    """A partition ended with an error that does not pass by itself."""

    code = "run.partition_failed"
    action = Action.ASK
    default_remedy = "Look at the partition's error on the run's page."


class NothingUsable(ConfigurationError):
    """Records were read and not one of them could be used."""

    code = "run.nothing_usable"
    default_remedy = "Look at the rejections: they share a cause. Correct it and run again."


class Unexpected(LockstepError):
    """An error that nobody foresaw."""

    code = "internal"
    action = Action.BUG
