"""Pages about record memory: changes and rejections."""

from apps.ledger.admin.change import ChangeAdmin
from apps.ledger.admin.rejection import RejectionAdmin

__all__ = ["ChangeAdmin", "RejectionAdmin"]
