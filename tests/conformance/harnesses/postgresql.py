"""PostgreSQL under the conformance suite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from apps.connectors.base import DatasetSchema
from apps.connectors.postgresql import PostgresqlConnector, PostgresqlSettings
from apps.connectors.testing import Harness
from tests.servers import postgresql_connection, postgresql_database

MARKS = (pytest.mark.postgresql,)


class PostgresqlHarness(Harness):
    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        super().__init__(PostgresqlConnector(PostgresqlSettings(**settings)))

    def drop_field(self, dataset: DatasetSchema, field: str) -> None:
        with postgresql_connection(self.settings) as connection:
            connection.execute(f'ALTER TABLE "{dataset.name}" DROP COLUMN "{field}"')


@contextmanager
def harness(folder: Path) -> Iterator[Harness]:
    with postgresql_database() as settings:
        yield PostgresqlHarness(settings)
