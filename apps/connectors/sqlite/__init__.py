"""SQLite databases: one file, any number of readers, one writer at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing
from pathlib import Path

from apps.connectors.base import (
    Capabilities,
    CheckStep,
    Connector,
    DatasetSchema,
    KeyBounds,
    ReadBatch,
    ReadRequest,
    WriteSession,
)
from apps.connectors.errors import ConfigurationError, Unreachable
from apps.connectors.reach import require_reachable
from apps.connectors.sql import find_fields, run_steps
from apps.connectors.sqlite import discovery
from apps.connectors.sqlite.connection import SqliteSettings, connect, quote, translated
from apps.connectors.sqlite.reading import read_batches
from apps.connectors.sqlite.splitting import split_integers
from apps.connectors.sqlite.types import created_type
from apps.connectors.sqlite.writing import SqliteWriteSession

__all__ = ["SqliteConnector", "SqliteSettings"]


class SqliteConnector(Connector[SqliteSettings]):
    name = "sqlite"
    label = "SQLite"
    settings_model = SqliteSettings
    capabilities = Capabilities(
        write=True,
        cursor=True,
        key_lookup=True,
        key_ranges=True,
        transactions=True,
        target_lock=True,
        server_assigned_keys=True,
        returns_stored=True,
        exchanges=True,
        delete=True,
        create_dataset=True,
        batch_rows=20_000,
    )

    def check(self) -> Iterator[CheckStep]:
        return run_steps(
            [
                ("resolve", self._check_file),
                ("connect", self._check_open),
                ("tls", lambda: "A file needs no TLS."),
                ("sign_in", lambda: "A file needs no sign-in."),
                ("read", self._check_read),
                ("write", self._check_write),
            ]
        )

    def _check_file(self) -> str:
        path = Path(self.settings.path)
        require_reachable(path, "file")
        if not path.is_file():
            raise Unreachable(
                "there is no such file",
                where=self.settings.path,
                remedy="Check the path, and that the workers' machine has this file.",
            )
        return f"The file exists and holds {path.stat().st_size:,} bytes."

    def _check_open(self) -> str:
        connect(self.settings).close()
        return "The file opens as a SQLite database."

    def _check_read(self) -> str:
        with closing(connect(self.settings)) as connection, translated(self.settings.path):
            names = discovery.dataset_names(connection)
            for name in names[:1]:
                connection.execute(f"SELECT 1 FROM {quote(name)} LIMIT 1").fetchone()
        return f"{len(names)} tables and views can be read."

    def _check_write(self) -> str:
        if self.settings.read_only:
            return "Nothing to test: the source is set to read only."
        with (
            closing(connect(self.settings, write=True)) as connection,
            translated(self.settings.path),
        ):
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE lockstep_write_test (a)")
            connection.execute("ROLLBACK")
        return "Tables can be written."

    def discover(self) -> list[DatasetSchema]:
        with closing(connect(self.settings)) as connection, translated(self.settings.path):
            return [
                discovery.describe(connection, name) for name in discovery.dataset_names(connection)
            ]

    def describe(self, dataset: str) -> DatasetSchema:
        with closing(connect(self.settings)) as connection, translated(dataset):
            return discovery.describe(connection, dataset)

    def count(self, dataset: DatasetSchema) -> int:
        with closing(connect(self.settings)) as connection, translated(dataset.name):
            row = connection.execute(f"SELECT count(*) FROM {quote(dataset.name)}").fetchone()
        return int(row[0])

    def read(self, request: ReadRequest) -> Iterator[ReadBatch]:
        name = request.dataset.name
        with closing(connect(self.settings)) as connection, translated(name):
            current = discovery.describe(connection, name, measure=False)
            yield from read_batches(connection, request, current)

    def split(self, dataset: DatasetSchema, key: Sequence[str], parts: int) -> KeyBounds:
        with closing(connect(self.settings)) as connection, translated(dataset.name):
            current = discovery.describe(connection, dataset.name, measure=False)
            return split_integers(connection, find_fields(current, key), current, parts)

    def write_session(
        self, dataset: DatasetSchema, *, lock: str, lease_seconds: Callable[[], float]
    ) -> AbstractContextManager[WriteSession]:
        return SqliteWriteSession(self.settings, dataset, lock=lock, lease_seconds=lease_seconds)

    def create_dataset(self, schema: DatasetSchema) -> None:
        lines = [
            f"{quote(field.name)} {created_type(field.type)}"
            + ("" if field.nullable else " NOT NULL")
            for field in schema.fields
        ]
        if schema.key:
            lines.append(f"PRIMARY KEY ({', '.join(quote(name) for name in schema.key)})")
        lines.extend(
            f"UNIQUE ({', '.join(quote(name) for name in unique)})" for unique in schema.unique_keys
        )
        with (
            closing(connect(self.settings, write=True)) as connection,
            translated(schema.name),
        ):
            if schema.name in discovery.dataset_names(connection):
                raise ConfigurationError("a dataset of this name exists", where=schema.name)
            connection.execute(f"CREATE TABLE {quote(schema.name)} ({', '.join(lines)})")
