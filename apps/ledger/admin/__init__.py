"""Pages about record memory: changes, rejections, conflicts."""

from apps.ledger.admin.change import ChangeAdmin
from apps.ledger.admin.conflicts import ConflictAdmin
from apps.ledger.admin.rejection import RejectionAdmin

__all__ = ["ChangeAdmin", "ConflictAdmin", "RejectionAdmin"]
