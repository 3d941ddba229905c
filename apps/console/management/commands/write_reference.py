"""`manage.py write_reference`: the pages of docs/reference that follow from the code."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from apps.console import reference


class Command(BaseCommand):
    help = "Write the reference pages that follow from the code."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        for name in reference.write():
            self.stdout.write(f"docs/reference/{name}")
