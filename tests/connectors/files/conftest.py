"""A source of files in a temporary folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from apps.connectors.files import FilesConnector, FilesSettings

Connect = Callable[..., FilesConnector]


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    """A connector to the temporary folder, with these settings."""
    return lambda **settings: FilesConnector(FilesSettings(folder=str(tmp_path), **settings))
