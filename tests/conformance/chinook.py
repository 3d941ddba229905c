"""The tables of the Chinook sample database, with rows of our own, for SQLite and for targets.

Shapes follow https://github.com/lerocha/chinook-database (MIT); the rows here are made up.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apps.engine.suggest import snake_case


@dataclass(frozen=True)
class Table:
    """A table: columns as `Name type`, `!` marks NOT NULL, `>Table` a reference."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def names(self) -> list[str]:
        return [column.split()[0] for column in self.columns]

    def ddl(self, dialect: str) -> str:
        """For SQLite with Chinook's names, or for a target with snake_case and references."""
        rename = str if dialect == "sqlite" else snake_case
        lines = []
        for column in self.columns:
            name, kind, *marks = column.split()
            if dialect == "postgresql" and kind == "DATETIME":
                kind = "TIMESTAMP"
            lines.append(f"{rename(name)} {kind}{' NOT NULL' if '!' in marks else ''}")
        lines.append(f"PRIMARY KEY ({', '.join(map(rename, self.key))})")
        for column in self.columns:
            name, _, *marks = column.split()
            for mark in marks:
                if mark.startswith(">"):
                    target = next(table for table in TABLES if table.name == mark[1:])
                    to = f"{rename(target.name)} ({rename(target.key[0])})"
                    lines.append(f"FOREIGN KEY ({rename(name)}) REFERENCES {to}")
        return f"CREATE TABLE {rename(self.name)} ({', '.join(lines)})"


def _people(extra: tuple[str, ...]) -> tuple[str, ...]:
    address = ("Address VARCHAR(70)", "City VARCHAR(40)", "State VARCHAR(40)")
    rest = ("Country VARCHAR(40)", "PostalCode VARCHAR(10)", "Phone VARCHAR(24)", "Fax VARCHAR(24)")
    return (*extra, *address, *rest)


TABLES = (
    Table("Artist", ("ArtistId INTEGER !", "Name VARCHAR(120)"), ("ArtistId",)),
    Table("Genre", ("GenreId INTEGER !", "Name VARCHAR(120)"), ("GenreId",)),
    Table("MediaType", ("MediaTypeId INTEGER !", "Name VARCHAR(120)"), ("MediaTypeId",)),
    Table("Playlist", ("PlaylistId INTEGER !", "Name VARCHAR(120)"), ("PlaylistId",)),
    Table(
        "Employee",
        (
            *_people(
                (
                    "EmployeeId INTEGER !",
                    "LastName VARCHAR(20) !",
                    "FirstName VARCHAR(20) !",
                    "Title VARCHAR(30)",
                    "ReportsTo INTEGER >Employee",
                    "BirthDate DATETIME",
                    "HireDate DATETIME",
                )
            ),
            "Email VARCHAR(60)",
        ),
        ("EmployeeId",),
    ),
    Table(
        "Album",
        ("AlbumId INTEGER !", "Title VARCHAR(160) !", "ArtistId INTEGER ! >Artist"),
        ("AlbumId",),
    ),
    Table(
        "Customer",
        (
            *_people(
                (
                    "CustomerId INTEGER !",
                    "FirstName VARCHAR(40) !",
                    "LastName VARCHAR(20) !",
                    "Company VARCHAR(80)",
                )
            ),
            "Email VARCHAR(60) !",
            "SupportRepId INTEGER >Employee",
        ),
        ("CustomerId",),
    ),
    Table(
        "Invoice",
        (
            "InvoiceId INTEGER !",
            "CustomerId INTEGER ! >Customer",
            "InvoiceDate DATETIME !",
            "BillingAddress VARCHAR(70)",
            "BillingCity VARCHAR(40)",
            "BillingState VARCHAR(40)",
            "BillingCountry VARCHAR(40)",
            "BillingPostalCode VARCHAR(10)",
            "Total NUMERIC(10,2) !",
        ),
        ("InvoiceId",),
    ),
    Table(
        "Track",
        (
            "TrackId INTEGER !",
            "Name VARCHAR(200) !",
            "AlbumId INTEGER >Album",
            "MediaTypeId INTEGER ! >MediaType",
            "GenreId INTEGER >Genre",
            "Composer VARCHAR(220)",
            "Milliseconds INTEGER !",
            "Bytes INTEGER",
            "UnitPrice NUMERIC(10,2) !",
        ),
        ("TrackId",),
    ),
    Table(
        "InvoiceLine",
        (
            "InvoiceLineId INTEGER !",
            "InvoiceId INTEGER ! >Invoice",
            "TrackId INTEGER ! >Track",
            "UnitPrice NUMERIC(10,2) !",
            "Quantity INTEGER !",
        ),
        ("InvoiceLineId",),
    ),
    Table(
        "PlaylistTrack",
        ("PlaylistId INTEGER ! >Playlist", "TrackId INTEGER ! >Track"),
        ("PlaylistId", "TrackId"),
    ),
)


def write_sample(path: Path) -> None:
    """A small SQLite database of these tables, with our own rows."""
    with closing(sqlite3.connect(path)) as database, database:
        for table in TABLES:
            database.execute(table.ddl("sqlite"))
            rows = [[_value(table, name, n) for name in table.names] for n in range(1, 13)]
            marks = ", ".join("?" * len(table.names))
            database.executemany(f"INSERT INTO {table.name} VALUES ({marks})", rows)


def _value(table: Table, column: str, number: int) -> Any:
    """Plain, missing, long, empty and far-away values, by number."""
    kind, *marks = next(c.split()[1:] for c in table.columns if c.split()[0] == column)
    if column == "ReportsTo":
        return None if number == 1 else 13 - number if number < 6 else 1
    if number == 5 and "!" not in marks and column not in table.key:
        return None
    if kind == "INTEGER":
        return number
    if kind == "DATETIME":
        return f"19{60 + number}-02-2{number % 9} 0{number % 10}:30:00"
    if kind.startswith("NUMERIC"):
        return [0, 0.99, 12.5, 19_999_999.25, -1.1][number % 5]
    length = int(kind.split("(")[1].rstrip(")"))
    texts = ("", "Ærøskøbing", " blanks ", "東京", 'it\'s "quoted"', "line\nbreak", "x" * length)
    return texts[(number + len(column)) % len(texts)][:length]


def source_rows(path: Path, table: Table) -> list[tuple[Any, ...]]:
    """The rows of a Chinook SQLite file, as a target of the right types gives them."""
    from datetime import datetime
    from decimal import Decimal

    kinds = [column.split()[1] for column in table.columns]
    with closing(sqlite3.connect(path)) as database:
        found = database.execute(f"SELECT {', '.join(table.names)} FROM {table.name}").fetchall()
    convert = {
        "DATETIME": datetime.fromisoformat,
        "NUMERIC(10,2)": lambda value: Decimal(str(value)).quantize(Decimal("0.01")),
    }
    return sorted(
        (
            tuple(
                value if value is None else convert.get(kind, lambda same: same)(value)
                for value, kind in zip(row, kinds, strict=True)
            )
            for row in found
        ),
        key=repr,
    )
