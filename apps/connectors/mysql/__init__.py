"""MySQL 8 and MariaDB 10.6 and later."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from typing import Any

import pymysql.err
from pymysql.connections import Connection

from apps.connectors import errors
from apps.connectors.base import (
    Capabilities,
    CheckStep,
    Connector,
    DatasetSchema,
    DigestRequest,
    DigestSession,
    FieldSchema,
    KeyBounds,
    LoadSession,
    ReadBatch,
    ReadRequest,
    StepStatus,
    WriteSession,
)
from apps.connectors.digests import key_bounds
from apps.connectors.mysql.connection import (
    MysqlSettings,
    check_tls,
    connect,
    quote,
    translated,
)
from apps.connectors.mysql.digesting import MysqlDigestSession, digest_forms
from apps.connectors.mysql.discovery import is_mariadb, load_table, load_tables, server_version
from apps.connectors.mysql.loading import MysqlLoadSession
from apps.connectors.mysql.reading import read_batches
from apps.connectors.mysql.types import created_type, exact_collation
from apps.connectors.mysql.writing import MysqlWriteSession
from apps.connectors.outbound import MYSQL
from apps.connectors.sql import check_server

__all__ = ["MysqlConnector", "MysqlSettings"]

_TABLE_EXISTS = 1050


class MysqlConnector(Connector[MysqlSettings]):
    name = "mysql"
    label = "MySQL or MariaDB"
    settings_model = MysqlSettings
    capabilities = Capabilities(
        write=True,
        cursor=True,
        key_lookup=True,
        key_ranges=True,
        key_spans=True,
        key_shares=True,
        checksum=True,
        transactions=True,
        load=True,
        exact_load=True,
        target_lock=True,
        server_assigned_keys=True,
        returns_stored=True,
        exchanges=True,
        delete=True,
        create_dataset=True,
        batch_rows=10_000,
    )

    def check(self) -> Iterator[CheckStep]:
        return check_server(
            MYSQL,
            self.settings,
            tls=lambda: check_tls(self.settings),
            sign_in=self._check_sign_in,
            read=self._check_read,
            write=self._check_write,
        )

    def _check_sign_in(self) -> str:
        with closing(connect(self.settings)) as connection:
            return f"Signed in as '{self.settings.user}' to {server_version(connection)}."

    def _check_read(self) -> str:
        with self._connected() as connection:
            tables = load_tables(connection, measure=False)
            for table in tables[:1]:
                connection.query(f"SELECT 1 FROM {quote(table.schema.name)} LIMIT 1")
        return f"{len(tables)} tables and views can be read."

    def _check_write(self) -> str | CheckStep:
        with self._connected() as connection:
            with connection.cursor() as cursor:
                cursor.execute("SELECT @@read_only")
                read_only = cursor.fetchone()
            try:
                connection.query("CREATE TEMPORARY TABLE lockstep_write_test (a INT)")
            except pymysql.err.MySQLError:
                return CheckStep(
                    "write",
                    StepStatus.SKIPPED,
                    "This user may only read: the source can be read, never written.",
                    "To write here, grant CREATE TEMPORARY TABLES, INSERT, UPDATE and DELETE.",
                )
        if read_only and read_only[0]:
            return CheckStep(
                "write",
                StepStatus.SKIPPED,
                "This server is read only: the source can be read, never written.",
                "To write here, give the address of the primary server.",
            )
        return "Batches can be staged; the rights on each table show when it is written."

    @contextmanager
    def _connected(self, where: str = "") -> Iterator[Connection[Any]]:
        with (
            closing(connect(self.settings)) as connection,
            translated(where or self.settings.where),
        ):
            yield connection

    def discover(self) -> list[DatasetSchema]:
        with self._connected() as connection:
            return [table.schema for table in load_tables(connection, measure=True)]

    def describe(self, dataset: str) -> DatasetSchema:
        with self._connected(dataset) as connection:
            found = load_tables(connection, dataset, measure=True)
            return found[0].schema if found else load_table(connection, dataset).schema

    def count(self, dataset: DatasetSchema) -> int:
        with self._connected(dataset.name) as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT COUNT(*) FROM {quote(dataset.name)}")
            row = cursor.fetchone()
        return int(row[0]) if row else 0

    def read(self, request: ReadRequest) -> Iterator[ReadBatch]:
        connection = connect(self.settings, raw=True)
        try:
            with translated(request.dataset.name):
                table = load_table(connection, request.dataset.name)
                yield from read_batches(connection, request, table)
        finally:
            _hang_up(connection)

    def split(self, dataset: DatasetSchema, key: Sequence[str], parts: int) -> KeyBounds:
        with self.digest_session(DigestRequest(dataset, tuple(key), ())) as session:
            return key_bounds(session, dataset, parts)

    def write_session(
        self, dataset: DatasetSchema, *, lock: str, lease_seconds: Callable[[], float]
    ) -> AbstractContextManager[WriteSession]:
        return MysqlWriteSession(self.settings, dataset, lock=lock, lease_seconds=lease_seconds)

    def load_session(
        self,
        dataset: DatasetSchema,
        fields: Sequence[str],
        *,
        lock: str,
        lease_seconds: Callable[[], float],
    ) -> AbstractContextManager[LoadSession]:
        return MysqlLoadSession(
            self.settings, dataset, fields, lock=lock, lease_seconds=lease_seconds
        )

    def digest_forms(self, field: FieldSchema) -> tuple[str, ...]:
        return digest_forms(field)

    def digest_session(self, request: DigestRequest) -> AbstractContextManager[DigestSession]:
        return MysqlDigestSession(self.settings, request)

    def create_dataset(self, schema: DatasetSchema) -> None:
        keyed = {*schema.key, *(name for unique in schema.unique_keys for name in unique)}
        with self._connected(schema.name) as connection:
            mariadb = is_mariadb(connection)
            collation = exact_collation(mariadb=mariadb)
            try:
                lines = [
                    f"{quote(field.name)} "
                    + created_type(field.type, in_key=field.name in keyed, mariadb=mariadb)
                    + (" NULL" if field.nullable else " NOT NULL")
                    for field in schema.fields
                ]
            except ValueError as error:
                raise errors.ConfigurationError(
                    str(error), where=schema.name, remedy="Map the field to text instead."
                ) from None
            if schema.key:
                lines.append(f"PRIMARY KEY ({', '.join(quote(name) for name in schema.key)})")
            lines.extend(
                f"UNIQUE ({', '.join(quote(name) for name in unique)})"
                for unique in schema.unique_keys
            )
            try:
                connection.query(
                    f"CREATE TABLE {quote(schema.name)} ({', '.join(lines)}) "
                    f"ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE={collation}"
                )
            except pymysql.err.MySQLError as error:
                if error.args and error.args[0] == _TABLE_EXISTS:
                    raise errors.ConfigurationError(
                        "a dataset of this name exists", where=schema.name
                    ) from None
                raise


def _hang_up(connection: Connection[Any]) -> None:
    """Close without reading the rest of an unfinished result, which `close` of a cursor does."""
    force_close: Callable[[], None] = getattr(connection, "_force_close", connection.close)
    force_close()
