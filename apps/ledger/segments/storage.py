"""Where the contents of segments lie: in the platform's own database, and so committed with it.

An object store can take their place: it needs these three functions, and has to put before the
manifest's transaction commits and to remove after it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from apps.core.protected import seal_large, unseal_large
from apps.ledger.models import Segment, SegmentContent


class SegmentStorage(Protocol):
    """Keeps sealed contents by segment."""

    def put(self, segment: Segment, plain: bytes) -> int:
        """Seal and keep; returns the bytes taken."""

    def get(self, segment: Segment) -> bytes:
        """The content in clear. Raises ProtectedValueError."""

    def remove(self, segment_ids: Collection[int]) -> None:
        """Forget contents and their keys."""


class DatabaseStorage:
    """Contents as rows of the platform's database."""

    def put(self, segment: Segment, plain: bytes) -> int:
        sealed_key, content = seal_large(plain, _identity(segment))
        SegmentContent.objects.create(segment=segment, sealed_key=sealed_key, content=content)
        return len(content)

    def get(self, segment: Segment) -> bytes:
        row = SegmentContent.objects.get(pk=segment.pk)
        return unseal_large(row.sealed_key, row.content, _identity(segment))

    def remove(self, segment_ids: Collection[int]) -> None:
        SegmentContent.objects.filter(pk__in=segment_ids).delete()


def _identity(segment: Segment) -> str:
    return f"segment|{segment.identity}"


def storage() -> SegmentStorage:
    """The storage that this platform uses."""
    return DatabaseStorage()
