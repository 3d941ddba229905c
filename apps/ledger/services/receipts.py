"""Receipts: what a batch of writes came to, noted before its commit.

The note is on our side and the commit on the target's, so a crash between them leaves a receipt of
a batch that was taken back. The other way round nothing is ever written without one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple
from datetime import datetime

from apps.core.protected import seal_json
from apps.ledger.models import Receipt
from apps.ledger.services.links import NOTHING_STORED, Stored
from apps.ledger.services.work import WorkIdentity


def keep_receipt(work: WorkIdentity, written: Mapping[int, Stored], transaction: str) -> None:
    """Note what these changes, by sequence, came to. Wrap it in the lease's transaction.

    transaction: what the target knows theirs by; empty where it cannot say.
    """
    parts = {
        str(sequence): [] if back == NOTHING_STORED else list(astuple(back))
        for sequence, back in written.items()
    }
    content = {"transaction": transaction, "written": parts}
    sealed = seal_json(content, Receipt.identity(work.partition_id))
    Receipt.objects.create(rule_id=work.rule_id, partition_id=work.partition_id, sealed=sealed)


def forget_receipts(work: WorkIdentity) -> None:
    """The partition's batches are settled."""
    Receipt.objects.filter(partition_id=work.partition_id).delete()


def expire_receipts(before: datetime) -> int:
    """Remove what was noted before a time: nobody settles these any more. Returns how many."""
    return Receipt.objects.filter(noted_at__lt=before).delete()[0]
