"""`manage.py lockstep VERB`: one module per group of verbs, imported when its verb is used.

Each verb is a function of its arguments and an `Output`, and returns an exit code:
0 done, 1 failed or refused, 2 wrong usage, 3 done with rejections, or waiting
for approval.
"""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module

from django.db import DatabaseError, OperationalError, ProgrammingError, connection
from django.db.migrations.executor import MigrationExecutor

from apps.audit.origin import acting_from, command_origin
from apps.connectors.errors import ConfigurationError, LockstepError
from apps.console.command_line.output import FAILED, Output


def execute(arguments: Namespace, output: Output) -> int:
    """Run the verb that was parsed; errors that Lockstep raises on purpose become one line."""
    with acting_from(command_origin(f"lockstep {arguments.verb.partition(':')[2]}")):
        return _execute(arguments, output)


def _execute(arguments: Namespace, output: Output) -> int:
    module, _, function = arguments.verb.partition(":")
    verb = getattr(import_module(f"apps.console.command_line.{module}"), function)
    try:
        return int(verb(arguments, output))
    except LockstepError as error:
        output.error(error)
        return int(getattr(error, "exit_code", FAILED))
    except (OperationalError, ProgrammingError):
        known = _of_the_own_database()
        if known is None:
            raise
        output.error(known)
        return FAILED


def _of_the_own_database() -> LockstepError | None:
    """Why the platform's own database cannot answer; None where nothing is known to be wrong."""
    try:
        executor = MigrationExecutor(connection)
        pending = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        return ConfigurationError(
            "Lockstep's own database does not answer",
            remedy="Check DATABASE_URL, and that the server runs.",
        )
    if not pending:
        return None
    return ConfigurationError(
        "Lockstep's own database is of another version",
        remedy="Run `manage.py migrate`, or `make run`, which does so at its start.",
    )


__all__ = ["Output", "execute"]
