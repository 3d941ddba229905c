"""Telling how many histories each test has played."""

from __future__ import annotations

import pytest

from tests.invariants.playing import Played


@pytest.fixture
def played(request: pytest.FixtureRequest) -> Played:
    """What the test counts is told in the closing summary."""
    return Played(request.node.user_properties)
