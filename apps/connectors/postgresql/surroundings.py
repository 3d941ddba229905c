"""What the keys of a PostgreSQL table stand among: indexes of a kind of their own, foreign keys."""

from __future__ import annotations

from apps.connectors.postgresql.target import Target

_LOOSE_KEYS = """
SELECT array_agg(a.attname::text ORDER BY a.attnum)
FROM pg_index i
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
  AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = d.refobjsubid
WHERE i.indrelid = %s::regclass AND i.indisunique AND i.indisvalid
  AND (i.indexprs IS NOT NULL OR i.indpred IS NOT NULL)
  AND (a.attnum IN (SELECT k.number FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
                    WHERE k.place <= i.indnkeyatts)
       OR strpos(pg_get_expr(i.indexprs, i.indrelid), a.attname::text) > 0)
GROUP BY i.indexrelid
"""
_ON_UPDATE = """
SELECT a.attname::text,
       CASE c.confupdtype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL'
                          WHEN 'd' THEN 'SET DEFAULT' ELSE 'NO ACTION' END
FROM pg_constraint c
JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = ANY(c.confkey)
WHERE c.contype = 'f' AND c.confrelid = %s::regclass
"""


def loose_keys(target: Target) -> list[list[str]]:
    """The fields of unique indexes that are partial or on expressions."""
    return [row[0] for row in target.connection.execute(_LOOSE_KEYS, (target.name,))]


def on_update(target: Target) -> list[tuple[str, str]]:
    """The fields that foreign keys of any table refer to, each with its ON UPDATE."""
    return target.connection.execute(_ON_UPDATE, (target.name,)).fetchall()
