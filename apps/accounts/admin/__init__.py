"""The faces of people, programs, roles, and what was granted to them."""

from apps.accounts.admin.access import AccessPages
from apps.accounts.admin.people import PersonAdmin, RoleAdmin
from apps.accounts.admin.service_accounts import ServiceAccountAdmin

__all__ = ["AccessPages", "PersonAdmin", "RoleAdmin", "ServiceAccountAdmin"]
