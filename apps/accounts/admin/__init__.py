"""The faces of people, roles, and what was granted to them."""

from apps.accounts.admin.access import AccessPages
from apps.accounts.admin.people import PersonAdmin, RoleAdmin

__all__ = ["AccessPages", "PersonAdmin", "RoleAdmin"]
