"""Writes about runs.

A run's way: `requesting` queues it; `working` takes partitions under a lease (`leasing`) and does
their step: `preparing`, `planning`, `applying`, `verifying`; `advancing` moves the run from phase
to phase (`reviewing` its plan, `rounds` for what had moved meanwhile); `approving` is a person's
part; `dispatching` sends work to workers; `scheduling` starts what is due and mends what was lost.
"""

from apps.runs.services.approving import ChangeSelection, approve_run, reject_run
from apps.runs.services.requesting import cancel_run, replay_rejections, request_run
from apps.runs.services.scheduling import start_due_runs, tick
from apps.runs.services.working import work, work_until_finished

__all__ = [
    "ChangeSelection",
    "approve_run",
    "cancel_run",
    "reject_run",
    "replay_rejections",
    "request_run",
    "start_due_runs",
    "tick",
    "work",
    "work_until_finished",
]
