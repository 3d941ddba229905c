"""A whole database kept in step in three places, as docs/how-to/chinook-two-way.md does it.

SQLite ↔ MariaDB ↔ PostgreSQL: two rules per table share the dataset in the middle. The office's
ids are its own, so that references are compared through the links between both.
"""

from __future__ import annotations

import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC
from decimal import Decimal
from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.engine.suggest import snake_case
from apps.ledger.models import Link
from apps.rules.configuration import apply, read_file
from apps.rules.models import Rule
from apps.runs.services import request_run, work_until_finished
from tests.conformance.chinook import TABLES, Table, source_rows, write_sample
from tests.conformance.test_chinook import DATA_SETS, REAL, Server, run_all
from tests.platforms import lines

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql, pytest.mark.mariadb]
DOCS = Path(__file__).resolve().parent.parent.parent / "docs" / "how-to"

Row = dict[str, Any]


@dataclass(frozen=True)
class Reference:
    """A column of the office that holds the office's id of a record of another table."""

    column: str
    table: str


# By table of the warehouse: the office's table, and its columns: a column of the warehouse, a
# reference, or what the office makes of a row.
ADDRESS = {
    "street": "address",
    "town": "city",
    "region": "state",
    "country": "country",
    "postcode": "postal_code",
}
OFFICE: dict[str, tuple[str, dict[str, str | Reference | Callable[[Row], Any]]]] = {
    "artist": ("artists", {"stage_name": "name"}),
    "genre": ("genres", {"title": "name"}),
    "media_type": ("formats", {"title": "name"}),
    "playlist": ("playlists", {"title": "name"}),
    "employee": (
        "staff",
        {
            "surname": "last_name",
            "forename": "first_name",
            "job": "title",
            "manager_id": Reference("reports_to", "employee"),
            "born_on": lambda row: row["birth_date"] and row["birth_date"].date(),
            "hired_on": lambda row: row["hire_date"] and row["hire_date"].date(),
            **ADDRESS,
            "phone": "phone",
            "fax": "fax",
            "email": "email",
        },
    ),
    "album": ("albums", {"title": "title", "artist_id": Reference("artist_id", "artist")}),
    "customer": (
        "clients",
        {
            "forename": "first_name",
            "surname": "last_name",
            "company": "company",
            **ADDRESS,
            "phone": "phone",
            "fax": "fax",
            "email": "email",
            "contact_id": Reference("support_rep_id", "employee"),
        },
    ),
    "invoice": (
        "invoices",
        {
            "client_id": Reference("customer_id", "customer"),
            "issued_at": lambda row: row["invoice_date"].replace(tzinfo=UTC),
            **{name: f"billing_{column}" for name, column in ADDRESS.items()},
            "amount": "total",
        },
    ),
    "track": (
        "tracks",
        {
            "title": "name",
            "album_id": Reference("album_id", "album"),
            "format_id": Reference("media_type_id", "media_type"),
            "genre_id": Reference("genre_id", "genre"),
            "composer": "composer",
            "seconds": lambda row: Decimal(row["milliseconds"]).scaleb(-3),
            "size": "bytes",
            "price": "unit_price",
        },
    ),
    "invoice_line": (
        "invoice_items",
        {
            "invoice_id": Reference("invoice_id", "invoice"),
            "track_id": Reference("track_id", "track"),
            "price": "unit_price",
            "pieces": "quantity",
        },
    ),
    "playlist_track": (
        "playlist_tracks",
        {
            "playlist_id": Reference("playlist_id", "playlist"),
            "track_id": Reference("track_id", "track"),
        },
    ),
}


class Places:
    """The three databases."""

    def __init__(self, file: Path, warehouse: str, office: str) -> None:
        self.file = file
        self.mariadb, self.postgresql = Server("mariadb"), Server("postgresql")
        self.warehouse, self.office = warehouse, office

    def on_shop(self, *statements: str) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def on_warehouse(self, *statements: str) -> None:
        self.mariadb.execute(self.warehouse, *statements)

    def on_office(self, *statements: str) -> None:
        self.postgresql.execute(self.office, *statements)

    def of_warehouse(self, table: Table) -> list[tuple[Any, ...]]:
        columns = ", ".join(map(snake_case, table.names))
        return self.mariadb.rows(self.warehouse, f"SELECT {columns} FROM {snake_case(table.name)}")

    def of_office(self, sql: str) -> list[tuple[Any, ...]]:
        return self.postgresql.rows(self.office, sql)

    def configure(self) -> None:
        for name, execute in (("mariadb", self.on_warehouse), ("postgresql", self.on_office)):
            script = (DOCS / f"chinook-two-way.{name}.sql").read_text()
            execute(*(s for s in re.split(r";\n", script) if s.strip()))
        variables = {"CHINOOK_FILE": str(self.file)}
        for prefix, server, database in (
            ("WAREHOUSE", self.mariadb, self.warehouse),
            ("OFFICE", self.postgresql, self.office),
        ):
            variables |= {
                f"{prefix}_HOST": server.host,
                f"{prefix}_PORT": str(server.port),
                f"{prefix}_DATABASE": database,
                f"{prefix}_USER": server.user,
                f"{prefix}_PASSWORD": server.password,
            }
        document = read_file(DOCS / "chinook-two-way.yaml")
        apply(document, actor=None, variables=variables)
        assert apply(document, actor=None, variables=variables).is_empty


@pytest.fixture
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Places]:
    path = tmp_path / "chinook.sqlite"
    if request.param == "real":
        shutil.copy(Path(REAL) / "Chinook_Sqlite.sqlite", path)
    else:
        write_sample(path)
    mariadb, postgresql = Server("mariadb"), Server("postgresql")
    warehouse, office = mariadb.new_database(), postgresql.new_database()
    yield Places(path, warehouse, office)
    mariadb.drop_database(warehouse)
    postgresql.drop_database(office)


def office_ids() -> dict[str, dict[int, int]]:
    """By table of the warehouse: the office's id by the warehouse's."""
    ids: dict[str, dict[int, int]] = {}
    for table in OFFICE:
        links = Link.objects.filter(rule_id=Rule.objects.get(name=f"office/{table}").pk)
        pairs = [(orjson.loads(link.left_key), orjson.loads(link.right_key)) for link in links]
        ids[table] = {int(left[0]): int(right[0]) for left, right in pairs if len(left) == 1}
    return ids


def expected_at_office(table: Table, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """What the office holds, given the warehouse's rows: (its own id and) its columns."""
    ids = office_ids()
    names = [snake_case(name) for name in table.names]
    expected = []
    for values in rows:
        row = dict(zip(names, values, strict=True))
        found: list[Any] = []
        for origin in OFFICE[snake_case(table.name)][1].values():
            if isinstance(origin, Reference):
                key = row[origin.column]
                found.append(None if key is None else ids[origin.table][key])
            else:
                found.append(row[origin] if isinstance(origin, str) else origin(row))
        if len(table.key) == 1:
            found.insert(0, ids[snake_case(table.name)][row[snake_case(table.key[0])]])
        expected.append(tuple(found))
    return sorted(expected, key=repr)


def assert_equal_everywhere(places: Places) -> None:
    """All three databases hold the same, value by value, under the mappings."""
    for table in TABLES:
        warehouse = places.of_warehouse(table)
        assert warehouse == source_rows(places.file, table), table.name
        name, columns = OFFICE[snake_case(table.name)]
        own = ["id"] if len(table.key) == 1 else []
        office = places.of_office(f"SELECT {', '.join([*own, *columns])} FROM {name}")
        assert office == expected_at_office(table, warehouse), table.name


def run_rules(*names: str) -> None:
    for name in names:
        run = work_until_finished(request_run(Rule.objects.get(name=name), actor=None))
        assert run.status == "succeeded", (name, lines(run))


def edit_everywhere(places: Places) -> None:
    """Edits, inserts and deletes on each side; one customer is edited on all three."""
    ids = office_ids()
    places.on_shop(
        "UPDATE Customer SET City = 'Shop town' WHERE CustomerId = 2",
        "INSERT INTO Artist (ArtistId, Name) VALUES (5000, 'Shop artist')",
        "UPDATE Track SET Milliseconds = 1234567 WHERE TrackId = 3",
        "DELETE FROM InvoiceLine WHERE InvoiceLineId = 4",
    )
    places.on_warehouse(
        "UPDATE customer SET phone = '+49 1' WHERE customer_id = 2",
        "INSERT INTO artist (name) VALUES ('Warehouse artist')",
        "UPDATE track SET unit_price = 1.25 WHERE track_id = 3",
        "DELETE FROM invoice_line WHERE invoice_line_id = 5",
    )
    places.on_office(
        f"UPDATE clients SET forename = 'Office name' WHERE id = {ids['customer'][2]}",
        f"INSERT INTO albums (title, artist_id) VALUES ('Office album', {ids['artist'][2]})",
        f"UPDATE tracks SET seconds = 61.5 WHERE id = {ids['track'][4]}",
        f"DELETE FROM invoice_items WHERE id = {ids['invoice_line'][6]}",
        f"UPDATE staff SET manager_id = {ids['employee'][3]} WHERE id = {ids['employee'][6]}",
        "WITH head AS (INSERT INTO staff (surname, forename, born_on) "
        "VALUES ('Head', 'Office', '1970-02-03') RETURNING id) "
        "INSERT INTO staff (surname, forename, manager_id) SELECT 'Aide', 'Office', id FROM head",
    )


@pytest.mark.parametrize("places", DATA_SETS, indirect=True)
def test_three_databases_are_kept_in_step(places: Places) -> None:
    places.configure()
    assert len({run.rule.name for run in run_all()}) == 22
    run_rules("office/employee")  # who reports to whom: all employees are linked now
    assert_equal_everywhere(places)
    assert any(row[0] for row in places.of_office("SELECT manager_id FROM staff"))

    edit_everywhere(places)
    run_rules("shop/Artist", "office/artist")
    run_rules("office/employee", "office/employee", "shop/Employee")
    run_rules("office/album", "shop/Album")
    for table in ("Customer", "Track", "InvoiceLine"):  # edited at both ends
        run_rules(f"shop/{table}", f"office/{snake_case(table)}", f"shop/{table}")
    assert_equal_everywhere(places)
    assert_all_edits_arrived(places)
    assert [(run.rule.name, run.planned) for run in run_all() if run.planned] == []


def assert_all_edits_arrived(places: Places) -> None:
    """In the warehouse, which the other two equal."""

    def found(sql: str) -> list[tuple[Any, ...]]:
        return places.mariadb.rows(places.warehouse, sql)

    assert found("SELECT first_name, city, phone FROM customer WHERE customer_id = 2") == [
        ("Office name", "Shop town", "+49 1")
    ]
    assert found("SELECT name FROM artist WHERE name LIKE '% artist'") == [
        ("Shop artist",),
        ("Warehouse artist",),
    ]
    assert found("SELECT artist_id FROM album WHERE title = 'Office album'") == [(2,)]
    assert found(
        "SELECT track_id, milliseconds FROM track WHERE milliseconds IN (1234567, 61500)"
    ) == [(3, 1_234_567), (4, 61_500)]
    assert found("SELECT unit_price FROM track WHERE track_id = 3") == [(Decimal("1.25"),)]
    assert found("SELECT * FROM invoice_line WHERE invoice_line_id IN (4, 5, 6)") == []
    assert found("SELECT reports_to FROM employee WHERE employee_id = 6") == [(3,)]
    assert found(
        "SELECT head.last_name FROM employee AS aide JOIN employee AS head "
        "ON head.employee_id = aide.reports_to WHERE aide.last_name = 'Aide'"
    ) == [("Head",)]
