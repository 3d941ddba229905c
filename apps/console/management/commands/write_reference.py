"""`manage.py write_reference`: the pages of docs/reference that follow from the code."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from apps.console import reference


class Command(BaseCommand):
    help = "Write the reference pages that follow from the code."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="only fail where a page is out of date"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["check"]:
            stale = reference.stale()
            if stale:
                raise CommandError(f"Out of date, run write_reference: {', '.join(stale)}")
            return
        for name in reference.write():
            self.stdout.write(f"docs/reference/{name}")
