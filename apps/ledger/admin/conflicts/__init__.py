"""The conflict inbox: records that wait for a person, three-way, by keyboard or in bulk."""

from apps.ledger.admin.conflicts.pages import ConflictAdmin

__all__ = ["ConflictAdmin"]
