"""Opening a PostgreSQL connection and telling its errors apart."""

from __future__ import annotations

import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, ClassVar

import adbc_driver_postgresql
import adbc_driver_postgresql.dbapi as adbc
import psycopg
from adbc_driver_manager import AdbcConnection
from psycopg.conninfo import make_conninfo
from psycopg.pq import TransactionStatus
from pydantic import Field, SecretStr

from apps.connectors import errors
from apps.connectors.base import ConnectorSettings, WriteProblem
from apps.connectors.keeping import borrowed
from apps.connectors.outbound import POSTGRESQL, find_route, open_socket, require_sockets
from apps.connectors.sql import TlsMode, is_socket, unreachable, without_secret
from apps.connectors.sql_writing import DUPLICATE, rejected

_SESSION = (
    "-c TimeZone=UTC -c DateStyle=ISO -c IntervalStyle=postgres -c extra_float_digits=3 "
    "-c bytea_output=hex -c standard_conforming_strings=on -c client_encoding=UTF8"
)
_SNAPSHOT = (
    " -c default_transaction_isolation=repeatable\\ read -c default_transaction_read_only=on"
)
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


class PostgresqlSettings(ConnectorSettings):
    """How to reach one schema of a PostgreSQL database."""

    location: ClassVar[tuple[str, ...]] = ("host", "port", "database", "schema")

    host: str = Field(
        title="Host", description="Name or address of the server, or the folder of its socket."
    )
    port: int = Field(default=5432, ge=1, le=65535, title="Port", description="Usually 5432.")
    database: str = Field(title="Database", description="Name of the database.", min_length=1)
    user: str = Field(title="User", description="Role that Lockstep signs in as.", min_length=1)
    password: SecretStr | None = Field(
        default=None, title="Password", description="Leave empty where the server asks for none."
    )
    # "schema" is taken by pydantic, so the attribute has another name than the setting.
    schema_name: str = Field(
        default="public",
        alias="schema",
        title="Schema",
        description="The schema whose tables and views are the datasets.",
        min_length=1,
    )
    tls: TlsMode = Field(
        default=TlsMode.PREFER,
        title="TLS",
        description="'verify-full' also checks who the server is; 'prefer' takes what it offers.",
    )
    ca_certificate: str | None = Field(
        default=None,
        title="CA certificate",
        description="Path of the certificate authority's file, for 'verify-full'.",
        json_schema_extra={"advanced": True},
    )
    connect_timeout: int = Field(
        default=10,
        ge=1,
        le=300,
        title="Connect timeout",
        description="Seconds to wait for the server to answer.",
        json_schema_extra={"advanced": True},
    )

    model_config = {"populate_by_name": True}

    @property
    def secret(self) -> str:
        return self.password.get_secret_value() if self.password else ""

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text literal; `standard_conforming_strings` is on in every session of ours."""
    return "'" + text.replace("'", "''") + "'"


def connection_string(settings: PostgresqlSettings, *, snapshot: bool = False) -> str:
    """What libpq takes, with checked addresses. Raises OutboundRefused, Unreachable."""
    parameters: dict[str, Any] = {
        **_way_to(settings.host, settings.port),
        "dbname": settings.database,
        "user": settings.user,
        "sslmode": settings.tls.value,
        "connect_timeout": settings.connect_timeout,
        "application_name": "lockstep",
        "client_encoding": "UTF8",
        "keepalives_idle": 30,
        "options": _SESSION + (_SNAPSHOT if snapshot else ""),
    }
    if settings.secret:
        parameters["password"] = settings.secret
    if settings.ca_certificate:
        parameters["sslrootcert"] = settings.ca_certificate
    elif settings.tls is TlsMode.VERIFY_FULL:
        parameters["sslrootcert"] = "system"
    return make_conninfo(**parameters)


def _way_to(host: str, port: int) -> dict[str, Any]:
    """`hostaddr` is where libpq connects to, `host` the name that it checks the certificate for."""
    if is_socket(host):
        require_sockets(host)
        return {"host": host, "port": port}
    addresses = unreachable(lambda: find_route(POSTGRESQL, host, port), host).addresses
    names = ",".join([host] * len(addresses))
    return {"host": names, "hostaddr": ",".join(addresses), "port": port}


def connect(settings: PostgresqlSettings) -> psycopg.Connection[Any]:
    """A connection for catalog queries and writing.

    Raises Unreachable, OutboundRefused, SignInRefused, TlsFailed, ConfigurationError.
    """
    conninfo = connection_string(settings)
    try:
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
    except psycopg.OperationalError as error:
        raise _translate_connect(str(error), settings) from None


@contextmanager
def connect_catalog(settings: PostgresqlSettings) -> Iterator[psycopg.Connection[Any]]:
    """A connection for queries that leave nothing behind in it: perhaps one that did others."""
    with borrowed(
        "postgresql catalog",
        connection_string(settings),
        lambda: connect(settings),
        begin=lambda connection: connection.execute("SELECT 1"),
        end=_require_idle,
    ) as connection:
        yield connection


def _require_idle(connection: psycopg.Connection[Any]) -> None:
    if connection.info.transaction_status is not TransactionStatus.IDLE:
        raise psycopg.OperationalError("a transaction is open")


@lru_cache(maxsize=64)
def _reader_database(conninfo: str) -> Any:
    """What the driver knows of a database: it asks the server for all of its types, once."""
    return adbc_driver_postgresql.connect(conninfo)


def _begin_snapshot(connection: Any) -> None:
    connection.adbc_connection.set_autocommit(False)
    with connection.cursor() as cursor:  # only a query shows that the connection still stands
        cursor.execute("SELECT 1")
        cursor.fetchone()


class _Kept:
    """Stands for a database that outlives its connections."""

    def close(self) -> None:
        """Others use it."""


@contextmanager
def connect_reader(settings: PostgresqlSettings) -> Iterator[Any]:
    """An ADBC connection inside one read-only, repeatable-read transaction."""
    conninfo = connection_string(settings, snapshot=True)

    def connect_anew() -> Any:
        try:
            return adbc.Connection(_Kept(), AdbcConnection(_reader_database(conninfo)))
        except adbc.Error as error:
            raise _translate_connect(str(error), settings) from None

    with borrowed(
        "postgresql reader",
        conninfo,
        connect_anew,
        begin=_begin_snapshot,
        end=lambda connection: connection.adbc_connection.set_autocommit(True),
    ) as connection:
        yield connection


def _translate_connect(text: str, settings: PostgresqlSettings) -> errors.LockstepError:
    lowered = text.lower()
    where = settings.where
    if "does not exist" in lowered and "database" in lowered:
        return errors.ConfigurationError(
            f"there is no database '{settings.database}'",
            where=where,
            remedy="Check the database's name, or create it.",
        )
    if "certificate" in lowered or "ssl" in lowered.replace("no pg_hba.conf", ""):
        return errors.TlsFailed("the TLS handshake failed", where=where)
    refused = ("authentication failed", "no password supplied", "pg_hba.conf", "role", "permitted")
    if any(part in lowered for part in refused):
        return errors.SignInRefused(f"the server refused user '{settings.user}'", where=where)
    if "too many" in lowered or "starting up" in lowered or "shutting down" in lowered:
        return errors.Unreachable(
            "the server takes no connections at the moment",
            where=where,
            remedy="Wait, or raise the server's 'max_connections'.",
        )
    first_line = without_secret(
        text.strip().splitlines()[-1] if text.strip() else "", settings.secret
    )
    return errors.Unreachable(f"no connection: {first_line}", where=where)


def check_tls(settings: PostgresqlSettings) -> str:
    """Ask the server for TLS. Raises TlsFailed, OSError."""
    if is_socket(settings.host):
        return "A local socket needs no TLS."
    if settings.tls is TlsMode.DISABLE:
        return "Switched off in the settings: traffic is not encrypted."
    route = find_route(POSTGRESQL, settings.host, settings.port)
    with open_socket(route, settings.connect_timeout) as plain:
        plain.sendall(_SSL_REQUEST)
        offered = plain.recv(1) == b"S"
        if not offered:
            if settings.tls is TlsMode.PREFER:
                return "The server offers no TLS: traffic is not encrypted."
            raise errors.TlsFailed("the server offers no TLS", where=settings.where)
        if settings.tls is not TlsMode.VERIFY_FULL:
            return "The server offers TLS."
        try:
            context = ssl.create_default_context(cafile=settings.ca_certificate)
            context.wrap_socket(plain, server_hostname=settings.host).close()
        except (ssl.SSLError, OSError) as error:
            reason = getattr(error, "verify_message", "") or type(error).__name__
            raise errors.TlsFailed(
                f"the server's certificate was refused: {reason}", where=settings.where
            ) from None
    return "The server's certificate is valid."


_BY_STATE: dict[str, tuple[type[errors.LockstepError], str]] = {
    "40001": (errors.TargetBusy, "a concurrent transaction got in the way"),
    "40P01": (errors.TargetBusy, "a deadlock with another transaction"),
    "55P03": (errors.TargetBusy, "another transaction holds a lock"),
    "57014": (errors.TargetBusy, "the statement took longer than the lease allows"),
    "53300": (errors.TargetBusy, "the server has too many connections"),
    "53100": (errors.OutOfSpace, "the server's disk is full"),
    "53200": (errors.TargetBusy, "the server is out of memory"),
    "42501": (errors.PermissionRefused, "the user lacks a right on this dataset"),
    "25006": (errors.PermissionRefused, "the server takes no writes: it is a standby"),
    "42P01": (errors.DatasetMissing, "there is no such table"),
    "42703": (errors.FieldMissing, "the table lacks one of the fields"),
    "3F000": (errors.ConfigurationError, "there is no such schema"),
}
_BY_CLASS: dict[str, tuple[type[errors.LockstepError], str]] = {
    "08": (errors.ConnectionLost, "the connection was cut"),
    "57": (errors.ConnectionLost, "the server ended the connection"),
    "53": (errors.OutOfSpace, "the server lacks resources"),
    "58": (errors.ConnectionLost, "the server had a system error"),
    "28": (errors.SignInRefused, "the server refused the user"),
}


def translate(sqlstate: str | None, where: str) -> errors.LockstepError:
    """Our error for a failed statement. It never repeats a value."""
    if sqlstate is None:
        return errors.ConnectionLost("the connection was cut", where=where)
    found = _BY_STATE.get(sqlstate) or _BY_CLASS.get(sqlstate[:2])
    if found is None:
        return errors.SchemaMismatch(
            f"PostgreSQL refused the statement (SQLSTATE {sqlstate})", where=where
        )
    kind, message = found
    return kind(message, where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise the drivers' errors as ours."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error.sqlstate, where) from error
    except adbc.Error as error:
        raise translate(error.sqlstate, where) from error


_REFUSALS: dict[str, WriteProblem] = {
    "22001": rejected("record.too_long", "The text is longer than the field."),
    "22003": rejected("record.out_of_range", "The number is too large for the field."),
    "22008": rejected("record.out_of_range", "The date or time is out of the field's range."),
    "22021": rejected("record.invalid", "The text holds a character PostgreSQL cannot keep."),
    "23502": rejected("record.required", "The field needs a value."),
    "23503": rejected(
        "record.reference_missing", "A record that this one refers to, or is referred by, is amiss."
    ),
    "23505": DUPLICATE,
    "23P01": DUPLICATE,
    "23514": rejected("record.invalid", "A check of the table refuses it."),
    "44000": rejected("record.invalid", "The view's check option refuses it."),
    "54000": rejected("record.too_long", "The value is too long for an index of the table."),
    "P0001": rejected("record.invalid", "A trigger of the table refuses it."),
}


def refusal(error: psycopg.Error) -> WriteProblem | None:
    """Why a record was refused, or None when the error is not about a record."""
    state = error.sqlstate or ""
    problem = _REFUSALS.get(state)
    if problem is None and state[:2] in {"22", "23"}:
        problem = rejected("record.invalid", "The value does not fit the field.")
    if problem is None:
        return None
    field = error.diag.column_name or ""
    return WriteProblem(problem.status, problem.code, problem.message, field)
