"""Narrow a comparison of everything down to the records that a plan can be about.

A planner makes key texts, images and hashes of every record that it is given. Where both sides
are large and nearly equal, almost all of that says "unchanged". So both sides go past here first:
of each record stay a key and two 64-bit hashes of its right-space values. They mean something
within one run only: the second one is salted with a secret of the run.

1. Everything is gathered by right key: left records under the key that they would be written to
   (under their link's, where the right side assigns it), right records, and links.
2. A group is *settled* if it is exactly one left record, one right record and one live link
   between them, with equal values; of a two-way rule, the base is equal to them as well. (Where
   nothing will be stored, a pair without a link is settled, too.)
3. A settled group whose left key also stands in another group is not settled after all.
4. What stands in the other groups are the candidates. One-way, right records that no left record
   and no link names are none.

Nothing else names the keys of a settled group, so a plan over the candidates alone, with their
links and the right records that these and the candidates name, is the plan over everything
without its unchanged pairs. Unique checks look beyond keys: their rules cannot be narrowed.

A candidate too many costs time. One too few would need two different values with the same two
hashes (for a two-way base: one of 64 bits over an MD5) under the same key.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.types import Kind, NeutralType
from apps.engine.codec import hash_sql
from apps.engine.database import fetch, open_database
from apps.engine.execution import Runner
from apps.engine.program import LEFT_KEY, RIGHT_KEY, Transformed
from apps.engine.spec import CheckKind, Direction, MappingSpec, RuleSpec
from apps.engine.types_sql import canonical_sql, duckdb_type, is_text, key_sql, literal

CANDIDATES = pa.schema(
    [
        ("left_key", pa.string()),
        ("right_key", pa.string()),
        ("on_left", pa.bool_()),
        ("on_right", pa.bool_()),
    ]
)
_LEFT, _RIGHT, _LINK, _REPEATED = 1, 2, 4, 15
"""What is in a group, as bits."""

_LIVE = "live"
_SAME_TEXT = frozenset({Kind.INTEGER, Kind.TEXT, Kind.UUID, Kind.DATE, Kind.BOOLEAN})


class TooManyCandidates(Exception):
    """Narrowing gains nothing, or cannot tell: everything has to be compared."""


class Base(Enum):
    """What a settled group has to agree with, beside both sides with each other.

    VALUES compares the values of the base itself (`add_based_links`), which hash far faster.
    LEFT and BOTH compare MD5 hashes of images with those in the links: LEFT only the left view's
    (the right record equals it, and so must both of the link's), BOTH each side's with its own,
    for rules whose two sides keep different images of the same record.
    """

    NONE = "none"
    VALUES = "values"
    LEFT = "left"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Narrowed:
    """candidates: schema `CANDIDATES`: pairs of keys, NULL where a side's is not known.

    on_left, on_right: whether pass one saw a record there that takes part.
    equal: settled pairs, which the plan would have called unchanged.
    """

    candidates: pa.Table
    equal: int


def can_narrow(mapping: MappingSpec, rule: RuleSpec) -> bool:
    """Whether plans of this rule are made record by record, and records can be read by key."""
    unique = any(check.kind is CheckKind.UNIQUE for check in rule.checks)
    return bool(mapping.left.key and mapping.key) and not unique


@dataclass(frozen=True, slots=True)
class _Keys:
    """How keys are held: as an integer where both are one integer, else as their texts.

    shared: the left key is copied into the right one: `rk` says both, `lk` may be NULL;
    adrift: the right side assigns its keys, so that only links tell a left record's right key.
    """

    integer: bool
    shared: bool
    adrift: bool

    @property
    def type(self) -> str:
        return "BIGINT" if self.integer else "VARCHAR"

    def held(self, text: str) -> str:
        """SQL of a key text as it is held; NULL for a text that is no such key."""
        if not self.integer:
            return text
        number = f"TRY_CAST(substr({text}, 3, length({text}) - 4) AS BIGINT)"
        return f"CASE WHEN {self.text(number)} = {text} THEN {number} END"

    def text(self, held: str) -> str:
        """SQL of the key text of a held key."""
        return f"('[\"' || {held} || '\"]')" if self.integer else held


def _keys_of(mapping: MappingSpec) -> _Keys:
    left = [mapping.left.field(name).neutral_type for name in mapping.left.key]
    right = [mapping.right.field(name).neutral_type for name in mapping.key]
    mapped = {field.right: field for field in mapping.fields}
    adrift = not all(name in mapped for name in mapping.key)
    copied = len(left) == len(right) and all(
        name in mapped and mapped[name].left == source and not mapped[name].to_right
        and mapped[name].default is None
        for name, source in zip(mapping.key, mapping.left.key, strict=False)
    )  # fmt: skip
    kinds = [(a.kind, b.kind) for a, b in zip(left, right, strict=False)]
    shared = copied and all(a is b and a in _SAME_TEXT for a, b in kinds)
    integer = kinds == [(Kind.INTEGER, Kind.INTEGER)] and len(left) == len(right) == 1
    return _Keys(integer, shared, adrift)


class Narrower:
    """Takes in both sides and the links, then tells the candidates. A context manager.

    needs_links: pairs that are equal and not linked are candidates, so that they get a link.
    Left records, right records and links may come from three threads, each kind from one.
    """

    def __init__(
        self,
        mapping: MappingSpec,
        rule: RuleSpec,
        *,
        base: Base = Base.NONE,
        needs_links: bool = True,
        memory_limit_mb: int,
        spill_directory: Path,
        threads: int = 2,
    ) -> None:
        self.mapping = mapping
        self.base = base
        self.needs_links = needs_links
        self.two_way = rule.direction is Direction.TWO_WAY
        self.keys = _keys_of(mapping)
        self.types: dict[str, NeutralType] = {
            spec.right: mapping.right.field(spec.right).neutral_type for spec in mapping.fields
        }
        self.salt = secrets.token_hex(8)
        self.read_right = 0
        self.left_records = 0
        self._private = Path(tempfile.mkdtemp(prefix="narrow-", dir=spill_directory))
        self.connection = open_database(
            memory_mb=memory_limit_mb, threads=threads, spill=self._private
        )
        self._create_tables()
        self._left, self._right, self._links = (self.connection.cursor() for _ in range(3))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Forget everything and remove the spill files."""
        for connection in (self._left, self._right, self._links, self.connection):
            connection.close()
        shutil.rmtree(self._private, ignore_errors=True)

    @property
    def right_fields(self) -> tuple[str, ...]:
        """The right fields that `add_right` needs: the mapped ones and the key."""
        return tuple(dict.fromkeys([*self.types, *self.mapping.key]))

    def add_left(self, records: pa.Table) -> None:
        """Left records as `Transformed.records`."""
        columns = {name: f"f{place}" for place, name in enumerate(self.types)}
        data = {columns[name]: records[name].cast(self.types[name].arrow) for name in self.types}
        texts = {"lk": records[LEFT_KEY], "rk": records[RIGHT_KEY]}
        select = self.left_sql("lk", "rk", columns)
        hashed = self._select(self._left, pa.table({**texts, **data}), select)
        self.add_left_hashes(hashed)

    def add_left_hashes(self, hashed: pa.Table) -> None:
        """Left records as columns of `left_sql`."""
        self.left_records += hashed.num_rows
        self._insert(self._left, "left_side", hashed, "lk, rk, h1, h2, x")

    def left_sql(self, lk: str, rk: str, columns: Mapping[str, str], *, typed: bool = False) -> str:
        """The select list of a left record: its held keys and its hashes.

        lk, rk: SQL of the key texts, or (`typed`) of the keys as they are held;
        columns: SQL of the right values by field.
        """
        if not typed:
            lk, rk = self.keys.held(lk), self.keys.held(rk)
        values = self._values(columns)
        x = f"hash({hash_sql(values)})" if self.base in (Base.LEFT, Base.BOTH) else "0"
        names = ("lk", "rk", "h1", "h2", "x")
        parts = (lk, f"CAST({rk} AS {self.keys.type})", *self._hashes(values), x)
        return ", ".join(f"{sql} AS {name}" for sql, name in zip(parts, names, strict=True))

    def add_left_out(self, keys: pa.Table) -> None:
        """Keys (`Transformed.left_out`) of left records that the filter leaves out."""
        if self.two_way and keys.num_rows:
            data = pa.table({"lk": keys[LEFT_KEY], "rk": keys[RIGHT_KEY]})
            held = (self.keys.held("lk"), self.keys.held("rk"))
            self._insert(self._left, "left_out", data, ", ".join(held))

    def add_right(self, batch: pa.RecordBatch | pa.Table) -> None:
        """Right records with `right_fields`, in the storage of their types."""
        self.read_right += batch.num_rows
        columns = {name: f"f{place}" for place, name in enumerate(self.right_fields)}
        types = {n: self.mapping.right.field(n).neutral_type for n in self.right_fields}
        data = {columns[name]: batch.column(name).cast(types[name].arrow) for name in types}
        values = self._values(columns)
        if self.keys.integer:
            key = columns[self.mapping.key[0]]
            if self.two_way and data[key].null_count:
                raise TooManyCandidates("right records without a key")
        else:
            key = key_sql([(columns[name], types[name]) for name in self.mapping.key])
        y = f"hash({hash_sql(values)})" if self.base is Base.BOTH else "0"
        select = ", ".join([key, *self._hashes(values), y])
        self._insert(self._right, "right_side", pa.table(data), select)

    def add_links(self, table: pa.Table) -> None:
        """Links in scope: left_key, right_key, left_image, right_image, state."""
        data = pa.table(
            {
                "lk": table["left_key"],
                "rk": table["right_key"],
                "li": table["left_image"],
                "ri": table["right_image"],
                "state": table["state"],
            }
        )
        even = f"state = {literal(_LIVE)}"
        x = y = "0"
        if self.base is Base.LEFT:
            even, x = f"{even} AND li = ri", "hash(li)"
        if self.base is Base.BOTH:
            x, y = "hash(li)", "hash(ri)"
        self._insert_links(data, (even, x, y))

    def add_based_links(self, table: pa.Table) -> None:
        """The same with the values of their bases, where the base is `VALUES`.

        Columns left_key, right_key, state, even (whether both images of the base are equal), and
        the mapped right fields, which need values where it is.
        """
        columns = {name: f"f{place}" for place, name in enumerate(self.types)}
        values = {columns[name]: table[name] for name in self.types}
        names = {"lk": "left_key", "rk": "right_key", "state": "state", "equal": "even"}
        data = pa.table({**{n: table[column] for n, column in names.items()}, **values})
        even = f"equal AND state = {literal(_LIVE)}"
        self._insert_links(data, (even, *self._hashes(self._values(columns))))

    def _insert_links(self, data: pa.Table, values: Sequence[str]) -> None:
        """Rows with key texts as `lk` and `rk`; values: SQL of `even`, `x` and `y`."""
        lk, rk = self.keys.held("lk"), self.keys.held("rk")
        if self.keys.integer:  # most are equal, and numbers are made once
            rk = f"CASE WHEN lk = rk THEN held_lk ELSE {rk} END"
        select = (
            f"held_lk, held_rk, {', '.join(values)} FROM (SELECT *, {rk} AS held_rk "
            f"FROM (SELECT *, {lk} AS held_lk FROM incoming))"
        )
        self._insert(self._links, "links", data, select, source="")

    def left_keys_among(self, keys: Sequence[str]) -> list[str]:
        """Those of these left keys that a left record has which was added."""
        if not keys:
            return []
        self.connection.register("asked", pa.table({"lk": pa.array(keys, pa.string())}))
        column = "rk" if self.keys.shared else "lk"
        held = self.keys.held("a.lk")
        sql = f"SELECT a.lk FROM asked a SEMI JOIN left_side l ON l.{column} = {held}"
        found = [row[0] for row in self.connection.execute(sql).fetchall()]
        self.connection.unregister("asked")
        return found

    def narrow(self, most: int) -> Narrowed:
        """The candidates. Raises TooManyCandidates where they are more than `most`."""
        strange = self._count("links WHERE lk IS NULL OR rk IS NULL")
        if strange:
            raise TooManyCandidates(f"{strange} links with keys of another kind")
        self._run("CREATE TABLE odd AS " + self._odd_groups())
        self._refuse_many("odd", most)
        self._run("CREATE TABLE candidate AS " + self._named_in_odd_groups())
        self._run("CREATE TABLE again AS " + self._named_twice())
        self._refuse_many("again", most)
        left = self._places
        touched = f"{left} l SEMI JOIN odd o ON o.rk = l.rk"
        unplaced = self._count(f"{left} l WHERE l.rk IS NULL")
        equal = self.left_records - self._count(touched) - unplaced - self._count("again")
        candidates = self._candidates()
        if candidates.num_rows > most:
            raise TooManyCandidates(f"{candidates.num_rows:,} candidates")
        return Narrowed(candidates, equal)

    def _create_tables(self) -> None:
        key = self.keys.type
        self._run(f"CREATE TABLE left_side(lk {key}, rk {key}, h1 UBIGINT, h2 UBIGINT, x UBIGINT)")
        self._run(f"CREATE TABLE right_side(rk {key}, h1 UBIGINT, h2 UBIGINT, y UBIGINT)")
        self._run(f"CREATE TABLE links(lk {key}, rk {key}, even BOOLEAN, x UBIGINT, y UBIGINT)")
        self._run(f"CREATE TABLE left_out(lk {key}, rk {key})")

    def _values(self, columns: Mapping[str, str]) -> list[tuple[str, str, NeutralType]]:
        return [
            (name, f"CAST({columns[name]} AS {duckdb_type(neutral)})", neutral)
            for name, neutral in self.types.items()
        ]

    def _hashes(self, values: Sequence[tuple[str, str, NeutralType]]) -> tuple[str, str]:
        """SQL of two hashes that are equal only for values that are equal by their images, too."""
        plain: list[str] = []
        texts: list[str] = []
        for _, sql, neutral in values:
            if neutral.kind is Kind.FLOAT:
                special = f"CASE WHEN {sql} = 0 OR isnan({sql}) THEN CAST({sql} AS VARCHAR) END"
                plain += [sql, special]
            elif neutral.kind is Kind.ARRAY:
                texts.append(canonical_sql(sql, neutral))
            elif is_text(neutral):
                texts.append(sql)
            else:
                plain.append(sql)
        first = f"hash({', '.join([*plain, *texts])})"
        joined = f"concat_ws({literal(self.salt)}, {', '.join(texts)})" if texts else "0"
        return first, f"hash({', '.join([literal(self.salt), joined, *plain])})"

    def _run(self, sql: str) -> None:
        self.connection.execute(sql)

    def _count(self, sql: str) -> int:
        return int(self.connection.sql(f"SELECT count(*) FROM {sql}").fetchall()[0][0])

    def _refuse_many(self, table: str, most: int) -> None:
        count = self._count(table)
        if count > most:
            raise TooManyCandidates(f"{count:,} candidates")

    @staticmethod
    def _select(connection: duckdb.DuckDBPyConnection, data: pa.Table, select: str) -> pa.Table:
        connection.register("incoming", data)
        try:
            return fetch(connection, f"SELECT {select} FROM incoming")
        finally:
            connection.unregister("incoming")

    @staticmethod
    def _insert(
        connection: duckdb.DuckDBPyConnection,
        table: str,
        data: pa.Table,
        select: str,
        source: str = " FROM incoming",
    ) -> None:
        connection.register("incoming", data)
        try:
            connection.execute(f"INSERT INTO {table} SELECT {select}{source}")
        finally:
            connection.unregister("incoming")

    @property
    def _places(self) -> str:
        """SQL of left records with the right key under which they are gathered."""
        if not self.keys.adrift:
            return "left_side"
        return (
            "(SELECT l.lk, coalesce(l.rk, k.rk) AS rk, l.h1, l.h2, l.x FROM left_side l "
            "LEFT JOIN links k ON k.lk = l.lk)"
        )

    def _odd_groups(self) -> str:
        """SQL of the groups that are not settled: right key, what is in them.

        A join finds groups in which something lacks or differs; those that have something twice
        are sought apart, which together is far cheaper than grouping all of it.
        """
        has = " | ".join(
            f"CASE WHEN {row}.rk IS NULL THEN 0 ELSE {bit} END"
            for row, bit in (("l", _LEFT), ("r", _RIGHT), ("k", _LINK))
        )
        repeated = " UNION ALL ".join(
            f"SELECT rk, {_REPEATED} AS has FROM {rows} GROUP BY rk HAVING count(*) > 1"
            for rows in (self._places, "right_side", "links")
        )
        strangers = "true" if self.two_way else f"bit_or(has) <> {_RIGHT}"
        return (
            "SELECT rk, bit_or(has) AS has FROM ("
            f"SELECT coalesce(l.rk, r.rk, k.rk) AS rk, {has} AS has FROM {self._places} l "
            "FULL JOIN right_side r ON r.rk = l.rk "
            "FULL JOIN links k ON k.rk = coalesce(l.rk, r.rk) "
            f"WHERE NOT coalesce({self._settled()}, false) UNION ALL {repeated}) "
            f"WHERE rk IS NOT NULL GROUP BY rk HAVING {strangers}"
        )

    def _settled(self) -> str:
        """SQL: these left record, right record and link agree with each other."""
        equal = "l.h1 = r.h1 AND l.h2 = r.h2"
        linked = f"k.even AND {'k.lk = k.rk' if self.keys.shared else 'k.lk = l.lk'}"
        if self.base is Base.VALUES:
            linked += " AND k.x = l.h1 AND k.y = l.h2"
        if self.base is Base.LEFT:
            linked += " AND k.x = l.x"
        if self.base is Base.BOTH:
            return f"{linked} AND k.x = l.x AND k.y = r.y"
        bare = "" if self.needs_links else " OR k.rk IS NULL"
        return f"{equal} AND (({linked}){bare})"

    def _named_in_odd_groups(self) -> str:
        """SQL of (lk, rk, on_left) in groups that are not settled."""
        own = "l.rk" if self.keys.shared else "l.lk"
        left = self._places
        return (
            f"SELECT {own} AS lk, l.rk, true AS on_left FROM {left} l SEMI JOIN odd o "
            f"ON o.rk = l.rk UNION ALL SELECT lk, NULL, true FROM {left} WHERE rk IS NULL "
            "UNION ALL SELECT k.lk, k.rk, false FROM links k SEMI JOIN odd o ON o.rk = k.rk"
        )

    def _named_twice(self) -> str:
        """SQL of settled groups (lk, rk) whose left key is named in another group as well."""
        own = "l.rk" if self.keys.shared else "l.lk"
        settled = (
            f"SELECT {own} AS lk, l.rk FROM {self._places} l ANTI JOIN odd o ON o.rk = l.rk "
            "WHERE l.rk IS NOT NULL"
        )
        named = f"SELECT * FROM ({settled}) WHERE lk IN (SELECT lk FROM candidate)"
        if self.keys.shared:
            return named
        repeated = f"SELECT lk FROM ({settled}) GROUP BY lk HAVING count(*) > 1"
        return f"{named} OR lk IN ({repeated})"

    def _candidates(self) -> pa.Table:
        pairs = "SELECT lk, rk, on_left FROM candidate UNION ALL SELECT lk, rk, true FROM again"
        if self.two_way:
            pairs += (
                f" UNION ALL SELECT NULL, rk, false FROM odd WHERE has = {_RIGHT} "
                "UNION ALL SELECT o.lk, o.rk, false FROM left_out o WHERE o.rk IN "
                "(SELECT rk FROM odd) OR o.lk IN (SELECT lk FROM candidate)"
            )
        has = f"coalesce((o.has & {_RIGHT}) <> 0, p.rk IN (SELECT rk FROM again))"
        sql = (
            f"SELECT {self.keys.text('p.lk')}, {self.keys.text('p.rk')}, bool_or(p.on_left), "
            f"bool_or(coalesce({has}, false)) FROM ({pairs}) p LEFT JOIN odd o ON o.rk = p.rk "
            "GROUP BY ALL"
        )
        return fetch(self.connection, sql).rename_columns(CANDIDATES.names).cast(CANDIDATES)


class HashingRunner(Runner):
    """Runs a trusted program, but keeps of the records that pass only what a Narrower needs.

    Rows that the program rejects or leaves out are run again as a `Runner` does it, so that all
    that is said about them is the same.
    """

    def hash_left(self, narrower: Narrower, batch: pa.RecordBatch | pa.Table) -> Transformed:
        """Add the batch's records to the narrower; returns all the rest, `records` empty."""
        if self.program.canonical_json:
            return self._whole(narrower, batch)
        try:
            result = self._query(self._prepared(batch), self._hashing_sql(narrower))
        except duckdb.OutOfMemoryException:
            raise
        except duckdb.Error:
            return self._whole(narrower, batch)
        odd = result.column("odd")
        clean = result if not pc.any(odd).as_py() else result.filter(pc.invert(odd))
        warnings = {
            name: int(pc.sum(clean.column(f"w{place}")).as_py() or 0)
            for place, name in enumerate(self.program.warnings)
        }
        narrower.add_left_hashes(clean.select(["lk", "rk", "h1", "h2", "x"]))
        rows = result.filter(odd).column("row") if clean is not result else None
        rest = self._rest(narrower, batch, rows)
        return replace(rest, warnings={n: count for n, count in warnings.items() if count})

    def _rest(
        self, narrower: Narrower, batch: pa.RecordBatch | pa.Table, rows: pa.ChunkedArray | None
    ) -> Transformed:
        taken = batch.slice(0, 0) if rows is None else batch.take(rows.combine_chunks())
        return self._whole(narrower, taken)

    def _whole(self, narrower: Narrower, batch: pa.RecordBatch | pa.Table) -> Transformed:
        done = self.run(as_batch(batch))
        narrower.add_left(done.records)
        narrower.add_left_out(done.left_out)
        return replace(done, records=done.records.slice(0, 0))

    def _hashing_sql(self, narrower: Narrower) -> str:
        """The program's query, of which DuckDB computes only what is asked for here."""
        program = self.program
        columns = {output.name: output.sql for output in program.outputs}
        mapping, typed = narrower.mapping, narrower.keys.integer
        lk, rk = "lk", "rk"
        if typed:
            lk, rk = narrower.keys.held("lk"), columns.get(mapping.key[0], "NULL")
        if narrower.keys.shared:
            lk = "NULL"  # rk says it
        select = narrower.left_sql(lk, rk, columns, typed=True)
        warned = "".join(f", w{place}" for place in range(len(program.warnings)))
        return (
            f"SELECT {select}, row, problem IS NOT NULL OR NOT coalesce(keep, false) AS odd"
            f"{warned} FROM ({program.fast_sql})"
        )


def as_batch(batch: pa.RecordBatch | pa.Table) -> pa.RecordBatch:
    """The same rows as one batch."""
    if isinstance(batch, pa.RecordBatch):
        return batch
    parts = batch.combine_chunks().to_batches()
    return parts[0] if parts else pa.RecordBatch.from_pylist([], schema=batch.schema)
