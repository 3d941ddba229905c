"""SQLite under the conformance suite."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from apps.connectors import types as neutral
from apps.connectors.base import DatasetSchema
from apps.connectors.sql_values import list_to_json
from apps.connectors.sqlite import SqliteConnector, SqliteSettings
from apps.connectors.testing import Harness
from apps.connectors.types import Kind, NeutralType

MARKS: tuple[Any, ...] = ()


class SqliteHarness(Harness):
    def __init__(self, path: Path) -> None:
        sqlite3.connect(path).close()
        path.touch()
        self.path = path
        super().__init__(SqliteConnector(SqliteSettings(path=str(path))))

    writes_circles = True

    def assign_keys(self, dataset: DatasetSchema) -> None:
        """An INTEGER PRIMARY KEY is assigned as it is."""

    def make_tree(self) -> DatasetSchema:
        name = f"tree_{uuid.uuid4().hex[:12]}"
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(
                f'CREATE TABLE "{name}" '
                f'(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES "{name}")'
            )
        return self.connector.describe(name)

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute(f'ALTER TABLE "{dataset.name}" DROP COLUMN "{field}"')

    def reads_as(self, kind: NeutralType) -> NeutralType:
        return neutral.JSON if kind.kind is Kind.ARRAY else kind

    def reads_back(self, kind: NeutralType, value: Any) -> Any:
        return array_as_json(kind, value) if kind.kind is Kind.ARRAY else value

    def samples(self, kind: NeutralType) -> Sequence[Any]:
        return super().samples(kind)


def array_as_json(kind: NeutralType, value: Any) -> Any:
    return list_to_json(pa.array([value], kind.arrow))[0].as_py()


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    yield SqliteHarness(folder / "source.db")
