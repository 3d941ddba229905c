"""`manage.py lockstep VERB`: one module per group of verbs, imported when its verb is used.

Each verb is a function of its arguments and an `Output`, and returns an exit code:
0 done, 1 failed or refused, 2 wrong usage, 3 done with rejections, or waiting
for approval.
"""

from __future__ import annotations

from argparse import Namespace
from importlib import import_module

from apps.connectors.errors import LockstepError
from apps.console.command_line.output import FAILED, Output


def execute(arguments: Namespace, output: Output) -> int:
    """Run the verb that was parsed; errors that Lockstep raises on purpose become one line."""
    module, _, function = arguments.verb.partition(":")
    verb = getattr(import_module(f"apps.console.command_line.{module}"), function)
    try:
        return int(verb(arguments, output))
    except LockstepError as error:
        output.error(error)
        return int(getattr(error, "exit_code", FAILED))


__all__ = ["Output", "execute"]
