"""A rule between two platforms, and programs that may do everything to it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.people import administrator
from tests.platforms import PLAIN_FIELDS, Pair
from tests.programs import Program, program


@pytest.fixture
def root(db: None) -> Program:
    """An administrator's program, with every scope."""
    return program(administrator())


@pytest.fixture
def pair(db: None, tmp_path: Path) -> Pair:
    pair = Pair(tmp_path, fields=PLAIN_FIELDS)
    pair.add_customers(3)
    return pair
