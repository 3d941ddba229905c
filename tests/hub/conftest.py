"""A rule between two platforms that have nothing to do with the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from apps.hub.models import HostedDataset
from tests.hub_world import hosted
from tests.people import administrator
from tests.platforms import PLAIN_FIELDS, Pair
from tests.programs import Program, program


@pytest.fixture
def pair(db: None, tmp_path: Path) -> Pair:
    return Pair(tmp_path, fields=PLAIN_FIELDS)


@pytest.fixture
def tasks(db: None) -> HostedDataset:
    return hosted()


@pytest.fixture
def root(tasks: HostedDataset) -> Program:
    """An administrator's program, once there is a dataset."""
    return program(administrator())
