"""Where a two-way plan collects both sides: a private DuckDB database with bounded memory."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from apps.engine.codec import hash_sql
from apps.engine.database import open_database
from apps.engine.program import CARRIED, LEFT_KEY, RIGHT_KEY
from apps.engine.reconcile.layout import Layout
from apps.engine.types_sql import duckdb_type, key_sql, literal

FLUSH_BYTES = 32 * 1_048_576
Column = tuple[str, pa.Array | pa.ChunkedArray]


@dataclass(slots=True)
class _Waiting:
    """Rows of one table that are not in the database yet."""

    select: str
    tables: list[pa.Table] = field(default_factory=list)
    size: int = 0


class Store:
    """The tables of a plan.

    left_side:  lk, rk (the key that the right record would have), h (hash of the left view),
                left view, left fields that ride along; right_side: rk, h, right record;
    links:      lk, rk, li, ri (hashes of the base), state; bases: lk, rk, bl, br (texts by field),
                bk (whether the base holds the field);
    left_out, rejected: keys; decisions: what people decided.
    """

    def __init__(self, layout: Layout, memory_limit_mb: int, spill: Path, threads: int) -> None:
        self.layout = layout
        self.memory_limit_mb = memory_limit_mb
        self.counted: dict[str, int] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._private = Path(tempfile.mkdtemp(prefix="reconcile-", dir=spill))
        self.connection = open_database(
            memory_mb=memory_limit_mb, threads=threads, spill=self._private
        )
        self._left_is_there = False
        self._create_tables()

    def close(self) -> None:
        """Forget everything and remove the spill files."""
        self.connection.close()
        shutil.rmtree(self._private, ignore_errors=True)

    def run(self, sql: str) -> None:
        self.connection.execute(sql)

    def count(self, sql: str) -> int:
        return int(self.connection.sql(f"SELECT count(*) FROM {sql}").fetchall()[0][0])

    def add_left(self, records: pa.Table) -> None:
        if not self._left_is_there:
            self._create_left(records.schema)
        layout = self.layout
        columns: list[Column] = [("lk", records[LEFT_KEY]), ("rk", records[RIGHT_KEY])]
        columns += [
            (column, records[name].cast(layout.types[name].arrow))
            for name, column in layout.columns.items()
        ]
        columns += [
            (column, records[CARRIED + name].cast(layout.left_types[name].arrow))
            for name, column in layout.stored_raw.items()
        ]
        columns += self._compatible(records)
        rest = ", ".join(name for name, _ in columns[2:])
        self.insert("left_side", columns, f"lk, rk, {hash_sql(layout.values('f'))}, {rest}")

    def add_right(self, batch: pa.RecordBatch | pa.Table) -> None:
        layout = self.layout
        columns: list[Column] = [
            (column, batch.column(name).cast(layout.types[name].arrow))
            for name, column in layout.columns.items()
        ]
        columns += [
            (column, batch.column(name).cast(layout.extra_types[name].arrow))
            for name, column in layout.extra.items()
        ]
        columns += self._compatible(batch)
        rest = ", ".join(name for name, _ in columns)
        key = self.right_key_sql("incoming")
        hashed = hash_sql(layout.values("f"))
        self.insert("right_side", columns, f"{key}, {hashed}, {rest}")

    def _compatible(self, batch: pa.RecordBatch | pa.Table) -> list[Column]:
        return [
            (column, pc.utf8_normalize(batch.column(name).cast(pa.string()), "NFKC"))
            for name, column in self.layout.compatible.items()
        ]

    def right_key_sql(self, row: str) -> str:
        """SQL of the key of a right record."""
        values = (self.layout.right_value(name, row) for name in self.layout.mapping.key)
        return key_sql([(sql, neutral) for _, sql, neutral in values])

    def add_texts(self, table: str, columns: Sequence[Column], select: str = "*") -> None:
        """Rows of text columns."""
        self.insert(table, [(name, column.cast(pa.string())) for name, column in columns], select)

    def hashed(self, prefix: str) -> str:
        """SQL of the hash of a record in columns that begin with `prefix`."""
        return hash_sql(self.layout.values(prefix))

    def add_bases(self, table: pa.Table) -> None:
        names = [f"/{n.replace('~', '~0').replace('/', '~1')}" for n in self.layout.names]
        paths = "[" + ", ".join(literal(name) for name in names) + "]"
        right = "CASE WHEN coalesce(r, '') = '' THEN l ELSE r END"
        left_known, right_known = (
            f"list_transform(json_extract({side}, {paths}), lambda x: x IS NOT NULL)"
            for side in ("nullif(l, '')", f"nullif({right}, '')")
        )
        known = f"list_transform(list_zip({left_known}, {right_known}), lambda x: x[1] AND x[2])"
        texts = (f"json_extract_string(nullif({side}, ''), {paths})" for side in ("l", right))
        columns = [
            (short, table[name])
            for short, name in (
                ("lk", "left_key"), ("rk", "right_key"), ("l", "left"), ("r", "right")
            )
        ]  # fmt: skip
        self.add_texts("bases", columns, f"lk, rk, {', '.join(texts)}, {known}")

    def insert(self, table: str, columns: Sequence[Column], select: str) -> None:
        """Keep rows for `flush`: DuckDB takes many batches at once far faster than one by one."""
        data = pa.table([column for _, column in columns], names=[name for name, _ in columns])
        waiting = self._waiting.setdefault(table, _Waiting(select))
        waiting.tables.append(data)
        waiting.size += data.nbytes
        self.counted[table] = self.counted.get(table, 0) + data.num_rows
        if waiting.size > FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        for table, waiting in self._waiting.items():
            self.connection.register("incoming", pa.concat_tables(waiting.tables))
            try:
                self.run(f"INSERT INTO {table} SELECT {waiting.select} FROM incoming")
            finally:
                self.connection.unregister("incoming")
        self._waiting.clear()

    def ready(self) -> None:
        """Everything given is in the tables."""
        if not self._left_is_there:
            self._create_left(pa.schema([]))
        self.flush()

    def batches(self, sql: str, schema: pa.Schema | None, batch_rows: int) -> Iterator[pa.Table]:
        """Stream a query; a cursor of its own leaves the connection free for others."""
        cursor = self.connection.cursor()
        try:
            for batch in cursor.sql(sql).to_arrow_reader(batch_rows):
                if batch.num_rows:
                    table = pa.Table.from_batches([batch])
                    yield (
                        table if schema is None else table.rename_columns(schema.names).cast(schema)
                    )
        finally:
            cursor.close()

    def _create_left(self, schema: pa.Schema) -> None:
        layout = self.layout
        layout.set_carried(schema)
        raw = "".join(
            f", {column} {duckdb_type(layout.left_types[name])}"
            for name, column in layout.stored_raw.items()
        )
        columns = f"{self._fields()}{raw}{self._forms()}"
        self.run(f"CREATE TABLE left_side(lk VARCHAR, rk VARCHAR, h VARCHAR{columns})")
        self._left_is_there = True

    def _fields(self) -> str:
        layout = self.layout
        return "".join(
            f", {column} {duckdb_type(layout.types[name])}"
            for name, column in layout.columns.items()
        )

    def _forms(self) -> str:
        return "".join(f", {column} VARCHAR" for column in self.layout.compatible.values())

    def _create_tables(self) -> None:
        layout = self.layout
        extra = "".join(
            f", {column} {duckdb_type(layout.extra_types[name])}"
            for name, column in layout.extra.items()
        )
        for statement in (
            f"CREATE TABLE right_side(rk VARCHAR, h VARCHAR{self._fields()}{extra}{self._forms()})",
            "CREATE TABLE links(lk VARCHAR, rk VARCHAR, li VARCHAR, ri VARCHAR, state VARCHAR)",
            "CREATE TABLE other_links(lk VARCHAR, rk VARCHAR)",
            "CREATE TABLE left_out(lk VARCHAR, rk VARCHAR)",
            "CREATE TABLE rejected(lk VARCHAR, rk VARCHAR)",
            "CREATE TABLE unreadable(rk VARCHAR)",
            "CREATE TABLE bases(lk VARCHAR, rk VARCHAR, bl VARCHAR[], br VARCHAR[], bk BOOLEAN[])",
            "CREATE TABLE decisions(lk VARCHAR, rk VARCHAR, kind VARCHAR, seen VARCHAR, "
            "decision VARCHAR)",
            "CREATE TABLE refused(lk VARCHAR, rk VARCHAR, code VARCHAR, message VARCHAR, "
            "field VARCHAR, name VARCHAR, record VARCHAR, stop BOOLEAN)",
            "CREATE TABLE refused_write(id BIGINT, code VARCHAR, message VARCHAR, field VARCHAR, "
            "name VARCHAR, record VARCHAR, stop BOOLEAN)",
            "CREATE TABLE conflict(kind VARCHAR, lk VARCHAR, rk VARCHAR, fields VARCHAR[], "
            "left_image VARCHAR, right_image VARCHAR, bl VARCHAR, br VARCHAR, seen VARCHAR, "
            "left_time TIMESTAMP, right_time TIMESTAMP, candidates VARCHAR)",
            "CREATE SEQUENCE ids START 1",
        ):
            self.run(statement)
