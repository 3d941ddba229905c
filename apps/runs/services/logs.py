"""The run's log: lines are visible as soon as they are written."""

from __future__ import annotations

import logging

from apps.runs.models import Run, RunLog

logger = logging.getLogger("lockstep.runs")


def log(
    run: Run, message: str, *, level: RunLog.Level = RunLog.Level.INFO, partition: int | None = None
) -> None:
    """Append a line; never with a secret or a record's value in it."""
    RunLog.objects.create(run=run, message=message, level=level, partition_number=partition)
    logger.info("run %s %s: %s", run.pk, level, message)
