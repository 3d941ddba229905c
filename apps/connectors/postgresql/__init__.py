"""PostgreSQL 13 and later, and what speaks its language."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import psycopg

from apps.connectors import errors
from apps.connectors.base import (
    Capabilities,
    CheckStep,
    Connector,
    DatasetSchema,
    DigestRequest,
    DigestSession,
    Export,
    FieldSchema,
    KeyBounds,
    LoadSession,
    ReadBatch,
    ReadRequest,
    StepStatus,
    WireFormat,
    WriteSession,
)
from apps.connectors.digests import key_bounds
from apps.connectors.outbound import POSTGRESQL
from apps.connectors.postgresql import mysql_text
from apps.connectors.postgresql.connection import (
    PostgresqlSettings,
    check_tls,
    connect,
    connect_catalog,
    connect_reader,
    quote,
    translated,
)
from apps.connectors.postgresql.digesting import PostgresqlDigestSession, digest_forms
from apps.connectors.postgresql.discovery import load_table, load_tables
from apps.connectors.postgresql.exporting import PostgresqlExport
from apps.connectors.postgresql.keys import part_conditions
from apps.connectors.postgresql.loading import PostgresqlLoadSession
from apps.connectors.postgresql.reading import read_batches
from apps.connectors.postgresql.types import created_type
from apps.connectors.postgresql.wire import FORMAT
from apps.connectors.postgresql.writing import PostgresqlWriteSession
from apps.connectors.sql import check_server

__all__ = ["PostgresqlConnector", "PostgresqlSettings"]

_EXPORTS: dict[str, Callable[..., AbstractContextManager[Export]]] = {
    FORMAT: PostgresqlExport,
    mysql_text.FORMAT: mysql_text.MysqlTextExport,
}


class PostgresqlConnector(Connector[PostgresqlSettings]):
    name = "postgresql"
    label = "PostgreSQL"
    settings_model = PostgresqlSettings
    capabilities = Capabilities(
        write=True,
        cursor=True,
        key_lookup=True,
        key_ranges=True,
        key_spans=True,
        key_shares=True,
        checksum=True,
        transactions=True,
        bulk_load=True,
        load=True,
        exports=frozenset(_EXPORTS),
        target_lock=True,
        server_assigned_keys=True,
        returns_stored=True,
        exchanges=True,
        transaction_status=True,
        delete=True,
        create_dataset=True,
        batch_rows=20_000,
    )

    def check(self) -> Iterator[CheckStep]:
        return check_server(
            POSTGRESQL,
            self.settings,
            tls=lambda: check_tls(self.settings),
            sign_in=self._check_sign_in,
            read=self._check_read,
            write=self._check_write,
        )

    def _check_sign_in(self) -> str:
        with connect(self.settings) as connection:
            version = connection.info.server_version // 10_000
        if version < 13:
            raise errors.ConfigurationError(
                f"the server is PostgreSQL {version}", remedy="Use PostgreSQL 13 or later."
            )
        return f"Signed in as '{self.settings.user}' to PostgreSQL {version}."

    def _check_read(self) -> str:
        schema = self.settings.schema_name
        with connect(self.settings) as connection, translated(self.settings.where):
            usable = connection.execute(
                "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s",
                (schema,),
            ).fetchone()
            if usable is None:
                raise errors.ConfigurationError(
                    f"there is no schema '{schema}'", remedy="Check the schema's name."
                )
            if not usable[0]:
                raise errors.PermissionRefused(
                    f"user '{self.settings.user}' may not use schema '{schema}'",
                    remedy=f"GRANT USAGE ON SCHEMA {quote(schema)} TO {quote(self.settings.user)}",
                )
            tables = load_tables(connection, schema, measure=False)
        return f"{len(tables)} tables and views can be read."

    def _check_write(self) -> str | CheckStep:
        with connect(self.settings) as connection, translated(self.settings.where):
            row = connection.execute(
                "SELECT pg_is_in_recovery(), "
                "current_setting('default_transaction_read_only') = 'on', "
                "has_schema_privilege(%(schema)s, 'CREATE'), count(*), "
                "count(*) FILTER (WHERE has_table_privilege(c.oid, 'INSERT') "
                "AND has_table_privilege(c.oid, 'UPDATE')) "
                "FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
                "WHERE n.nspname = %(schema)s AND c.relkind IN ('r', 'p')",
                {"schema": self.settings.schema_name},
            ).fetchone()
        standby, read_only, may_create, tables, writable = row or (False, False, False, 0, 0)
        if standby or read_only or not (may_create or writable):
            return CheckStep(
                "write",
                StepStatus.SKIPPED,
                "This server or user is read only: the source can be read, never written.",
                "To write here, sign in to the primary as a user with INSERT and UPDATE rights.",
            )
        created = "and new ones created" if may_create else "but none created"
        return f"{writable} of {tables} tables can be written, {created}."

    def discover(self) -> list[DatasetSchema]:
        with connect(self.settings) as connection, translated(self.settings.where):
            tables = load_tables(connection, self.settings.schema_name, measure=True)
        return [table.schema for table in tables]

    def describe(self, dataset: str) -> DatasetSchema:
        schema = self.settings.schema_name
        with connect_catalog(self.settings) as connection, translated(dataset):
            found = load_tables(connection, schema, dataset, measure=True)
            return found[0].schema if found else load_table(connection, schema, dataset).schema

    def count(self, dataset: DatasetSchema) -> int:
        statement = f"SELECT count(*) FROM {self._qualified(dataset.name)}"
        with connect_catalog(self.settings) as connection, translated(dataset.name):
            row = connection.execute(statement.encode()).fetchone()
        return int(row[0]) if row else 0

    def _qualified(self, name: str) -> str:
        return f"{quote(self.settings.schema_name)}.{quote(name)}"

    def read(self, request: ReadRequest) -> Iterator[ReadBatch]:
        name, schema = request.dataset.name, self.settings.schema_name
        with translated(name):
            with connect_catalog(self.settings) as catalog:
                table = load_table(catalog, schema, name)
                part = request.part
                conditions = part_conditions(part, table, catalog) if part else []
            with connect_reader(self.settings) as connection:
                yield from read_batches(connection, request, table, schema, conditions=conditions)

    def split(self, dataset: DatasetSchema, key: Sequence[str], parts: int) -> KeyBounds:
        with self.digest_session(DigestRequest(dataset, tuple(key), ())) as session:
            return key_bounds(session, dataset, parts)

    def write_session(
        self, dataset: DatasetSchema, *, lock: str, lease_seconds: Callable[[], float]
    ) -> AbstractContextManager[WriteSession]:
        return PostgresqlWriteSession(
            self.settings, dataset, lock=lock, lease_seconds=lease_seconds
        )

    def load_session(
        self,
        dataset: DatasetSchema,
        fields: Sequence[str],
        *,
        lock: str,
        lease_seconds: Callable[[], float],
    ) -> AbstractContextManager[LoadSession]:
        return PostgresqlLoadSession(
            self.settings, dataset, fields, lock=lock, lease_seconds=lease_seconds
        )

    def export(
        self, dataset: DatasetSchema, fields: Sequence[str], wire: WireFormat, *, key: Sequence[str]
    ) -> AbstractContextManager[Export]:
        return _EXPORTS[wire.name](self.settings, dataset, fields, wire, key=key)

    def digest_forms(self, field: FieldSchema) -> tuple[str, ...]:
        return digest_forms(field)

    def digest_session(self, request: DigestRequest) -> AbstractContextManager[DigestSession]:
        return PostgresqlDigestSession(self.settings, request)

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
        statement = f"CREATE TABLE {self._qualified(schema.name)} ({', '.join(lines)})"
        with connect(self.settings) as connection, translated(schema.name):
            try:
                connection.execute(statement.encode())
            except psycopg.errors.DuplicateTable:
                raise errors.ConfigurationError(
                    "a dataset of this name exists", where=schema.name
                ) from None
