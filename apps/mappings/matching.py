"""Which records of two datasets would find each other, counted before anything is written.

The match fields of all left records (as they would be written) and of all right records are read,
evened out as the mapping says, and counted by DuckDB. A value that one left and one right record
have makes a pair. A value that several records of one side have is ambiguous: each of them could
be meant, so that a run makes conflicts of them and writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import duckdb
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.base import Connector, DatasetSchema, ReadBatch, ReadRequest
from apps.connectors.types import TEXT
from apps.engine.database import fetch, open_database
from apps.engine.program import LEFT_KEY
from apps.engine.reconcile.matching import normalised_sql
from apps.engine.sandbox import Limits, Sandbox
from apps.engine.spec import MappingSpec, MatchFieldSpec, Normalisation, RuleSpec
from apps.engine.transform import compile_transform
from apps.engine.types_sql import canonical_sql, key_sql
from apps.mappings.masking import MASKED, Mask

MOST_RECORDS = 200_000
MOST_SCANNED = 2_000
"""So many left records are looked through for the partners of a sample."""
MOST_EXAMPLES = 10
MOST_KEYS = 5


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """A value that several records have, and the keys of some of these."""

    value: str
    left: int
    right: int
    left_keys: tuple[str, ...]
    right_keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SideCount:
    """Records of one side: all, those without a value to be found by, those found by none."""

    dataset: str
    total: int
    without_value: int
    alone: int
    complete: bool


@dataclass(frozen=True, slots=True)
class MatchReport:
    """What a first match would find. ambiguous: how many values several records have."""

    fields: tuple[str, ...]
    pairs: int
    left: SideCount
    right: SideCount
    ambiguous: int
    examples: tuple[Ambiguity, ...]

    @property
    def is_clear(self) -> bool:
        return self.ambiguous == 0

    def masked(self, mask: Mask) -> MatchReport:
        """The same as a face shows it: examples are values of the match fields."""
        if not any(mask.hides(name, "right") for name in self.fields):
            return self
        shown = tuple(replace(example, value=MASKED) for example in self.examples)
        return replace(self, examples=shown)


def report_matches(
    mapping: MappingSpec,
    left: tuple[Connector[Any], DatasetSchema],
    right: tuple[Connector[Any], DatasetSchema],
    lookups: Mapping[str, pa.Table],
) -> MatchReport:
    """Read both sides and count. Raises ConfigurationError, ExpressionRefused and the connectors'
    errors.
    """
    match = match_fields(mapping)
    left_table, unreadable = _left_values(mapping, match, *left, lookups)
    right_table = _right_values(mapping, match, *right)
    with open_database() as database:
        _load(database, mapping, match, left_table, right_table)
        return _count(database, mapping, match, unreadable)


def find_partners(
    mapping: MappingSpec,
    left: tuple[Connector[Any], DatasetSchema],
    sample: Sequence[ReadBatch],
    lookups: Mapping[str, pa.Table],
) -> list[tuple[str | None, ...] | None]:
    """For each right sample record the key (canonical texts) of the left one that it would be
    matched with; None where there is none, or several, among the first left records.
    """
    match = match_fields(mapping)
    records = pa.Table.from_batches([batch.records for batch in sample]) if sample else None
    if records is None or any(item.field not in _mapped(mapping) for item in match):
        return [None] * (records.num_rows if records is not None else 0)
    left_table, _ = _left_values(mapping, match, *left, lookups, limit=MOST_SCANNED)
    numbers = pa.array([str(number) for number in range(records.num_rows)], pa.string())
    columns = [records[item.field] for item in match]
    right_table = pa.table([*columns, numbers], names=[*_columns(match), "key"])
    with open_database() as database:
        _load(database, mapping, match, left_table, right_table)
        pairs = fetch(
            database,
            "SELECT CAST(r.key AS BIGINT) AS number, any_value(l.key) AS key FROM right_side r "
            "JOIN left_side l ON l.m = r.m GROUP BY r.key HAVING count(*) = 1",
        ).to_pylist()
    keys = {row["number"]: tuple(orjson.loads(row["key"])) for row in pairs}
    return [keys.get(number) for number in range(records.num_rows)]


def _mapped(mapping: MappingSpec) -> set[str]:
    return {field.right for field in mapping.fields}


def _load(
    database: duckdb.DuckDBPyConnection,
    mapping: MappingSpec,
    match: Sequence[MatchFieldSpec],
    left: pa.Table,
    right: pa.Table,
) -> None:
    """Make left_side and right_side: m, what a record is found by, evened out; shown; key."""
    values, shown = _value_sql(mapping, match)
    for name, table in (("left_side", left), ("right_side", right)):
        database.register("incoming", _unicode_forms(table, match))
        database.execute(
            f"CREATE TABLE {name} AS SELECT {values} AS m, {shown} AS shown, key FROM incoming"  # noqa: S608  # nosec B608  # quoted names and our own texts
        )
        database.unregister("incoming")


def match_fields(mapping: MappingSpec) -> tuple[MatchFieldSpec, ...]:
    """By what records find each other: the match fields, else the key."""
    return mapping.match or tuple(MatchFieldSpec(field=name) for name in mapping.key)


def _left_values(
    mapping: MappingSpec,
    match: Sequence[MatchFieldSpec],
    connector: Connector[Any],
    schema: DatasetSchema,
    lookups: Mapping[str, pa.Table],
    limit: int = MOST_RECORDS,
) -> tuple[pa.Table, int]:
    """Match values and keys of the left records, and how many have no value at all."""
    names = [item.field for item in match]
    fields = tuple(field for field in mapping.fields if field.right in names)
    narrow = mapping.model_copy(update={"fields": fields, "key": tuple(names), "match": ()})
    program = compile_transform(narrow, RuleSpec(), lookups=set(lookups))
    request = ReadRequest(dataset=schema, fields=program.left_fields, limit=limit)
    tables, rejected = [], 0
    with Sandbox(program, lookups, Limits()) as sandbox:
        for batch in connector.read(request):
            done = sandbox.run(batch.records)
            tables.append(done.records.select([*names, LEFT_KEY]))
            rejected += len(done.rejected) + len(done.stops) + len(batch.rejected)
    empty = program.records_schema.empty_table().select([*names, LEFT_KEY])
    table = pa.concat_tables(tables) if tables else empty
    return table.rename_columns([*_columns(match), "key"]), rejected


def _right_values(
    mapping: MappingSpec,
    match: Sequence[MatchFieldSpec],
    connector: Connector[Any],
    schema: DatasetSchema,
) -> pa.Table:
    names = [item.field for item in match]
    wanted = tuple(dict.fromkeys([*names, *mapping.key]))
    request = ReadRequest(dataset=schema, fields=wanted, limit=MOST_RECORDS)
    batches = [batch.records for batch in connector.read(request)]
    types = {name: mapping.right.field(name).neutral_type for name in wanted}
    empty = pa.schema([(name, types[name].arrow) for name in wanted]).empty_table()
    table = pa.Table.from_batches(batches) if batches else empty
    keys = [(f"k{n}", types[name]) for n, name in enumerate(mapping.key)]
    key_columns = pa.table([table[name] for name in mapping.key], names=[name for name, _ in keys])
    with open_database() as database:
        database.register("incoming", key_columns)
        found = fetch(database, f"SELECT {key_sql(keys)} AS key FROM incoming")  # noqa: S608  # nosec B608  # quoted names and our own texts
    columns = [table[name] for name in names] + [found["key"]]
    return pa.table(columns, names=[*_columns(match), "key"])


def _columns(match: Sequence[MatchFieldSpec]) -> list[str]:
    return [f"f{number}" for number in range(len(match))]


def _unicode_forms(table: pa.Table, match: Sequence[MatchFieldSpec]) -> pa.Table:
    """Texts in their compatibility forms, where a match field asks for it: DuckDB has none."""
    for number, item in enumerate(match):
        if Normalisation.UNICODE in item.normalise:
            texts = pc.utf8_normalize(table.column(number).cast(pa.string()), "NFKC")
            table = table.set_column(number, f"f{number}", texts)
    return table


def _value_sql(mapping: MappingSpec, match: Sequence[MatchFieldSpec]) -> tuple[str, str]:
    """SQL of the value that records find each other by (NULL: none), and of it for people."""
    values = []
    for column, item in zip(_columns(match), match, strict=True):
        text = canonical_sql(column, mapping.right.field(item.field).neutral_type)
        values.append(normalised_sql(text, item.normalise))
    missing = " OR ".join(f"({value}) IS NULL" for value in values)
    whole = key_sql([(value, TEXT) for value in values])
    shown = f"concat_ws(', ', {', '.join(values)})"
    return f"CASE WHEN NOT ({missing}) THEN {whole} END", shown


def _words(key: str) -> str:
    """A key text for people."""
    return ", ".join("NULL" if part is None else str(part) for part in orjson.loads(key))


def _count(
    database: duckdb.DuckDBPyConnection,
    mapping: MappingSpec,
    match: Sequence[MatchFieldSpec],
    unreadable: int,
) -> MatchReport:
    database.execute(
        "CREATE TABLE value AS SELECT m, any_value(shown) AS shown, "  # noqa: S608  # nosec B608  # quoted names and our own texts
        "count(*) FILTER (side = 'left') AS l, count(*) FILTER (side = 'right') AS r, "
        f"(list(key) FILTER (side = 'left'))[1:{MOST_KEYS}] AS left_keys, "
        f"(list(key) FILTER (side = 'right'))[1:{MOST_KEYS}] AS right_keys FROM ("
        "SELECT 'left' AS side, m, shown, key FROM left_side UNION ALL "
        "SELECT 'right', m, shown, key FROM right_side) WHERE m IS NOT NULL GROUP BY m"
    )
    crowd = "l > 1 OR r > 1"
    examples = fetch(
        database,
        "SELECT shown, l, r, coalesce(left_keys, []) AS left_keys, "  # noqa: S608  # nosec B608  # quoted names and our own texts
        f"coalesce(right_keys, []) AS right_keys FROM value WHERE {crowd} "
        f"ORDER BY l + r DESC, shown LIMIT {MOST_EXAMPLES}",
    ).to_pylist()

    def number(sql: str) -> int:
        return int(fetch(database, f"SELECT count(*) AS n FROM {sql}").to_pylist()[0]["n"])  # noqa: S608  # nosec B608  # quoted names and our own texts

    def side(name: str, dataset: str, more: int) -> SideCount:
        total = number(f"{name}_side") + more
        missing = number(f"{name}_side WHERE m IS NULL") + more
        other = "r" if name == "left" else "l"
        alone = number(f"value WHERE {name[0]} = 1 AND {other} = 0")
        return SideCount(dataset, total, missing, alone, total < MOST_RECORDS)

    return MatchReport(
        fields=tuple(item.field for item in match),
        pairs=number("value WHERE l = 1 AND r = 1"),
        left=side("left", mapping.left.name, unreadable),
        right=side("right", mapping.right.name, 0),
        ambiguous=number(f"value WHERE {crowd}"),
        examples=tuple(
            Ambiguity(
                value=row["shown"],
                left=int(row["l"]),
                right=int(row["r"]),
                left_keys=tuple(_words(key) for key in row["left_keys"]),
                right_keys=tuple(_words(key) for key in row["right_keys"]),
            )
            for row in examples
        ),
    )
