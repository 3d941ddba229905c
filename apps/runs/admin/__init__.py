"""Pages about runs: the list, the run itself while it goes on, what it changed, its undo."""

from apps.runs.admin.restore_request import RestoreRequestAdmin
from apps.runs.admin.run import RunAdmin

__all__ = ["RestoreRequestAdmin", "RunAdmin"]
