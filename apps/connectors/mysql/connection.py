"""Opening a MySQL or MariaDB connection and telling its errors apart."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import pymysql.err
from pydantic import Field, SecretStr
from pymysql.connections import Connection

from apps.connectors import errors
from apps.connectors.base import ConnectorSettings, WriteProblem
from apps.connectors.outbound import MYSQL, find_route, open_socket
from apps.connectors.sql import TlsMode
from apps.connectors.sql_writing import DUPLICATE, rejected

_SESSION = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION,"
    "NO_AUTO_VALUE_ON_ZERO,NO_ZERO_DATE,NO_ZERO_IN_DATE', time_zone = '+00:00', "
    "net_write_timeout = 600, foreign_key_checks = 1, unique_checks = 1"
)
_CLIENT_SSL = 0x0800

C = TypeVar("C", bound="CheckedConnection")


class MysqlSettings(ConnectorSettings):
    """How to reach one database of a MySQL or MariaDB server."""

    location: ClassVar[tuple[str, ...]] = ("host", "port", "database")

    host: str = Field(title="Host", description="Name or address of the server.", min_length=1)
    port: int = Field(default=3306, ge=1, le=65535, title="Port", description="Usually 3306.")
    database: str = Field(title="Database", description="Name of the database.", min_length=1)
    user: str = Field(title="User", description="User that Lockstep signs in as.", min_length=1)
    password: SecretStr | None = Field(
        default=None, title="Password", description="Leave empty where the server asks for none."
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

    @property
    def secret(self) -> str:
        return self.password.get_secret_value() if self.password else ""

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}/{self.database}"


def quote(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"


class CheckedConnection(Connection):
    """Connects, and connects again, to an address that was checked; TLS is for the name."""

    def connect(self, sock: socket.socket | None = None) -> None:
        super().connect(sock or self._checked_socket())

    def _checked_socket(self) -> socket.socket:
        return open_socket(find_route(MYSQL, self.host, self.port), self.connect_timeout)


def connect(settings: MysqlSettings, *, raw: bool = False) -> CheckedConnection:
    """A connection with a strict session in UTC.

    raw: values come as the server's text. Raises Unreachable, OutboundRefused, SignInRefused,
    TlsFailed.
    """
    return connect_as(CheckedConnection, settings, raw=raw)


def connect_as(kind: type[C], settings: MysqlSettings, *, raw: bool = False) -> C:
    """As `connect`, with a connection of this class."""
    options: dict[str, Any] = {"conv": {}} if raw else {}
    try:
        options |= _tls_options(settings)
        connection = kind(
            host=settings.host,
            port=settings.port,
            user=settings.user,
            password=settings.secret,
            database=settings.database,
            charset="utf8mb4",
            autocommit=True,
            connect_timeout=settings.connect_timeout,
            init_command=_SESSION,
            program_name="lockstep",
            **options,
        )
    except (pymysql.err.MySQLError, OSError) as error:
        raise _translate_connect(error, settings) from None
    protected = settings.tls in {TlsMode.REQUIRE, TlsMode.VERIFY_FULL}
    if protected and not getattr(connection, "_secure", False):
        connection.close()
        raise errors.TlsFailed("the server offers no TLS", where=settings.where)
    return connection


def _tls_options(settings: MysqlSettings) -> dict[str, Any]:
    if settings.tls is TlsMode.DISABLE:
        return {"ssl_disabled": True}
    if settings.tls is TlsMode.VERIFY_FULL:
        return {"ssl": ssl.create_default_context(cafile=settings.ca_certificate)}
    if settings.tls is TlsMode.REQUIRE:
        return {"ssl": _unverified()}
    return {}


def _unverified() -> ssl.SSLContext:
    """Encrypts against listeners; 'verify-full' is the mode that knows the server."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def check_tls(settings: MysqlSettings) -> str:
    """Read from the server's greeting whether it offers TLS. Raises TlsFailed, OSError."""
    if settings.tls is TlsMode.DISABLE:
        return "Switched off in the settings: traffic is not encrypted."
    route = find_route(MYSQL, settings.host, settings.port)
    with open_socket(route, settings.connect_timeout) as plain:
        greeting = plain.recv(4096)
    if _offers_tls(greeting):
        return "The server offers TLS."
    if settings.tls is TlsMode.PREFER:
        return "The server offers no TLS: traffic is not encrypted."
    raise errors.TlsFailed("the server offers no TLS", where=settings.where)


def _offers_tls(greeting: bytes) -> bool:
    """Protocol 10: header 4, protocol 1, version to NUL, thread 4, salt 8, filler 1, flags 2."""
    end = greeting.find(b"\0", 5)
    flags = greeting[end + 14 : end + 16]
    return end > 0 and len(flags) == 2 and bool(struct.unpack("<H", flags)[0] & _CLIENT_SSL)


def _code(error: BaseException) -> int:
    first = error.args[0] if error.args else 0
    return first if isinstance(first, int) else 0


def _translate_connect(error: BaseException, settings: MysqlSettings) -> errors.LockstepError:
    code, where = _code(error), settings.where
    cause = getattr(error, "original_exception", None)
    if isinstance(cause, ssl.SSLError) or isinstance(error, ssl.SSLError) or code == 2026:
        return errors.TlsFailed("the TLS handshake failed", where=where)
    if code in {1045, 1698, 2059, 1251, 4151}:
        return errors.SignInRefused(f"the server refused user '{settings.user}'", where=where)
    if code in {1044, 1049}:
        known = "there is no database" if code == 1049 else "the user may not use the database"
        return errors.ConfigurationError(
            f"{known} '{settings.database}'",
            where=where,
            remedy="Check the database's name and the user's rights on it, or create it.",
        )
    if code in {1040, 1203}:
        return errors.Unreachable(
            "the server takes no more connections",
            where=where,
            remedy="Wait, or raise the server's 'max_connections'.",
        )
    return errors.Unreachable("no connection to the server", where=where)


_ERRORS: dict[type[errors.LockstepError], tuple[str, frozenset[int]]] = {
    errors.TargetBusy: (
        "a lock, a deadlock or the lease's deadline stopped the statement",
        frozenset({1205, 1213, 1969, 3024, 3572, 1040, 1203, 1041}),
    ),
    errors.ConnectionLost: (
        "the connection was cut",
        frozenset({2006, 2013, 2055, 1927, 1053, 1317, 1152, 1159, 1161, 0}),
    ),
    errors.OutOfSpace: ("the server's disk or table is full", frozenset({1021, 1114, 3019})),
    errors.PermissionRefused: (
        "the user lacks a right, or the server is read only",
        frozenset({1044, 1142, 1143, 1227, 1290, 1370, 1792, 1836}),
    ),
    errors.SignInRefused: ("the server refused the user", frozenset({1045, 1698})),
    errors.DatasetMissing: ("there is no such table", frozenset({1146, 1051})),
    errors.FieldMissing: ("the table lacks one of the fields", frozenset({1054})),
}


def translate(error: BaseException, where: str) -> errors.LockstepError:
    """Our error for a failed statement. It never repeats a value."""
    code = _code(error)
    for kind, (message, codes) in _ERRORS.items():
        if code in codes:
            return kind(message, where=where)
    return errors.SchemaMismatch(f"the server refused the statement (error {code})", where=where)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise the driver's errors as ours."""
    try:
        yield
    except (pymysql.err.MySQLError, ConnectionError, TimeoutError) as error:
        raise translate(error, where) from error


_INVALID = rejected("record.invalid", "The value does not fit the field.")
_LONG = rejected("record.too_long", "The value is longer than the field.")
_REQUIRED = rejected("record.required", "The field needs a value.")
_RANGE = rejected("record.out_of_range", "The value is out of the field's range.")
_REFERENCE = rejected(
    "record.reference_missing", "A record that this one refers to, or is referred by, is amiss."
)
_REFUSALS: dict[int, WriteProblem] = {
    **dict.fromkeys((1022, 1062, 1586), DUPLICATE),
    **dict.fromkeys((1216, 1217, 1451, 1452), _REFERENCE),
    **dict.fromkeys((1048, 1263, 1364), _REQUIRED),
    **dict.fromkeys((1406, 1301, 1162), _LONG),
    **dict.fromkeys((1264, 1690, 1441), _RANGE),
    **dict.fromkeys((1265, 1292, 1366, 1411, 1300, 3140, 3141, 3156, 1416, 1367), _INVALID),
    **dict.fromkeys((3819, 4025, 1369), rejected("record.invalid", "A check refuses the record.")),
    1644: rejected("record.invalid", "A trigger of the table refuses it."),
}
_FIELD = re.compile(
    r"(?:for column |^Column |^Field )(?:`[^`]*`\.`[^`]*`\.)?[`']([^`']+)[`']", re.DOTALL
)


def refusal(error: BaseException) -> WriteProblem | None:
    """Why a record was refused, or None when the error is not about a record."""
    problem = _REFUSALS.get(_code(error))
    if problem is None or problem.code in {"record.duplicate", "record.reference_missing"}:
        return problem
    match = _FIELD.search(str(error.args[1])) if len(error.args) > 1 else None
    return WriteProblem(problem.status, problem.code, problem.message, match[1] if match else "")
