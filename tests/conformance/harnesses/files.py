"""CSV files under the conformance suite, and what the other formats share."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from apps.connectors import types as neutral
from apps.connectors.base import ChangeBatch, DatasetSchema, FieldSchema, Operation
from apps.connectors.files import FilesConnector, FilesSettings
from apps.connectors.testing import Harness, do_nothing, open_session
from apps.connectors.types import NeutralType

MARKS: tuple[Any, ...] = ()


class FilesHarness(Harness):
    """Datasets are files of one format. A field is dropped by writing the file without it."""

    def __init__(self, folder: Path, suffix: str) -> None:
        self.suffix = suffix
        self.folder = folder
        super().__init__(FilesConnector(FilesSettings(folder=str(folder))))

    def make(
        self, fields: Sequence[FieldSchema], key: tuple[str, ...], rows: pa.Table
    ) -> DatasetSchema:
        name = f"t_{uuid.uuid4().hex[:12]}{self.suffix}"
        self.connector.create_dataset(DatasetSchema(name=name, fields=tuple(fields), key=key))
        dataset = self.connector.describe(name)
        if rows.num_rows:
            with open_session(self.connector, dataset) as session:
                batch = ChangeBatch(Operation.INSERT, rows.select(list(key)), None, rows)
                result = session.apply(batch, do_nothing)
            if result.exceptions:
                raise AssertionError(f"the rows could not be written: {result.exceptions}")
        return dataset

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
