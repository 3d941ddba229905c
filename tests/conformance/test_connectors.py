"""Every connector against every neutral type and every promise of the interface."""

from __future__ import annotations

from apps.connectors.testing import ConformanceSuite


class TestConnectors(ConformanceSuite):
    """Each connector keeps its word."""
