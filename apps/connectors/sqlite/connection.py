"""Opening a SQLite database and telling its errors apart."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote as quote_url

from pydantic import Field

from apps.connectors import errors
from apps.connectors.base import ConnectorSettings, WriteProblem
from apps.connectors.reach import require_reachable
from apps.connectors.sql_writing import DUPLICATE, rejected

READ_WAIT_SECONDS = 30.0


class SqliteSettings(ConnectorSettings):
    """Where a SQLite database is."""

    location: ClassVar[tuple[str, ...]] = ("path",)

    path: str = Field(
        title="Database file",
        description="Absolute path of the database file, as the workers see it.",
        min_length=1,
    )
    read_only: bool = Field(
        default=False,
        title="Read only",
        description="Never write to this database, whatever a rule says.",
    )


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def connect(
    settings: SqliteSettings, *, write: bool = False, wait_seconds: float = READ_WAIT_SECONDS
) -> sqlite3.Connection:
    """Open the database. Raises Unreachable, PermissionRefused."""
    if write and settings.read_only:
        raise errors.PermissionRefused(
            "the source is set to read only",
            where=settings.path,
            remedy="Switch off 'Read only' in the source's settings.",
        )
    if not Path(settings.path).is_absolute():
        raise errors.ConfigurationError(
            "the file's path is not absolute",
            where=settings.path,
            remedy="Give the path from the root, '/…': workers may start elsewhere.",
        )
    require_reachable(Path(settings.path), "file")
    if not Path(settings.path).is_file():
        raise errors.Unreachable(
            "there is no such file",
            where=settings.path,
            remedy="Check the path, and that the workers' machine has this file.",
        )
    mode = "rw" if write else "ro"
    with translated(settings.path):
        connection = sqlite3.connect(
            f"file:{quote_url(settings.path)}?mode={mode}",
            uri=True,
            isolation_level=None,
            timeout=wait_seconds,
            check_same_thread=False,
        )
        try:
            connection.text_factory = decode_text
            connection.execute("PRAGMA schema_version").fetchone()
            if write:
                connection.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            connection.close()
            raise
    return connection


def decode_text(data: bytes) -> str:
    """Text as it is stored; bytes that are not UTF-8 become lone surrogates, found later."""
    return data.decode("utf-8", "surrogateescape")


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, where) from error


_BY_CODE: dict[str, tuple[type[errors.LockstepError], str]] = {
    "SQLITE_BUSY": (errors.TargetBusy, "another connection holds the database's lock"),
    "SQLITE_LOCKED": (errors.TargetBusy, "another connection holds the table's lock"),
    "SQLITE_INTERRUPT": (errors.TargetBusy, "the statement took longer than the lease allows"),
    "SQLITE_FULL": (errors.OutOfSpace, "the disk is full"),
    "SQLITE_IOERR": (errors.ConnectionLost, "the file could not be read or written"),
    "SQLITE_CANTOPEN": (errors.Unreachable, "the file cannot be opened"),
    "SQLITE_READONLY": (errors.PermissionRefused, "the file or its folder cannot be written"),
    "SQLITE_PERM": (errors.PermissionRefused, "the file cannot be accessed"),
    "SQLITE_AUTH": (errors.PermissionRefused, "the file cannot be accessed"),
    "SQLITE_NOTADB": (errors.ConfigurationError, "the file is not a SQLite database"),
    "SQLITE_CORRUPT": (errors.ConfigurationError, "the database file is damaged"),
}


def translate(error: sqlite3.Error, where: str) -> errors.LockstepError:
    """Our error for one of SQLite's. It never repeats a value."""
    name = str(getattr(error, "sqlite_errorname", "") or "")
    primary = "_".join(name.split("_")[:2])
    if primary in _BY_CODE:
        kind, message = _BY_CODE[primary]
        return kind(message, where=where)
    text = str(error)
    if text.startswith("no such table"):
        return errors.DatasetMissing("there is no such table", where=where)
    if text.startswith("no such column") or "has no column named" in text:
        return errors.FieldMissing("the table lacks one of the fields", where=where)
    return errors.SchemaMismatch(f"SQLite refused the statement ({name or 'error'})", where=where)


_REFUSALS = {
    "SQLITE_CONSTRAINT_UNIQUE": DUPLICATE,
    "SQLITE_CONSTRAINT_PRIMARYKEY": DUPLICATE,
    "SQLITE_CONSTRAINT_ROWID": DUPLICATE,
    "SQLITE_CONSTRAINT_NOTNULL": rejected("record.required", "The field needs a value."),
    "SQLITE_CONSTRAINT_FOREIGNKEY": rejected(
        "record.reference_missing", "A record that this one refers to, or is referred by, is amiss."
    ),
    "SQLITE_CONSTRAINT_CHECK": rejected("record.invalid", "A check of the table refuses it."),
    "SQLITE_CONSTRAINT_DATATYPE": rejected("record.invalid", "The value has the wrong type."),
    "SQLITE_TOOBIG": rejected("record.too_long", "The value is longer than SQLite allows."),
    "SQLITE_MISMATCH": rejected("record.invalid", "The value has the wrong type."),
}


def refusal(error: sqlite3.Error) -> WriteProblem | None:
    """Why a record was refused, or None when the error is not about a record."""
    name = str(getattr(error, "sqlite_errorname", "") or "")
    problem = _REFUSALS.get(name)
    if problem is None and name.startswith("SQLITE_CONSTRAINT"):
        problem = rejected("record.invalid", "A constraint or trigger of the table refuses it.")
    if problem is None:
        return None
    _, _, columns = str(error).partition("constraint failed: ")
    if problem.code in {"record.required", "record.duplicate"} and columns.count(", ") == 0:
        field = columns.rpartition(".")[2]
        return WriteProblem(problem.status, problem.code, problem.message, field)
    return problem
