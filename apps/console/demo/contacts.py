"""The contacts that the CRM and the support desk both keep, and what their users do with them.

The desk is a SQLite database with its own names and ids. When the demo begins, both sides know
some of the people, and each side knows some that the other does not. `edit` then works on both
sides at once: some edits merge, two contradict each other. `clear_out` deletes more contacts than
the rule lets pass without a person.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

from apps.console.demo import words

CRM, DESK = "crm.sqlite3", "desk.sqlite3"
CONTACTS, SHARED = 24, 12  # contacts of the CRM; so many of them are known to the desk
TWICE = 9  # this contact stands at the desk twice
CONTACTS_TABLE = """
CREATE TABLE contacts (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT, phone TEXT, city TEXT, country TEXT,
    points INTEGER, tags TEXT, note TEXT
);
"""
REQUESTERS_TABLE = """
CREATE TABLE requesters (
    requester_id INTEGER PRIMARY KEY, display_name VARCHAR(60) NOT NULL, mail VARCHAR(120),
    phone_number VARCHAR(30), town VARCHAR(40), region VARCHAR(40), loyalty INTEGER, labels TEXT,
    remark TEXT
);
"""
CITIES = ("Berlin", "Oslo", "Lyon", "Porto", "Turin", "Malmö")
NOTE = "Prefers to be called.\nAsk for the branch office.\nPays by invoice."
CRM_EDITS = (
    "UPDATE contacts SET phone = '+49 30 7770001' WHERE id = 1",
    "UPDATE contacts SET points = points + 20 WHERE id = 2",
    "UPDATE contacts SET tags = tags || ',vip' WHERE id = 3",
    "UPDATE contacts SET note = replace(note, 'called', 'written to') WHERE id = 4",
    "UPDATE contacts SET city = 'Hamburg' WHERE id = 5",
    "UPDATE contacts SET name = name || '-Lindgren' WHERE id = 6",
    "INSERT INTO contacts (name, email, phone, city, country, points, tags) VALUES "
    "('Nele Neumann', 'Nele.Neumann@Example.org', '+49 30 7770099', 'Kiel', 'DE', 5, 'lead')",
)
DESK_EDITS = (  # by e-mail address: the desk has its own ids
    ("town = 'Potsdam'", 1),  # another field than in the CRM: both edits are kept
    ("loyalty = loyalty - 5", 2),  # a counter: both count
    ("labels = labels || ',newsletter'", 3),  # a set: both are kept
    ("remark = replace(remark, 'invoice', 'card')", 4),  # another line of the text
    ("town = 'Bremen'", 5),  # contradicts the CRM: a person decides
    ("display_name = display_name || '-Holm'", 6),  # likewise
    ("mail = 'office.' || mail", 7),  # goes back to the CRM
    ("region = 'Nowhere'", 8),  # derived: overruled
)


def create(folder: Path) -> None:
    """Add the contacts to the CRM and write the desk anew."""
    people = [_person(number) for number in range(1, CONTACTS + 1)]
    with closing(sqlite3.connect(folder / CRM)) as database, database:
        database.executescript(CONTACTS_TABLE)
        _insert(database, "contacts", people)
    (folder / DESK).unlink(missing_ok=True)
    with closing(sqlite3.connect(folder / DESK)) as database, database:
        database.executescript(REQUESTERS_TABLE)
        _insert(database, "requesters", list(_requesters(people)))


def edit(folder: Path) -> None:
    """What both sides' users do between the first two runs."""
    with closing(sqlite3.connect(folder / CRM, timeout=30)) as database, database:
        for statement in CRM_EDITS:
            database.execute(statement)
    with closing(sqlite3.connect(folder / DESK, timeout=30)) as database, database:
        for change, number in DESK_EDITS:
            mail = str(_person(number)[2]).lower()
            database.execute(f"UPDATE requesters SET {change} WHERE mail = ?", (mail,))  # noqa: S608  # nosec B608  # names of the demo
        database.execute(
            "INSERT INTO requesters (display_name, mail, town, loyalty) VALUES "
            "('Walk-in Wanda', 'wanda@walkin.example', 'Ghent', 1)"
        )


def clear_out(folder: Path) -> None:
    """Somebody removes five contacts from the CRM."""
    with closing(sqlite3.connect(folder / CRM, timeout=30)) as database, database:
        database.execute("DELETE FROM contacts WHERE id BETWEEN 14 AND 18")


def _person(number: int) -> tuple[object, ...]:
    first = words.FIRST_NAMES[number * 7 % len(words.FIRST_NAMES)]
    last = words.LAST_NAMES[number * 11 % len(words.LAST_NAMES)]
    return (
        number,
        f"{first} {last}",
        f"{first}.{last}@Example.org",
        f"+49 30 {7_000_000 + number}",
        CITIES[number % len(CITIES)],
        ("DE", "NO", "FR", "PT", "IT", "SE")[number % 6],
        number * 10,
        "customer,early" if number % 2 else "customer",
        NOTE if number % 4 == 0 else None,
    )


def _requesters(people: Sequence[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    """Known people as the desk knows them, one of them twice, and two of its own."""
    for place, person in enumerate(people[:SHARED]):
        _, name, email, phone, city, _, points, tags, note = person
        town = "Unknown" if place == 2 else city  # the CRM knows better on first contact
        mail = str(email).lower()
        yield (5001 + place, name, mail, phone, town, None, points, tags, note)
    _, name, email, phone, *_ = people[TWICE - 1]
    yield (5101, f"{name} (private)", str(email).lower(), phone, *(None,) * 5)
    yield (5102, "Night Porter", "porter@hotel.example", None, "Ghent", None, 3, None, None)
    yield (5103, "Front Office", "office@hotel.example", None, "Ghent", None, 0, None, None)


def _insert(database: sqlite3.Connection, table: str, rows: list[tuple[object, ...]]) -> None:
    marks = ", ".join("?" * len(rows[0]))
    database.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)  # noqa: S608  # nosec B608  # names of the demo
