"""`manage.py lockstep VERB`: what the admin does, from a shell or a script."""

from __future__ import annotations

import logging
import os
import sys
from argparse import Namespace
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from apps.console.command_line.parser import add_verbs
from apps.core.collector import spare_what_is_loaded


class Command(BaseCommand):
    help = "Apply configuration, check and discover sources, plan and run rules."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        add_verbs(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        from apps.console.command_line import Output, execute

        logging.getLogger().setLevel(logging.WARNING)
        logging.getLogger("kombu").setLevel(logging.ERROR)
        spare_what_is_loaded()
        arguments = Namespace(**options)
        output = Output(self.stdout._out, self.stderr._out, as_json=arguments.as_json)
        try:
            code = execute(arguments, output)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader, such as `head`, has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        if code:
            sys.exit(code)
