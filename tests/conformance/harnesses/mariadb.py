"""MariaDB under the conformance suite."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apps.connectors import types as neutral
from apps.connectors.base import DatasetSchema
from apps.connectors.mysql import MysqlConnector, MysqlSettings
from apps.connectors.testing import Harness
from apps.connectors.types import Kind, NeutralType
from tests.conformance.harnesses.sqlite import array_as_json
from tests.servers import mariadb_connection, mariadb_database

MARKS = (pytest.mark.mariadb,)
_LAST_TIMESTAMP = datetime(2038, 1, 19, tzinfo=UTC)


class MariadbHarness(Harness):
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        super().__init__(MysqlConnector(MysqlSettings(**settings)))

    def assign_keys(self, dataset: DatasetSchema) -> None:
        self._execute(f"ALTER TABLE `{dataset.name}` MODIFY id BIGINT NOT NULL AUTO_INCREMENT")

    def make_tree(self) -> DatasetSchema:
        name = f"tree_{uuid.uuid4().hex[:12]}"
        self._execute(
            f"CREATE TABLE `{name}` (id BIGINT PRIMARY KEY, parent BIGINT, "
            f"FOREIGN KEY (parent) REFERENCES `{name}` (id))"
        )
        return self.connector.describe(name)

    def _execute(self, statement: str) -> None:
        with mariadb_connection(self.settings) as connection:
            connection.query(statement)

    def cut_connections(self, dataset: DatasetSchema) -> None:
        with mariadb_connection(self.settings) as connection, connection.cursor() as cursor:
            cursor.execute(
                "SELECT id FROM information_schema.processlist "
                "WHERE db = DATABASE() AND id <> CONNECTION_ID()"
            )
            for (number,) in cursor.fetchall():
                connection.query(f"KILL {number}")

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        self._execute(f"ALTER TABLE `{dataset.name}` DROP COLUMN `{field}`")

    def samples(self, kind: NeutralType) -> Sequence[Any]:
        values = super().samples(kind)
        if kind == neutral.TIMESTAMPTZ:
            first = datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
            return [value for value in values if first <= value < _LAST_TIMESTAMP]
        return values

    def reads_as(self, kind: NeutralType) -> NeutralType:
        if kind.kind is Kind.ARRAY:
            return neutral.JSON
        return neutral.decimal(65, 30) if kind == NeutralType(Kind.DECIMAL) else kind

    def reads_back(self, kind: NeutralType, value: Any) -> Any:
        return array_as_json(kind, value) if kind.kind is Kind.ARRAY else value


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    with mariadb_database() as settings:
        yield MariadbHarness(settings)
