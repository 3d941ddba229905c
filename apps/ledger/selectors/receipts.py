"""Reads of receipts: what a worker that was lost may have written."""

from __future__ import annotations

from uuid import UUID

from apps.core.protected import unseal_json
from apps.ledger.models import Receipt

Receipts = dict[int, tuple[str, tuple[str, ...]]]
"""By sequence: the target's name for the transaction (or empty), and the parts of what was stored
in the order of `services.Stored` (none: as sent)."""


def receipts_of(partition_id: UUID) -> Receipts:
    """What the partition's batches that are not settled came to; a later one takes precedence."""
    found: Receipts = {}
    for receipt in Receipt.objects.filter(partition_id=partition_id).order_by("pk"):
        content = unseal_json(receipt.sealed, Receipt.identity(partition_id))
        transaction = content["transaction"]
        found |= {
            int(seq): (transaction, tuple(parts)) for seq, parts in content["written"].items()
        }
    return found
