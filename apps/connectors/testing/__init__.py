"""The conformance suite: what every connector must do, as tests that any connector can run.

A package that adds a connector subclasses `Harness` and `ConformanceSuite` in its own tests:

    class TestOurs(ConformanceSuite):
        @pytest.fixture
        def harness(self, tmp_path):
            return OurHarness(...)

Tests that need a capability the connector does not declare are skipped.
"""

from __future__ import annotations

from apps.connectors.testing.assigning import AssignedKeyBehaviour
from apps.connectors.testing.exchanging import ExchangeBehaviour
from apps.connectors.testing.harness import (
    ALREADY,
    APPLIED,
    ID,
    IN_DOUBT,
    NOT_CLAIMED,
    REJECTED,
    SAMPLES,
    STALE,
    Harness,
    do_nothing,
    field,
    needs,
    open_session,
    people,
    read_all,
    read_with_rejections,
    same,
    statuses,
)
from apps.connectors.testing.loading import LoadingBehaviour
from apps.connectors.testing.reading import ReadingBehaviour
from apps.connectors.testing.referring import ReferenceBehaviour
from apps.connectors.testing.returning import ReturningBehaviour
from apps.connectors.testing.type_matrix import TypeMatrix
from apps.connectors.testing.writing import WritingBehaviour

__all__ = [
    "ALREADY",
    "APPLIED",
    "ID",
    "IN_DOUBT",
    "NOT_CLAIMED",
    "REJECTED",
    "SAMPLES",
    "STALE",
    "AssignedKeyBehaviour",
    "ConformanceSuite",
    "ExchangeBehaviour",
    "Harness",
    "LoadingBehaviour",
    "ReadingBehaviour",
    "ReferenceBehaviour",
    "ReturningBehaviour",
    "TypeMatrix",
    "WritingBehaviour",
    "do_nothing",
    "field",
    "needs",
    "open_session",
    "people",
    "read_all",
    "read_with_rejections",
    "same",
    "statuses",
]


class ConformanceSuite(
    TypeMatrix,
    ReadingBehaviour,
    WritingBehaviour,
    ReturningBehaviour,
    AssignedKeyBehaviour,
    ReferenceBehaviour,
    ExchangeBehaviour,
    LoadingBehaviour,
):
    """All of it. A subclass defines the fixture `harness`."""
