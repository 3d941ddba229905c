"""Reads of this room."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.db.models import QuerySet, Sum

from apps.core.models import DataKey
from apps.core.selectors import scoped, without_grants
from apps.encryption.models import Proof, Rotation

if TYPE_CHECKING:
    from apps.accounts.models import User


without_grants(DataKey)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a rotation is, in values."""

    total: int
    rewritten: int
    unreadable: int

    @property
    def percent(self) -> int:
        """What was written meanwhile counts as well, so it stays below 100 until the end."""
        return min(99, self.rewritten * 100 // self.total) if self.total else 99


def data_keys(actor: User | None, action: str = "view") -> QuerySet[DataKey]:
    return scoped(DataKey.objects.all(), actor, action)


def last_rotation() -> Rotation | None:
    return Rotation.objects.select_related("key").first()


def progress_of(rotation: Rotation) -> Progress:
    sums = rotation.columns.aggregate(
        total=Sum("total"), rewritten=Sum("rewritten"), unreadable=Sum("unreadable")
    )
    return Progress(sums["total"] or 0, sums["rewritten"] or 0, sums["unreadable"] or 0)


def last_proof() -> Proof | None:
    return Proof.objects.order_by("-id").first()
