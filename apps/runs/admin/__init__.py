"""Pages about runs: the list, the run itself while it goes on, what it changed."""

from apps.runs.admin.run import RunAdmin

__all__ = ["RunAdmin"]
