"""Whose work a row of the ledger is."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class WorkIdentity:
    """Which run, partition and rule a row belongs to."""

    rule_id: UUID
    run_id: UUID
    partition_id: UUID
