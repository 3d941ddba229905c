"""`manage.py first_sync`: run the demo's rules for the first time. `up` starts it."""

from __future__ import annotations

import logging
from typing import Any

from django.core.management.base import BaseCommand

from apps.console import services
from apps.runs.models import Run


class Command(BaseCommand):
    help = "Run the rules of the demo that have not run yet."

    def handle(self, *args: Any, **options: Any) -> None:
        """A line per run: their logs, which are on their pages, would push the address away."""
        logging.getLogger("lockstep.runs").setLevel(logging.WARNING)
        services.run_demo_once(self._tell)
        self.stdout.write("The first syncs are done: look at Runs")

    def _tell(self, run: Run) -> None:
        counts = {
            "written": run.written,
            "rejected": run.rejected,
            "conflicts": run.conflicts,
        }
        told = ", ".join(f"{number:,} {word}" for word, number in counts.items() if number)
        status = run.get_status_display().lower()
        self.stdout.write(f"{run.rule}: {status}{', ' if told else ''}{told}")
