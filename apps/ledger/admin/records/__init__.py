"""The record time machine: a record's life across all systems, and the way back."""

from apps.ledger.admin.records.pages import RecordPages

__all__ = ["RecordPages"]
