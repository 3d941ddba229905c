"""A rule between two platforms that have nothing to do with the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.platforms import PLAIN_FIELDS, Pair


@pytest.fixture
def pair(db: None, tmp_path: Path) -> Pair:
    return Pair(tmp_path, fields=PLAIN_FIELDS)
