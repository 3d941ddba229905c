"""Plan one way: what has to change on the right so that it equals the left.

Left records (as they would be written), right records and live links are collected in a private
DuckDB database, whose memory is bounded and whose spill files are encrypted. Then, set by set:

1. *rejected*: left records that share a key with another one, or fail a `unique` check.
2. *pairs*: each other left record meets the right record of its link, else the right record with
   its key. More than one such record, or one that is linked to another living left record, is
   ambiguous; a key change onto a key that another right record has is refused (and claims
   nothing: if that right record is to be deleted, the key is free for the next plan).
3. *decisions*: no right record: insert. Fields differ: update of those fields. Else unchanged.
4. *absent* links: their left record is not there, was not rejected, and either the plan is
   complete or the filter left the record out. Their right records, unless a living left record
   has claimed them, are deleted, marked or kept, as the policies say. While any rejected record
   might be the one that is missing (its left key is unknown, or that key has no link and its
   right key is unknown), nothing is deleted or marked for being absent.
5. *held* links (after an undo) are left alone while their left record is as it was when they were
   held: neither written, nor inserted or deleted again.
6. *kept values*: a left record fails a `unique` check, too, if it equals a right record that
   stays as it is: one that is neither paired nor deleted by this plan.

Where a delete needs approval (`approve`), it is a conflict of kind `delete` instead, until a person
has decided for exactly the right record that they saw.

Right records without a link are never deleted. A record that had been marked and reappears is
updated like any other: the mark itself goes only if its field is mapped.

With `keys_only` the left side is known by its keys alone (the key sweep of a cursor rule): no
pairs are made, `missing_keys` tells which left records have no link yet, and `absent` which right
records must be added (`add_right`) before `plan` can judge deletes.

Two-way planning will add a base image per side to the same tables: between 2 and 3.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pyarrow as pa

from apps.connectors.types import NeutralType
from apps.engine.codec import hash_sql, image_sql, json_name
from apps.engine.database import open_database
from apps.engine.program import CHECK_FAILED, LEFT_KEY, RIGHT_KEY, RecordRejection
from apps.engine.spec import (
    CheckKind,
    CheckSpec,
    DeletePolicy,
    LeavePolicy,
    MappingSpec,
    RuleSpec,
    Severity,
)
from apps.engine.transform import mark_text
from apps.engine.types_sql import (
    canonical_sql,
    duckdb_type,
    from_canonical_sql,
    json_string_sql,
    key_sql,
    literal,
)

DUPLICATE_KEY = "record.duplicate_key"
AMBIGUOUS = "record.ambiguous"
KEY_TAKEN = "record.key_taken"

KEPT_ROUNDS = 100
FLUSH_BYTES = 32 * 1_048_576

KEY_COLUMNS = ("left_key", "right_key")
KEYS = pa.schema([(name, pa.string()) for name in KEY_COLUMNS])
UNCHANGED = pa.schema([*KEYS, ("image", pa.string())])
CHANGES = pa.schema(
    [
        ("operation", pa.string()),
        *KEYS,
        ("fields", pa.list_(pa.string())),
        ("before", pa.string()),
        ("after", pa.string()),
        ("image", pa.string()),
        ("cause", pa.string()),
        ("key_after", pa.string()),
    ]
)

HELD = pa.schema([*KEYS, ("left", pa.string()), ("right", pa.string())])
CONFLICTS = pa.schema(
    [
        ("kind", pa.string()),
        *KEYS,
        ("fields", pa.list_(pa.string())),
        ("left", pa.string()),
        ("right", pa.string()),
        ("seen", pa.string()),
    ]
)

_PAIRED = "(SELECT l.rowid, l.* FROM pair p JOIN left_side l ON l.rowid = p.l) l"
_MESSAGES = {
    DUPLICATE_KEY: "several left records have the same key",
    AMBIGUOUS: "several records claim the same right record, or several right records have its key",
    KEY_TAKEN: "the record's new key belongs to another right record",
}


@dataclass(frozen=True, slots=True)
class PlanSummary:
    """Counts of a plan, in records.

    read_left: left records given, with those left out and rejected; linked: live links given;
    rejected, stops, warnings: what the planner itself found (duplicates, ambiguous, unique);
    held_back: deletes and marks that are not made because `reason`; kept: records that held links
    keep as they are; asked: deletes that wait for a person.
    """

    read_left: int
    read_right: int
    linked: int
    inserts: int = 0
    updates: int = 0
    deletes: int = 0
    marks: int = 0
    unchanged: int = 0
    rejected: int = 0
    stops: int = 0
    warnings: dict[str, int] = field(default_factory=dict)
    deletes_held_back: bool = False
    held_back: int = 0
    reason: str = ""
    kept: int = 0
    asked: int = 0

    @property
    def changes(self) -> int:
        return self.inserts + self.updates + self.deletes + self.marks


@dataclass(slots=True)
class _Waiting:
    """Rows of one table that are not in the database yet."""

    select: str
    tables: list[pa.Table] = field(default_factory=list)
    size: int = 0


class Planner:
    """Collects both sides, plans once, then hands out the plan. A context manager.

    complete: all left and right records in scope were given, so absence means something;
    keys_only: left records are known by their keys alone;
    Raises ConfigurationError when the rule's mark does not fit.
    """

    def __init__(
        self,
        mapping: MappingSpec,
        rule: RuleSpec,
        *,
        complete: bool,
        memory_limit_mb: int,
        spill_directory: Path,
        keys_only: bool = False,
        threads: int = 2,
    ) -> None:
        self.mapping = mapping
        self.rule = rule
        self.complete = complete or keys_only
        self.keys_only = keys_only
        self.mark = mark_text(mapping, rule)
        self.types: dict[str, NeutralType] = {
            spec.right: mapping.right.field(spec.right).neutral_type for spec in mapping.fields
        }
        self.columns = {name: f"f{place}" for place, name in enumerate(self.types)}
        self._waiting: dict[str, _Waiting] = {}
        self._counted = {"left_side": 0, "right_side": 0, "left_out": 0, "rejected": 0}
        self._summary: PlanSummary | None = None
        self._private = Path(tempfile.mkdtemp(prefix="plan-", dir=spill_directory))
        self.connection = open_database(
            memory_mb=memory_limit_mb, threads=threads, spill=self._private
        )
        self._create_tables()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything and remove the spill files."""
        self.connection.close()
        shutil.rmtree(self._private, ignore_errors=True)

    @property
    def right_fields(self) -> tuple[str, ...]:
        """The right fields that `add_right` needs: the mapped ones and the mark."""
        mark = [] if self.mark is None else [self.rule.mark_field]
        return tuple(dict.fromkeys([*self.types, *mark]))

    def add_left(self, records: pa.Table) -> None:
        """Left records as `Transformed.records`; with `keys_only` only `__left_key` counts."""
        if self.keys_only:
            self._insert("left_side", [("lk", records.column(LEFT_KEY))], "lk")
            return
        columns = [("lk", records.column(LEFT_KEY)), ("rk", records.column(RIGHT_KEY))]
        columns += [
            (column, records.column(name).cast(self.types[name].arrow))
            for name, column in self.columns.items()
        ]
        self._insert("left_side", columns, "*")

    def add_left_out(self, keys: pa.Table) -> None:
        """Keys (`Transformed.left_out`) of left records that the filter leaves out."""
        columns = [("lk", keys.column(LEFT_KEY)), ("rk", keys.column(RIGHT_KEY))]
        self._insert("left_out", columns, "*")

    def add_rejected(self, keys: Sequence[tuple[str | None, str | None]]) -> None:
        """(left key, right key) of left records kept out so far; None where it is unknown."""
        left = pa.array([pair[0] for pair in keys], pa.string())
        right = pa.array([pair[1] for pair in keys], pa.string())
        self._insert("rejected", [("lk", left), ("rk", right)], "*")

    def add_right(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Right records with `right_fields`, in the storage of their types."""
        columns = [
            (column, batch.column(name).cast(self.types[name].arrow))
            for name, column in self.columns.items()
        ]
        select = list(self.columns.values())
        if self.mark is None:
            select.append("NULL")
        else:
            neutral = self.mapping.right.field(self.rule.mark_field).neutral_type
            columns.append(("m", batch.column(self.rule.mark_field).cast(neutral.arrow)))
            select.append(canonical_sql("m", neutral))
        key = key_sql([(self.columns[name], self.types[name]) for name in self.mapping.key])
        self._insert("right_side", columns, ", ".join([key, *select]))

    def add_links(self, table: pa.Table) -> None:
        """Links in scope: text columns `left_key`, `right_key`, perhaps `left_image`, `state`.

        left_image: hash of the left record as it would be written (empty: there was none).
        """
        columns = [("lk", table.column("left_key")), ("rk", table.column("right_key"))]
        for short, name in (("li", "left_image"), ("state", "state")):
            known = name in table.column_names
            empty = pa.array([""] * table.num_rows, pa.string())
            columns.append((short, table.column(name) if known else empty))
        self._insert("links", columns, "lk, rk, li, state")

    def add_decisions(self, table: pa.Table) -> None:
        """What people decided: text columns kind, left_key, right_key, seen, side.

        Only those of kind `delete` count: side `left` deletes, `right` keeps the right record.
        """
        columns = [
            (short, table.column(name))
            for short, name in (
                ("kind", "kind"),
                ("lk", "left_key"),
                ("rk", "right_key"),
                ("seen", "seen"),
                ("side", "side"),
            )
        ]
        self._insert("decided", columns, "*")

    def add_other_links(self, table: pa.Table) -> None:
        """Live links of left records that are not given, where only candidates are.

        They tell that a right record belongs to another left record, and nothing else: none of
        them ever counts as absent. A link that `add_links` got too is judged as such.
        """
        columns = [("lk", table.column("left_key")), ("rk", table.column("right_key"))]
        self._insert("other_links", columns, "*")

    def absent(self, batch_rows: int = 50_000) -> Iterator[pa.Table]:
        """Links whose left record is absent or left out: their right records must be known."""
        self._flush()
        sql = f"SELECT k.lk, k.rk FROM links k WHERE {self._not_living('k')}"
        return self._batches(sql, KEYS, batch_rows)

    def missing_keys(self, batch_rows: int = 50_000) -> Iterator[pa.Table]:
        """`left_key` of left records without a link (for the caller to read as candidates)."""
        self._flush()
        sql = (
            "SELECT DISTINCT l.lk FROM left_side l ANTI JOIN links k ON k.lk = l.lk "
            "ANTI JOIN rejected x ON x.lk = l.lk"
        )
        return self._batches(sql, pa.schema([("left_key", pa.string())]), batch_rows)

    def plan(self) -> PlanSummary:
        """Decide. After this nothing can be added."""
        if self._summary is None:
            self._flush()
            if not self.keys_only:
                self._reject_duplicates()
                self._reject_not_unique()
                self._make_pairs()
                self._keep_held()
            self._decide_absent()
            if not self.keys_only:
                self._refuse_kept_values()
                self._count_warned()
                self._decide_pairs()
            self._summary = self._counts()
        return self._summary

    def changes(self, batch_rows: int = 10_000) -> Iterator[pa.Table]:
        """The planned changes (schema `CHANGES`): deletes and marks, updates, then inserts.

        `right_key` addresses the record as it is now; `key_after` is its key afterwards.
        """
        self.plan()
        for sql in (self._deletes(), self._marks(), self._updates(), self._inserts()):
            if sql:
                yield from self._batches(sql, CHANGES, batch_rows)

    def unchanged(self, batch_rows: int = 50_000) -> Iterator[pa.Table]:
        """Pairs that are equal already and not linked with each other yet: keys and image."""
        self.plan()
        sql = (
            f"SELECT l.lk, r.rk, {hash_sql(self._values('r'))} FROM decision d "
            "JOIN left_side l ON l.rowid = d.l JOIN right_side r ON r.rowid = d.r "
            "LEFT JOIN links k ON k.lk = l.lk "
            "WHERE d.operation = 'unchanged' AND k.rk IS DISTINCT FROM r.rk"
        )
        return self._batches(sql, UNCHANGED, batch_rows)

    def gone(self, batch_rows: int = 50_000) -> Iterator[pa.Table]:
        """Links to be closed: neither side is in play any more.

        The left record is absent or left out, and the right one is gone or has been taken over
        by another left record.
        """
        self.plan()
        sql = (
            "SELECT lk, rk FROM absent_link WHERE (r IS NULL AND NOT several AND NOT held) "
            "OR taken_over"
        )
        return self._batches(sql, KEYS, batch_rows)

    def conflicts(self, batch_rows: int = 5_000) -> Iterator[pa.Table]:
        """Deletes that wait for a person (schema `CONFLICTS`); `right` is the whole image."""
        self.plan()
        image = image_sql(self._values("r"))
        sql = (
            f"SELECT 'delete', a.lk, a.rk, CAST([] AS VARCHAR[]), NULL, {image}, {self._seen()} "
            "FROM decision d JOIN absent_link a ON a.rowid = d.l "
            "JOIN right_side r ON r.rowid = d.r WHERE d.operation = 'ask'"
        )
        return self._batches(sql, CONFLICTS, batch_rows)

    def kept(self, batch_rows: int = 5_000) -> Iterator[pa.Table]:
        """Links to be held because a person decided to keep the right record.

        Columns left_key, right_key, left (NULL), right (the whole image).
        """
        self.plan()
        sql = (
            f"SELECT a.lk, a.rk, NULL, {image_sql(self._values('r'))} "
            "FROM decision d JOIN absent_link a ON a.rowid = d.l "
            "JOIN right_side r ON r.rowid = d.r WHERE d.operation = 'keep'"
        )
        return self._batches(sql, HELD, batch_rows)

    def rejections(self) -> Iterator[RecordRejection]:
        """Left records that the planner keeps out.

        `record` is empty: the planner knows what would be written, not what was read.
        """
        return self._rejections(stop=False)

    def stops(self) -> Iterator[RecordRejection]:
        """Left records that fail a `unique` check of severity stop."""
        return self._rejections(stop=True)

    def _create_tables(self) -> None:
        fields = "".join(
            f", {column} {duckdb_type(self.types[name])}" for name, column in self.columns.items()
        )
        for statement in (
            f"CREATE TABLE left_side(lk VARCHAR, rk VARCHAR{fields})",
            f"CREATE TABLE right_side(rk VARCHAR{fields}, m VARCHAR)",
            "CREATE TABLE links(lk VARCHAR, rk VARCHAR, li VARCHAR, state VARCHAR)",
            "CREATE TABLE decided(kind VARCHAR, lk VARCHAR, rk VARCHAR, seen VARCHAR, "
            "side VARCHAR)",
            "CREATE TABLE kept_pair(l BIGINT)",
            "CREATE TABLE other_links(lk VARCHAR, rk VARCHAR)",
            "CREATE TABLE left_out(lk VARCHAR, rk VARCHAR)",
            "CREATE TABLE rejected(lk VARCHAR, rk VARCHAR)",
            "CREATE TABLE bad(l BIGINT, code VARCHAR, field VARCHAR, name VARCHAR, stop BOOLEAN)",
            "CREATE TABLE warned(name VARCHAR, records BIGINT)",
            "CREATE TABLE several(rk VARCHAR)",
            "CREATE TABLE pair(l BIGINT, r BIGINT, differs BOOLEAN, linked BOOLEAN, moved BOOLEAN)",
            "CREATE TABLE decision(operation VARCHAR, cause VARCHAR, l BIGINT, r BIGINT)",
        ):
            self.connection.execute(statement)

    def _insert(
        self, table: str, columns: Sequence[tuple[str, pa.Array | pa.ChunkedArray]], select: str
    ) -> None:
        """Keep rows for `_flush`: DuckDB takes many batches at once far faster than one by one."""
        data = pa.table([column for _, column in columns], names=[name for name, _ in columns])
        waiting = self._waiting.setdefault(table, _Waiting(select))
        waiting.tables.append(data)
        waiting.size += data.nbytes
        if table in self._counted:
            self._counted[table] += data.num_rows
        if waiting.size > FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        for table, waiting in self._waiting.items():
            target = f"{table}(lk)" if waiting.select == "lk" else table
            self.connection.register("incoming", pa.concat_tables(waiting.tables))
            try:
                self.connection.execute(
                    f"INSERT INTO {target} SELECT {waiting.select} FROM incoming"
                )
            finally:
                self.connection.unregister("incoming")
        self._waiting.clear()

    def _count(self, sql: str) -> int:
        return int(self.connection.sql(f"SELECT count(*) FROM {sql}").fetchall()[0][0])

    def _values(self, side: str) -> list[tuple[str, str, NeutralType]]:
        return [
            (name, f"{side}.{column}", self.types[name]) for name, column in self.columns.items()
        ]

    def _batches(self, sql: str, schema: pa.Schema, batch_rows: int) -> Iterator[pa.Table]:
        """Stream a query; a cursor of its own leaves the connection free for others."""
        cursor = self.connection.cursor()
        try:
            reader = cursor.sql(sql).to_arrow_reader(batch_rows)
            for batch in reader:
                if batch.num_rows:
                    table = pa.Table.from_batches([batch])
                    yield table.rename_columns(schema.names).cast(schema)
        finally:
            cursor.close()

    def _reject_duplicates(self) -> None:
        keys = ["rk"] + (["lk"] if self.mapping.left.key else [])
        repeated = " UNION ".join(
            f"SELECT rowid FROM left_side WHERE {key} IN "
            f"(SELECT {key} FROM left_side GROUP BY {key} HAVING count(*) > 1)"
            for key in keys
        )
        self._reject(repeated, DUPLICATE_KEY)

    def _reject(
        self, rows: str, code: str, name: str = "", check: str = "", *, stop: bool = False
    ) -> None:
        self.connection.execute(
            f"INSERT INTO bad SELECT rowid, {literal(code)}, {literal(name)}, {literal(check)}, "
            f"{stop} FROM ({rows})"
        )

    def _unique_checks(self, *severities: Severity) -> list[CheckSpec]:
        checks = (check for check in self.rule.checks if check.kind is CheckKind.UNIQUE)
        return [check for check in checks if check.severity in severities]

    def _repeated(self, check: CheckSpec, rows: str) -> str:
        """SQL: the values of `unique` that several of these left records have."""
        value = self._checked(check, "l")
        return f"SELECT {value} FROM {rows} GROUP BY ALL HAVING count(*) > 1"

    def _checked(self, check: CheckSpec, side: str) -> str:
        return canonical_sql(f"{side}.{self.columns[check.field]}", self.types[check.field])

    def _reject_not_unique(self) -> None:
        good = "left_side l ANTI JOIN bad ON bad.l = l.rowid"
        for check in self._unique_checks(Severity.REJECT, Severity.STOP):
            self._fail(check, good, self._repeated(check, good))

    def _fail(self, check: CheckSpec, rows: str, values: str) -> None:
        self._reject(
            f"SELECT l.rowid FROM {rows} WHERE {self._checked(check, 'l')} IN ({values})",
            CHECK_FAILED,
            check.field,
            check.name,
            stop=check.severity is Severity.STOP,
        )

    def _kept(self, check: CheckSpec) -> str:
        """SQL: the values of `unique` in right records that stay as they are."""
        return (
            f"SELECT {self._checked(check, 'r')} FROM right_side r "
            "ANTI JOIN pair p ON p.r = r.rowid "
            "ANTI JOIN (SELECT r FROM decision WHERE operation = 'delete') d ON d.r = r.rowid"
        )

    def _refuse_kept_values(self) -> None:
        """What is refused leaves its own right record as it is, hence the (bounded) rounds."""
        checks = self._unique_checks(Severity.REJECT, Severity.STOP)
        known = self._count("bad")
        for _ in range(KEPT_ROUNDS if checks else 0):
            for check in checks:
                self._fail(check, _PAIRED, self._kept(check))
                self._drop_bad_pairs()
            refused, known = self._count("bad") - known, self._count("bad")
            if not refused:
                break
            self.connection.execute(
                "UPDATE absent_link SET taken_over = false "
                "WHERE taken_over AND r NOT IN (SELECT r FROM pair WHERE r IS NOT NULL)"
            )

    def _count_warned(self) -> None:
        for check in self._unique_checks(Severity.WARN):
            value = self._checked(check, "l")
            self.connection.execute(
                f"INSERT INTO warned SELECT {literal(check.name)}, count(*) FROM {_PAIRED} "
                f"WHERE {value} IN ({self._repeated(check, _PAIRED)}) "
                f"OR {value} IN ({self._kept(check)})"
            )

    def _differs(self) -> str:
        parts = (f"l.{column} IS DISTINCT FROM r.{column}" for column in self.columns.values())
        return " OR ".join(parts)

    def _make_pairs(self) -> None:
        """`pair`: l, r (rows), `key` (where r was looked for), `moved` (link and key disagree)."""
        self.connection.execute(
            "INSERT INTO several SELECT rk FROM right_side GROUP BY rk HAVING count(*) > 1"
        )
        several = self._count("several") > 0
        row, differs = "r.rowid", f"({self._differs()})"
        if several:
            row, differs = f"min({row})", f"bool_or{differs}"
        self.connection.execute(
            f"INSERT INTO pair SELECT l.rowid AS l, {row} AS r, {differs} AS differs, "
            "k.lk IS NOT NULL AS linked, coalesce(k.rk <> l.rk, false) AS moved "
            "FROM left_side l ANTI JOIN bad ON bad.l = l.rowid "
            "LEFT JOIN links k ON k.lk = l.lk "
            "LEFT JOIN right_side r ON r.rk = coalesce(k.rk, l.rk) "
            + ("GROUP BY ALL" if several else "")
        )
        self._settle_moved()
        self._refuse_ambiguous()

    def _settle_moved(self) -> None:
        """Where link and key disagree: another right record with the key, or the key is taken."""
        if not self._count("pair WHERE moved"):
            return
        self.connection.execute(
            "CREATE TABLE moved AS SELECT p.l, p.r AS linked_r, min(r.rowid) AS r, "
            f"bool_or({self._differs()}) AS differs FROM pair p "
            "JOIN left_side l ON l.rowid = p.l JOIN right_side r ON r.rk = l.rk "
            "WHERE p.moved GROUP BY ALL"
        )
        self._reject("SELECT l AS rowid FROM moved WHERE linked_r IS NOT NULL", KEY_TAKEN)
        self.connection.execute(
            "UPDATE pair SET r = moved.r, differs = moved.differs, linked = false "
            "FROM moved WHERE moved.l = pair.l AND moved.linked_r IS NULL"
        )
        self._drop_bad_pairs()

    def _refuse_ambiguous(self) -> None:
        """Several right records of one key; or a right record linked to another living one."""
        living = f"WHERE NOT ({self._not_living('links')})" if self.complete else ""
        others = (
            f"(SELECT lk, rk FROM links {living} UNION ALL SELECT lk, rk FROM other_links o "
            "WHERE NOT EXISTS (SELECT 1 FROM links WHERE links.lk = o.lk AND links.rk = o.rk))"
        )
        self._reject(
            "SELECT p.l AS rowid FROM pair p JOIN right_side r ON r.rowid = p.r "
            "WHERE r.rk IN (SELECT rk FROM several) "
            "UNION SELECT p.l FROM pair p JOIN left_side l ON l.rowid = p.l "
            f"JOIN right_side r ON r.rowid = p.r JOIN {others} k ON k.rk = r.rk AND k.lk <> l.lk "
            "WHERE NOT p.linked",
            AMBIGUOUS,
        )
        self._drop_bad_pairs()
        self._reject(
            "SELECT DISTINCT l AS rowid FROM pair WHERE l IN "
            "(SELECT l FROM pair GROUP BY l HAVING count(*) > 1) OR r IN "
            "(SELECT r FROM pair WHERE r IS NOT NULL GROUP BY r HAVING count(*) > 1)",
            AMBIGUOUS,
        )
        self._drop_bad_pairs()

    def _keep_held(self) -> None:
        """Pairs of held links whose left record is as it was are no pairs of this plan."""
        if not self._count("links WHERE state = 'held'"):
            return
        self.connection.execute(
            "INSERT INTO kept_pair SELECT p.l FROM pair p JOIN left_side l ON l.rowid = p.l "
            f"JOIN links k ON k.lk = l.lk WHERE k.state = 'held' "
            f"AND k.li = {hash_sql(self._values('l'))}"
        )
        self.connection.execute("DELETE FROM pair WHERE l IN (SELECT l FROM kept_pair)")

    def _drop_bad_pairs(self) -> None:
        self.connection.execute("DELETE FROM pair WHERE l IN (SELECT l FROM bad)")

    def _decide_pairs(self) -> None:
        self.connection.execute(
            "INSERT INTO decision SELECT CASE WHEN r IS NULL THEN 'insert' "
            "WHEN differs THEN 'update' ELSE 'unchanged' END, "
            "CASE WHEN r IS NULL THEN 'new' ELSE 'changed' END, l, r FROM pair"
        )

    def _not_living(self, link: str) -> str:
        """SQL: the left record of a link is absent or left out, and not rejected."""
        return (
            f"NOT EXISTS (SELECT 1 FROM left_side WHERE left_side.lk = {link}.lk) "
            f"AND NOT EXISTS (SELECT 1 FROM rejected WHERE rejected.lk = {link}.lk)"
        )

    def _unknown(self) -> int:
        """Rejected records that may belong to any link: a primary key may have changed, too."""
        return self._count(
            "rejected WHERE lk IS NULL OR (rk IS NULL AND lk NOT IN (SELECT lk FROM links))"
        )

    def _decide_absent(self) -> None:
        """`absent_link`: keys, r, and what stands in the way of touching the right record.

        several: the key has more than one right record; claimed: a living left record has its
        key (one that was refused because the key is taken does not count); taken_over: paired,
        so that the link is stale; held: the left record may be one that was rejected and whose
        link is unknown.
        """
        unknown = self._unknown() > 0
        scope = "true" if self.complete else "out.lk IS NOT NULL"
        self.connection.execute(
            "CREATE TABLE absent_link AS SELECT k.lk, k.rk, min(r.rowid) AS r, "
            "out.lk IS NOT NULL AS left_out, count(r.rowid) > 1 AS several, "
            "k.rk IN (SELECT l.rk FROM left_side l WHERE l.rk IS NOT NULL AND l.rowid NOT IN "
            f"(SELECT bad.l FROM bad WHERE bad.code = {literal(KEY_TAKEN)})) "
            "OR k.rk IN (SELECT rk FROM rejected WHERE rk IS NOT NULL) AS claimed, "
            "coalesce(bool_or(r.rowid IN (SELECT r FROM pair WHERE r IS NOT NULL)), false) "
            f"AS taken_over, {unknown} AND out.lk IS NULL AS held, "
            "k.kept AND out.lk IS NULL AS kept "
            "FROM (SELECT lk, rk, bool_or(state = 'held' AND li = '') AS kept FROM links "
            "GROUP BY lk, rk) k "
            "LEFT JOIN (SELECT DISTINCT lk FROM left_out) out ON out.lk = k.lk "
            "LEFT JOIN right_side r ON r.rk = k.rk "
            f"WHERE {self._not_living('k')} AND {scope} GROUP BY ALL"
        )
        for policy, left_out in ((self.rule.on_delete, False), (self.rule.on_leave, True)):
            operation = _operation(policy)
            if operation:
                self._decide_gone(operation, left_out=left_out)

    def _decide_gone(self, operation: str, *, left_out: bool) -> None:
        cause = "left_filter" if left_out else "marked" if operation == "mark" else "deleted"
        mark = "true"
        if operation == "mark":
            mark = f"r.m IS DISTINCT FROM {literal(self.mark)}"
        self.connection.execute(
            f"INSERT INTO decision SELECT CASE WHEN a.held THEN 'held' ELSE '{operation}' END, "
            f"'{cause}', a.rowid, a.r FROM absent_link a JOIN right_side r ON r.rowid = a.r "
            f"WHERE a.left_out = {left_out} AND NOT a.several AND NOT a.claimed "
            f"AND NOT a.taken_over AND NOT a.kept AND {mark}"
        )
        if operation == "ask":
            self._honour_decisions()

    def _honour_decisions(self) -> None:
        """A decision about a delete holds while the right record is as the person saw it."""
        self.connection.execute(
            "UPDATE decision SET operation = CASE WHEN side = 'left' THEN 'delete' ELSE 'keep' "
            "END, cause = 'decided' FROM (SELECT a.rowid AS a, c.side FROM absent_link a "
            "JOIN right_side r ON r.rowid = a.r JOIN decided c ON c.kind = 'delete' "
            f"AND c.lk = a.lk AND c.rk = a.rk AND c.seen = {self._seen()} "
            "WHERE c.side IN ('left', 'right')) made "
            "WHERE decision.l = made.a AND decision.operation = 'ask'"
        )

    def _seen(self) -> str:
        """SQL of what stands for a delete's values: there is no left record, the right is r."""
        return f"md5(chr(10) || {image_sql(self._values('r'))})"

    def _counts(self) -> PlanSummary:
        rows = self.connection.sql(
            "SELECT operation, count(*) FROM decision GROUP BY operation"
        ).fetchall()
        counts = dict(rows)
        held = int(counts.get("held", 0))
        unknown = self._unknown()
        warned = self.connection.sql(
            "SELECT name, records FROM warned WHERE records > 0"
        ).fetchall()
        counted = self._counted
        return PlanSummary(
            read_left=counted["left_side"] + counted["left_out"] + counted["rejected"],
            read_right=counted["right_side"],
            linked=self._count("links"),
            inserts=int(counts.get("insert", 0)),
            updates=int(counts.get("update", 0)),
            deletes=int(counts.get("delete", 0)),
            marks=int(counts.get("mark", 0)),
            unchanged=int(counts.get("unchanged", 0)),
            rejected=self._count("(SELECT DISTINCT l FROM bad WHERE NOT stop)"),
            stops=self._count("(SELECT DISTINCT l FROM bad WHERE stop)"),
            warnings=dict(warned),
            deletes_held_back=unknown > 0 and self.complete,
            held_back=held,
            reason=_held_reason(unknown) if unknown and self.complete else "",
            kept=self._count("kept_pair") + self._count("absent_link WHERE kept"),
            asked=int(counts.get("ask", 0)),
        )

    def _inserts(self) -> str:
        names = ", ".join(literal(name) for name in self.types)
        return (
            f"SELECT 'insert', l.lk, l.rk, [{names}], NULL, {image_sql(self._values('l'))}, "
            f"{hash_sql(self._values('l'))}, d.cause, l.rk "
            "FROM decision d JOIN left_side l ON l.rowid = d.l WHERE d.operation = 'insert'"
        )

    def _updates(self) -> str:
        names = ", ".join(
            f"CASE WHEN {self._changed(name)} THEN {literal(name)} END" for name in self.types
        )
        return (
            f"SELECT 'update', l.lk, r.rk, list_filter([{names}], lambda x: x IS NOT NULL), "
            f"{self._changed_image('r')}, {self._changed_image('l')}, "
            f"{hash_sql(self._values('l'))}, d.cause, l.rk FROM decision d "
            "JOIN left_side l ON l.rowid = d.l JOIN right_side r ON r.rowid = d.r "
            "WHERE d.operation = 'update'"
        )

    def _changed(self, name: str) -> str:
        column = self.columns[name]
        return f"l.{column} IS DISTINCT FROM r.{column}"

    def _changed_image(self, side: str) -> str:
        """The image of the fields that differ."""
        parts = []
        for name, sql, neutral in self._values(side):
            label = literal(json_name(name) + ":")
            value = f"coalesce({json_string_sql(sql, neutral)}, 'null')"
            parts.append(f"CASE WHEN {self._changed(name)} THEN {label} || {value} END")
        return f"'{{' || concat_ws(',', {', '.join(parts)}) || '}}'"

    def _deletes(self) -> str:
        """The image before is the whole record, as far as it is known."""
        image = image_sql(self._values("r"))
        return (
            f"SELECT 'delete', a.lk, a.rk, CAST([] AS VARCHAR[]), {image}, "
            "NULL, NULL, d.cause, NULL FROM decision d JOIN absent_link a ON a.rowid = d.l "
            "JOIN right_side r ON r.rowid = d.r WHERE d.operation = 'delete'"
        )

    def _marks(self) -> str:
        """Updates of the mark alone; the image is that of the record with the mark."""
        if self.mark is None:
            return ""
        name = self.rule.mark_field
        neutral = self.mapping.right.field(name).neutral_type
        value = f"CAST({from_canonical_sql(literal(self.mark), neutral)} AS {duckdb_type(neutral)})"
        old = f"CAST({from_canonical_sql('r.m', neutral)} AS {duckdb_type(neutral)})"
        marked = [
            (field, value if field == name else sql, kind) for field, sql, kind in self._values("r")
        ]
        return (
            f"SELECT 'update', a.lk, a.rk, [{literal(name)}], {image_sql([(name, old, neutral)])}, "
            f"{image_sql([(name, value, neutral)])}, {hash_sql(marked)}, d.cause, a.rk "
            "FROM decision d JOIN absent_link a ON a.rowid = d.l "
            "JOIN right_side r ON r.rowid = d.r WHERE d.operation = 'mark'"
        )

    def _rejections(self, *, stop: bool) -> Iterator[RecordRejection]:
        self.plan()
        sql = (
            "SELECT l.lk, l.rk, b.code, b.field, b.name "
            f"FROM bad b JOIN left_side l ON l.rowid = b.l WHERE b.stop = {stop}"
        )
        names = pa.schema([(n, pa.string()) for n in ("lk", "rk", "code", "field", "check")])
        for table in self._batches(sql, names, 5_000):
            for row in table.to_pylist():
                message = _MESSAGES.get(row["code"], f"'{row['field']}' is not unique")
                yield RecordRejection(
                    left_key=row["lk"],
                    right_key=row["rk"],
                    code=row["code"],
                    message=message,
                    field=row["field"],
                    check=row["check"],
                )


def _operation(policy: DeletePolicy | LeavePolicy) -> str:
    if policy in (DeletePolicy.PROPAGATE, LeavePolicy.DELETE):
        return "delete"
    if policy is DeletePolicy.APPROVE:
        return "ask"
    return "mark" if policy in (DeletePolicy.MARK, LeavePolicy.MARK) else ""


def _held_reason(unknown: int) -> str:
    return (
        f"{unknown:,} left records could not be read well enough to know their right records, "
        "so an absent record may be one of them"
    )
