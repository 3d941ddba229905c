"""`manage.py first_sync`: run the demo's rules for the first time. `up` starts it."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from apps.console import services


class Command(BaseCommand):
    help = "Run the rules of the demo that have not run yet."

    def handle(self, *args: Any, **options: Any) -> None:
        services.run_demo_once()
