"""Whether a table can be filled by LOAD DATA with nothing else acting on what is written to it."""

from __future__ import annotations

from collections.abc import Sequence

from apps.connectors.base import LoadRefused
from apps.connectors.mysql.load_columns import LoadColumn, load_column
from apps.connectors.mysql.target import Target
from apps.connectors.sql import find_fields

_SERVER = (
    "SELECT @@local_infile, (SELECT COUNT(*) FROM information_schema.TABLES t "
    "WHERE t.TABLE_SCHEMA = DATABASE() AND t.TABLE_NAME = {name} "
    "AND t.TABLE_TYPE = 'BASE TABLE' AND t.ENGINE = 'InnoDB')"
)
_SPLITTING = "SHOW VARIABLES WHERE Variable_name = 'wsrep_load_data_splitting' AND Value = 'ON'"
_TRIGGERS = (
    "SELECT COUNT(*) FROM information_schema.TRIGGERS "
    "WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = {name}"
)
_SEES_TRIGGERS = """
SELECT 1 FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE = 'TRIGGER'
UNION SELECT 1 FROM information_schema.SCHEMA_PRIVILEGES
WHERE PRIVILEGE_TYPE = 'TRIGGER' AND DATABASE() LIKE TABLE_SCHEMA
UNION SELECT 1 FROM information_schema.TABLE_PRIVILEGES
WHERE PRIVILEGE_TYPE = 'TRIGGER' AND TABLE_SCHEMA = DATABASE() AND TABLE_NAME = {name}
"""
NOT_LOCAL = (
    "the server takes no LOAD DATA LOCAL: an administrator allows it by SET GLOBAL local_infile = 1"
)


def load_columns(target: Target, names: Sequence[str]) -> list[LoadColumn]:
    """The fields to load, after a look at the table. Raises LoadRefused, FieldMissing."""
    fields = find_fields(target.table.schema, names)
    _refuse_unfit_table(target)
    _refuse_triggers(target)
    left = [field for field in target.table.schema.fields if field.name not in set(names)]
    for field in left:
        if not (field.nullable or field.has_default or field.generated):
            raise LoadRefused(f"the field '{field.name}' needs a value and is not mapped")
    columns = target.table.columns
    return [load_column(columns[f.name], f, mariadb=target.is_mariadb) for f in fields]


def refuse_filled(target: Target) -> None:
    """Raises LoadRefused unless the table is empty; then nobody else inserts into it.

    Inside the transaction, which is REPEATABLE READ: all columns are read, so that the primary
    key is scanned to its end, and the gap there is locked until the transaction ends.
    """
    if target.fetch(f"SELECT * FROM {target.name} LIMIT 1 FOR UPDATE"):
        raise LoadRefused("the target is not empty")


def _refuse_unfit_table(target: Target) -> None:
    ((local, plain),) = target.fetch(_SERVER.format(name=_literal(target.where)))
    if str(local) not in {"1", "ON"}:
        raise LoadRefused(NOT_LOCAL)
    if str(plain) != "1":
        raise LoadRefused("the target is not a plain InnoDB table")
    if target.fetch(_SPLITTING):
        raise LoadRefused("the server cuts a load into transactions (wsrep_load_data_splitting)")


def _refuse_triggers(target: Target) -> None:
    name = _literal(target.where)
    if str(target.fetch(_TRIGGERS.format(name=name))[0][0]) != "0":
        raise LoadRefused("the target has a trigger")
    if not target.fetch(_SEES_TRIGGERS.format(name=name)):
        raise LoadRefused(
            "the user cannot see whether the target has triggers: GRANT TRIGGER shows them"
        )


def _literal(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"
