"""The demo's platforms in a folder, with the same values each time.

CRM (SQLite): companies and customers. Shop export: orders.csv, products.jsonl and an archive of
last year's orders, compressed. Warehouse (SQLite): the target, with its own names, types and
constraints, and a few rows of its own that nobody may touch. Some records are wrong on purpose.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from apps.console.demo import contacts, words

SEED = 20_260_101
COMPANIES, CUSTOMERS, PRODUCTS, ORDERS, ARCHIVED = 40, 240, 60, 320, 80
BUYERS = 180  # customers with a higher number never ordered anything
START = datetime(2026, 1, 5, 8, 0, 0)  # noqa: DTZ001  the CRM keeps wall clock time

CRM_TABLES = """
CREATE TABLE companies (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, country TEXT, vat_number TEXT, industry TEXT,
    updated_at TIMESTAMP NOT NULL
);
CREATE TABLE customers (
    id INTEGER PRIMARY KEY, company_id INTEGER REFERENCES companies (id), first_name TEXT NOT NULL,
    last_name TEXT NOT NULL, email TEXT, phone TEXT, country TEXT, status TEXT NOT NULL,
    newsletter BOOLEAN NOT NULL, created_on DATE NOT NULL, updated_at TIMESTAMP NOT NULL
);
CREATE INDEX customers_by_change ON customers (updated_at);
"""
WAREHOUSE_TABLES = """
CREATE TABLE dim_company (
    company_id INTEGER PRIMARY KEY, name VARCHAR(80) NOT NULL, country_code CHAR(2) NOT NULL,
    country_name VARCHAR(60) NOT NULL, vat VARCHAR(20) UNIQUE, industry VARCHAR(40) NOT NULL,
    source_system VARCHAR(20) NOT NULL
);
CREATE TABLE dim_customer (
    customer_id INTEGER PRIMARY KEY, full_name VARCHAR(80) NOT NULL,
    email VARCHAR(120) NOT NULL UNIQUE, phone VARCHAR(30),
    company_id INTEGER REFERENCES dim_company (company_id), country_name VARCHAR(60) NOT NULL,
    segment VARCHAR(20) NOT NULL CHECK (segment IN ('engaged', 'customer', 'prospect')),
    customer_since DATE NOT NULL, is_active BOOLEAN NOT NULL, source_system VARCHAR(20) NOT NULL
);
CREATE TABLE dim_product (
    sku VARCHAR(20) PRIMARY KEY, title VARCHAR(60) NOT NULL, category VARCHAR(40) NOT NULL,
    list_price NUMERIC(10,2) NOT NULL CHECK (list_price > 0), in_stock BOOLEAN NOT NULL
);
CREATE TABLE fact_order (
    order_no VARCHAR(20) PRIMARY KEY,
    customer_id INTEGER NOT NULL REFERENCES dim_customer (customer_id),
    sku VARCHAR(20) NOT NULL REFERENCES dim_product (sku), quantity INTEGER NOT NULL,
    amount NUMERIC(12,2) NOT NULL, currency CHAR(3) NOT NULL, ordered_at TIMESTAMP NOT NULL
);
"""
ORDER_FIELDS = (
    "order_no",
    "customer_no",
    "sku",
    "quantity",
    "unit_price",
    "currency",
    "ordered_at",
)
ORDER_SCHEMA = {
    "fields": [
        {"name": "order_no", "type": "text(20)", "nullable": False},
        {"name": "customer_no", "type": "integer"},
        {"name": "sku", "type": "text(20)"},
        {"name": "quantity", "type": "integer"},
        {"name": "unit_price", "type": "decimal(10,2)"},
        {"name": "currency", "type": "text(3)"},
        {"name": "ordered_at", "type": "timestamp"},
    ],
    "key": ["order_no"],
}
PRODUCT_SCHEMA = {
    "fields": [
        {"name": "sku", "type": "text(20)", "nullable": False},
        {"name": "title", "type": "text"},
        {"name": "category", "type": "text"},
        {"name": "price", "type": "decimal(10,2)"},
        {"name": "stock", "type": "integer"},
        {"name": "tags", "type": "json"},
    ],
    "key": ["sku"],
}
BROKEN_ORDERS = (
    'SO-2001,17,"SK-012,1,49.90,EUR,2026-03-02T09:10:00',  # a quote that never closes
    "SO-2002,21,SK-013,2,19.90,EUR,2026-03-02T09:30:00,gift wrap, please",  # too many columns
    "SO-2003,22,SK-014",  # cut off
    "SO-2004,23,SK-015,three,24.50,EUR,2026-03-03T10:00:00",  # no number
    "SO-2005,24,SK-016,0,24.50,EUR,2026-03-03T11:00:00",  # out of range
    "SO-2006,25,SK-017,1,99950.00,EUR,2026-03-03T12:00:00",  # out of range
    "SO-2007,9999,SK-018,1,24.50,EUR,2026-03-03T13:00:00",  # no such customer
    "SO-2008,26,SK-999,1,24.50,EUR,2026-03-03T14:00:00",  # no such product
    "SO-2009,27,SK-019,1,24.50,EUR,2026-02-30T15:00:00",  # no such day
)


def create(folder: Path) -> None:
    """Write all three platforms anew."""
    shop = folder / "shop"
    shop.mkdir(parents=True, exist_ok=True)
    chance = random.Random(SEED)  # noqa: S311  # nosec B311  # the same each time
    _new_database(folder / "crm.sqlite3", CRM_TABLES)
    _new_database(folder / "warehouse.sqlite3", WAREHOUSE_TABLES)
    with closing(sqlite3.connect(folder / "crm.sqlite3")) as database:
        _fill(database, "companies", _companies(chance))
        _fill(database, "customers", _customers(chance))
    contacts.create(folder)
    _write_products(shop, chance)
    _write_orders(shop, chance)
    with closing(sqlite3.connect(folder / "warehouse.sqlite3")) as database:
        _fill_warehouse(database)


def _new_database(path: Path, tables: str) -> None:
    path.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(tables)


def _fill(database: sqlite3.Connection, table: str, rows: Iterator[tuple[object, ...]]) -> None:
    content = list(rows)
    marks = ", ".join("?" * len(content[0]))
    with database:
        database.executemany(f"INSERT INTO {table} VALUES ({marks})", content)  # noqa: S608  # nosec B608  # names of the demo


def _moment(number: int) -> str:
    return str(START + timedelta(minutes=37 * number))


def _companies(chance: random.Random) -> Iterator[tuple[object, ...]]:
    for number in range(1, COMPANIES + 1):
        name = f" {words.FIRM_WORDS[number % 20]} {words.FIRM_KINDS[number % 6]} "
        country = "XX" if number == 13 else words.COUNTRIES[number % len(words.COUNTRIES)]
        vat = number - 1 if number == 29 else number  # two firms with one number
        digits = f"{1_000_000 + 7_919 * vat}"
        yield (
            number,
            name,
            country,
            f"vat {digits[:3]} {digits[3:]}",
            chance.choice(words.INDUSTRIES) or None,
            _moment(number),
        )


def _customers(chance: random.Random) -> Iterator[tuple[object, ...]]:
    for number in range(1, CUSTOMERS + 1):
        first, last = chance.choice(words.FIRST_NAMES), chance.choice(words.LAST_NAMES)
        closed = 0 if number <= BUYERS else 30
        status = chance.choices(("active", "lead", "closed"), (70, 30, closed))[0]
        yield (
            number,
            chance.randint(1, COMPANIES) if chance.random() < 0.7 else None,
            f" {first}",
            f"{last.upper() if number % 5 == 0 else last} ",
            _email(number, first, last),
            f"+49 30 {5_550_000 + number}" if number % 9 else None,
            chance.choice(words.COUNTRIES),
            "active" if number in BAD_EMAILS else status,
            chance.random() < 0.4,
            str((START - timedelta(days=chance.randint(30, 1500))).date()),
            _moment(COMPANIES + number),
        )


BAD_EMAILS = {
    57: "tessa.at.example.org",
    101: "  ",
    152: "finn@@example",
    199: "ROSA.5@EXAMPLE.ORG",  # somebody has this one already
}


def _email(number: int, first: str, last: str) -> str | None:
    if number == 5:
        return "rosa.5@example.org"
    plain = f"{first}.{last}.{number}@Example.org"
    return BAD_EMAILS.get(number, plain)


def _write_products(shop: Path, chance: random.Random) -> None:
    lines = []
    for number in range(1, PRODUCTS + 1):
        title = f"{words.MATERIALS[number % 6]} {words.GOODS[number % 10]}"
        if number == 44:
            title += ", made by hand in a small workshop by the sea, each one a little different"
        record = {
            "sku": f"SK-{number:03d}",
            "title": title,
            "category": words.CATEGORIES[number % 7],
            "price": "-1.00" if number == 31 else f"{chance.randint(900, 24_900) / 100:.2f}",
            "stock": chance.randint(0, 40),
            "tags": sorted(chance.sample(words.MATERIALS, 2)),
        }
        lines.append(json.dumps(record, ensure_ascii=False))
    lines.append('{"sku": "SK-061", "title": "glass Cloc')  # the export was interrupted
    (shop / "products.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_schema(shop / "products.jsonl", PRODUCT_SCHEMA)


def _write_orders(shop: Path, chance: random.Random) -> None:
    buyers = range(1, BUYERS + 1)
    lines = list(_orders(chance, "SO-1", ORDERS, START + timedelta(days=20), buyers))
    for place, broken in enumerate(BROKEN_ORDERS, start=1):
        lines.insert(place * 30, broken)
    _write_csv(shop / "orders.csv", lines)
    known = [number for number in buyers if number not in BAD_EMAILS]
    archive = _orders(chance, "SO-0", ARCHIVED, START - timedelta(days=200), known)
    _write_csv(shop / "orders-2025.csv.gz", list(archive))


def _orders(
    chance: random.Random, prefix: str, count: int, begin: datetime, buyers: Sequence[int]
) -> Iterator[str]:
    for number in range(1, count + 1):
        moment = begin + timedelta(minutes=271 * number)
        buyer, product = chance.choice(buyers), chance.randint(1, 30)
        price = chance.randint(900, 24_900) / 100
        yield (
            f"{prefix}{number:03d},{buyer},SK-{product:03d},{chance.randint(1, 6)},{price:.2f},"
            f"{chance.choice(('EUR', 'EUR', 'eur', 'NOK'))},{moment.isoformat()}"
        )


def _write_csv(path: Path, lines: list[str]) -> None:
    data = "\n".join([",".join(ORDER_FIELDS), *lines, ""]).encode()
    if path.suffix == ".gz":
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as stream:
            stream.write(data)
        data = packed.getvalue()
    path.write_bytes(data)
    _write_schema(path, ORDER_SCHEMA)


def _write_schema(path: Path, schema: object) -> None:
    sidecar = path.with_name(f"{path.name}.schema.json")
    sidecar.write_text(json.dumps(schema, indent=1) + "\n", encoding="utf-8")


def _fill_warehouse(database: sqlite3.Connection) -> None:
    """Rows that were there before Lockstep: some that it will match, some it must never touch."""
    company = (9001, "Old Mill Trading", "DE", "Germany", "OLD9001", "Retail", "legacy")
    person = (
        *(9001, "Legacy BUYER", "buyer@oldmill.example", None, 9001, "Germany", "customer"),
        *("2011-04-01", True, "legacy"),
    )
    _fill(database, "dim_company", iter([company]))
    _fill(database, "dim_customer", iter([person]))
    old = [("LEG-1", "Millstone", "Decoration", "450.00", False)]
    old += [(f"SK-{n:03d}", "to be named", "Decoration", "1.00", False) for n in range(1, 9)]
    _fill(database, "dim_product", iter(old))
    orders = [
        (f"LO-{n}", 9001, "LEG-1", n, f"{450 * n}.00", "EUR", f"2011-05-0{n} 10:00:00")
        for n in range(1, 4)
    ]
    _fill(database, "fact_order", iter(orders))
