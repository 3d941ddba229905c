"""JSON Lines files, compressed by gzip, under the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from apps.connectors.testing import Harness
from tests.conformance.harnesses.files import MARKS, FilesHarness

__all__ = ["MARKS", "harness"]


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    yield FilesHarness(folder, ".jsonl.gz")
