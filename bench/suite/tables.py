"""The tables of the measurements: what is copied, and where to."""

from __future__ import annotations

from bench.scene import CUSTOMERS, Table

COPY = CUSTOMERS
"""Twelve columns of nine types; the limit fills a table of the same shape."""

RENAMED = Table(
    "clients",
    """
    CREATE TABLE clients (
        client_id bigint PRIMARY KEY, token uuid NOT NULL, full_name text NOT NULL, mail text,
        land text, amount numeric(14,2), points double precision, is_active boolean,
        birthday date, made_at timestamptz, changed_at timestamp, labels jsonb
    )
    """,
    "",
)
"""The same twelve columns under other names, two of them of other types."""

RENAMES = {
    "client_id": "id",
    "token": "token",
    "full_name": "name",
    "mail": "email",
    "land": "country",
    "amount": "balance",
    "points": "score",
    "is_active": "active",
    "birthday": "born",
    "made_at": "created_at",
    "changed_at": "updated_at",
    "labels": "tags",
}

EXPRESSIONS = {
    "full_name": "upper(name)",
    "mail": "lower(coalesce(email, 'nobody@example.org'))",
    "amount": "round(balance * 1.1, 2)",
    "points": "score + 1",
}

MARIADB = """
    CREATE TABLE clients (
        client_id BIGINT PRIMARY KEY, token CHAR(36) CHARACTER SET ascii NOT NULL,
        full_name VARCHAR(120) NOT NULL, mail VARCHAR(190), land CHAR(2), amount DECIMAL(14,2),
        points DOUBLE, is_active TINYINT(1), birthday DATE, made_at TIMESTAMP(6) NULL,
        changed_at DATETIME(6), labels JSON
    ) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
"""
