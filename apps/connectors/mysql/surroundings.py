"""What the keys of a MySQL table stand among: indexes of a kind of their own, foreign keys."""

from __future__ import annotations

import re
from collections import defaultdict

from apps.connectors.mysql.target import Target

_KEYS = """
SELECT s.INDEX_NAME, s.COLUMN_NAME, COALESCE({expression}, c.GENERATION_EXPRESSION, ''), s.SUB_PART
FROM information_schema.STATISTICS s
LEFT JOIN information_schema.COLUMNS c ON c.TABLE_SCHEMA = DATABASE()
  AND c.TABLE_NAME = '{table}' AND c.COLUMN_NAME = s.COLUMN_NAME
WHERE s.TABLE_SCHEMA = DATABASE() AND s.TABLE_NAME = '{table}' AND s.NON_UNIQUE = 0
ORDER BY s.INDEX_NAME, s.SEQ_IN_INDEX
"""
_ON_UPDATE = """
SELECT k.REFERENCED_COLUMN_NAME, COALESCE(r.UPDATE_RULE, 'CASCADE')
FROM information_schema.KEY_COLUMN_USAGE k
LEFT JOIN information_schema.REFERENTIAL_CONSTRAINTS r
  ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME
  AND r.TABLE_NAME = k.TABLE_NAME
WHERE k.REFERENCED_TABLE_SCHEMA = DATABASE() AND k.REFERENCED_TABLE_NAME = '{table}'
"""
_TRIGGERS = """
SELECT 1 FROM information_schema.TRIGGERS
WHERE EVENT_OBJECT_SCHEMA = DATABASE() AND EVENT_OBJECT_TABLE = '{table}'
  AND EVENT_MANIPULATION = 'UPDATE'
"""
_SEES_EVERYTHING = """
SELECT 1 FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE IN ('SELECT', 'TRIGGER')
  AND GRANTEE = CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')
"""
_NAME = re.compile(r"`((?:[^`]|``)+)`")


def loose_keys(target: Target) -> list[list[str]]:
    """The fields of unique indexes on prefixes, on expressions and on computed fields."""
    expression = "NULL" if target.is_mariadb else "s.EXPRESSION"
    names: dict[str, list[str]] = defaultdict(list)
    loose: set[str] = set()
    query = _KEYS.format(expression=expression, table=_escaped(target.where))
    for index, column, made_of, prefix in target.fetch(query):
        names[index] += _NAME.findall(made_of) if made_of else [column]
        if made_of or prefix is not None:
            loose.add(index)
    return [found for index, found in names.items() if index in loose]


def on_update(target: Target) -> list[tuple[str, str]]:
    """The fields that foreign keys, or triggers, may follow, each with its ON UPDATE.

    The server tells a user only of what the user has rights on, and not always what it does. So
    all fields count as followed unless the user sees everything.
    """
    table = _escaped(target.where)
    rows = target.fetch(_ON_UPDATE.format(table=table))
    found = [(str(name), str(action)) for name, action in rows]
    is_blind = len(target.fetch(_SEES_EVERYTHING)) < 2  # one row for each right
    if is_blind or target.fetch(_TRIGGERS.format(table=table)):
        found += [(name, "CASCADE") for name in target.table.columns]
    return found


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace("'", "''")
