"""What the keys of a PostgreSQL table stand among: indexes of a kind of their own, foreign keys."""

from __future__ import annotations

from apps.connectors.postgresql.target import Target

_LOOSE_KEYS = """
WITH indexes AS (
    SELECT i.*, ARRAY(SELECT k.number FROM unnest(i.indkey::int2[]) WITH ORDINALITY k(number, place)
                      WHERE k.place <= i.indnkeyatts) AS own
    FROM pg_index i
    WHERE i.indrelid = %s::regclass AND (i.indisunique OR i.indisexclusion)
      AND i.indisvalid AND NOT i.indisprimary
)
SELECT array_agg(a.attname::text ORDER BY a.attnum)
FROM indexes i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum > 0
WHERE a.attnum = ANY(i.own)
   OR EXISTS (
        SELECT FROM pg_depend d
        WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
          AND d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
          AND d.refobjsubid = a.attnum
          AND strpos(pg_get_expr(i.indexprs, i.indrelid), a.attname::text) > 0)
   OR EXISTS (
        SELECT FROM pg_attribute g
        JOIN pg_attrdef e ON e.adrelid = g.attrelid AND e.adnum = g.attnum
        JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = i.indrelid
          AND d.refobjsubid = a.attnum
          AND (d.classid, d.objid, d.objsubid) IN (('pg_attrdef'::regclass, e.oid, 0),
                                                   ('pg_class'::regclass, i.indrelid, g.attnum))
        WHERE g.attrelid = i.indrelid AND g.attgenerated <> '' AND g.attnum = ANY(i.own))
GROUP BY i.indexrelid
"""
_ON_UPDATE = """
SELECT a.attname::text,
       CASE c.confupdtype WHEN 'c' THEN 'CASCADE' WHEN 'n' THEN 'SET NULL'
                          WHEN 'd' THEN 'SET DEFAULT' ELSE 'NO ACTION' END
FROM pg_constraint c
JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = ANY(c.confkey)
WHERE c.contype = 'f' AND c.confrelid = %(table)s::regclass
UNION ALL
SELECT a.attname::text, 'CASCADE' FROM pg_attribute a
WHERE a.attrelid = %(table)s::regclass AND a.attnum > 0 AND EXISTS (
    SELECT FROM pg_trigger t
    WHERE t.tgrelid = a.attrelid AND NOT t.tgisinternal AND t.tgtype & 16 <> 0
  UNION ALL
    SELECT FROM pg_rewrite r WHERE r.ev_class = a.attrelid)
"""


def loose_keys(target: Target) -> list[list[str]]:
    """The fields of unique indexes, and those that expressions and computed fields are made of."""
    return [row[0] for row in target.connection.execute(_LOOSE_KEYS, (target.name,))]


def on_update(target: Target) -> list[tuple[str, str]]:
    """The fields that foreign keys, or triggers, may follow, each with its ON UPDATE."""
    return target.connection.execute(_ON_UPDATE, {"table": target.name}).fetchall()
