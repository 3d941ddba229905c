"""Writes of the audit log: recording, sealing, verifying, and keeping filters.

`recording` adds events, `sealing` fixes them in batches, `checkpoints` tells the seals to a file,
`verifying` looks whether everything is as it was written.
"""

from apps.audit.services.checkpoints import checkpoint_file
from apps.audit.services.exporting import begin_export
from apps.audit.services.findings import Finding, Kind, Report
from apps.audit.services.recording import (
    STRANGER,
    Stranger,
    Subject,
    name_digest,
    record,
    record_refusal,
)
from apps.audit.services.saved_filters import forget_filter, save_filter
from apps.audit.services.saving import saving
from apps.audit.services.sealing import seal_pending
from apps.audit.services.verifying import verify

__all__ = [
    "STRANGER",
    "Finding",
    "Kind",
    "Report",
    "Stranger",
    "Subject",
    "begin_export",
    "checkpoint_file",
    "forget_filter",
    "name_digest",
    "record",
    "record_refusal",
    "save_filter",
    "saving",
    "seal_pending",
    "verify",
]
