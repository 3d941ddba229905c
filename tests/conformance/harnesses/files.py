"""CSV files under the conformance suite, and what the other formats share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apps.connectors import types as neutral
from apps.connectors.base import DatasetSchema
from apps.connectors.files import FilesConnector, FilesSettings
from apps.connectors.testing import Harness
from apps.connectors.types import NeutralType

MARKS: tuple[Any, ...] = ()


class FilesHarness(Harness):
    """Datasets are files of one format. A field is dropped by writing the file without it."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.suffix = suffix
        self.folder = folder
        super().__init__(FilesConnector(FilesSettings(folder=str(folder))))

    def new_name(self) -> str:
        return super().new_name() + self.suffix

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        kept = tuple(f for f in dataset.fields if f.name != field)
        (self.folder / dataset.name).unlink()
        self.connector.create_dataset(DatasetSchema(dataset.name, kept, dataset.key))

    def samples(self, kind: NeutralType) -> Sequence[Any]:
        values = super().samples(kind)
        if self.suffix.startswith((".json", ".jsonl")) and kind == neutral.JSON:
            return [value for value in values if value != "null"]  # is NULL there
        return values


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    yield FilesHarness(folder, ".csv")
