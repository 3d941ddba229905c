"""Writes about runs.

A run's way: `requesting` queues it; `working` takes partitions under a lease (`leasing`) and does
their step: `preparing`, `planning`, `applying`, `verifying`; `advancing` moves the run from phase
to phase (`reviewing` its plan, `rounds` for what had moved or waits); `approving` is a person's
part; `dispatching` sends work to workers; `scheduling` starts what is due and mends what was lost.
"""

from apps.runs.services.approving import ChangeSelection, approve_run, reject_run
from apps.runs.services.deciding import Decided, decide_and_sync
from apps.runs.services.explaining import (
    Finding,
    Reason,
    RecordNow,
    explain_record,
    record_now,
)
from apps.runs.services.former_values import (
    follow_searchable_fields,
    keep_former_values_of_runs,
)
from apps.runs.services.repairing import propose_repair
from apps.runs.services.requesting import cancel_run, replay_rejections, request_run
from apps.runs.services.restoring import (
    apply_preview,
    approve_restore,
    decline_restore,
    plan_undo,
    request_restore,
    withdraw_restore,
)
from apps.runs.services.scheduling import start_due_runs, tick
from apps.runs.services.working import work, work_until_finished
from apps.runs.services.written import UndoScope

__all__ = [
    "ChangeSelection",
    "Decided",
    "Finding",
    "Reason",
    "RecordNow",
    "UndoScope",
    "apply_preview",
    "approve_restore",
    "approve_run",
    "cancel_run",
    "decide_and_sync",
    "decline_restore",
    "explain_record",
    "follow_searchable_fields",
    "keep_former_values_of_runs",
    "plan_undo",
    "propose_repair",
    "record_now",
    "reject_run",
    "replay_rejections",
    "request_restore",
    "request_run",
    "start_due_runs",
    "tick",
    "withdraw_restore",
    "work",
    "work_until_finished",
]
