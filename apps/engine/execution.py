"""Run a compiled program over batches, in this process.

`Runner` is what the sandbox's child uses; programs without expressions (`trusted`) can run in
the caller's process as well. A batch is tried whole with the fast query. When an expression
raises, the careful query finds the records for which it does; should even that raise (as for
memory), the batch is halved until single records are found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Self

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from apps.connectors.canonical import canonical_json
from apps.connectors.types import NeutralType
from apps.engine.codec import encode_images, image_sql
from apps.engine.database import fetch, open_database
from apps.engine.program import (
    EXPRESSION_FAILED,
    KEYS_SCHEMA,
    LEFT_KEY,
    ROW,
    ProblemSpec,
    RecordRejection,
    Transformed,
    TransformProgram,
)

EXPLAINED_FAILURES = 5
"""For so many records of a batch the reason why an expression failed is found out."""

_ROW_FIELD = pa.field(ROW, pa.int64())
_MEMORY_ERRORS = (duckdb.OutOfMemoryException, MemoryError)


class Runner:
    """Runs one program in this process. Not for two threads at once."""

    def __init__(
        self,
        program: TransformProgram,
        lookups: Mapping[str, pa.Table] | None = None,
        *,
        memory_mb: int = 512,
        threads: int = 1,
    ) -> None:
        self.program = program
        self.inputs: list[tuple[str, str, NeutralType]] = _input_columns(program)
        self.connection = open_database(memory_mb=memory_mb, threads=threads)
        for place, name in enumerate(program.lookups):
            self._load_lookup(f"lookup_{place}", (lookups or {})[name])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.connection.close()

    def run(self, batch: pa.RecordBatch) -> Transformed:
        """Transform one batch. Raises duckdb.OutOfMemoryException or MemoryError."""
        outcome = self._run(self._prepared(batch))
        return outcome if ROW in batch.schema.names else without_numbers(outcome)

    def _load_lookup(self, table: str, content: pa.Table) -> None:
        self.connection.register("content", content.select(["key", "value"]))
        self.connection.execute(
            f"CREATE TABLE {table} AS SELECT CAST(key AS VARCHAR) AS key, "
            "min(CAST(value AS VARCHAR)) AS value, true AS known "
            "FROM content WHERE key IS NOT NULL GROUP BY ALL"
        )
        self.connection.unregister("content")

    def _prepared(self, batch: pa.RecordBatch) -> pa.Table:
        columns = [batch.column(name).cast(neutral.arrow) for name, _, neutral in self.inputs]
        numbered = ROW in batch.schema.names
        columns.append(batch.column(ROW) if numbered else _counted(batch.num_rows))
        return pa.table(columns, names=[column for _, column, _ in self.inputs] + ["row"])

    def _run(self, table: pa.Table) -> Transformed:
        try:
            return self._outcome(table, self._query(table, self.program.fast_sql))
        except _MEMORY_ERRORS:
            raise
        except duckdb.Error:
            return self._run_carefully(table)

    def _run_carefully(self, table: pa.Table) -> Transformed:
        try:
            return self._outcome(table, self._query(table, self.program.careful_sql))
        except _MEMORY_ERRORS:
            raise
        except duckdb.Error as error:
            if table.num_rows <= 1:
                return self._failed(table, _reason(error))
            half = table.num_rows // 2
            return merged([self._run(table.slice(0, half)), self._run(table.slice(half))])

    def _query(self, table: pa.Table, sql: str) -> pa.Table:
        self.connection.register("input", table)
        try:
            return fetch(self.connection, sql)
        finally:
            with suppress(duckdb.Error):
                self.connection.unregister("input")

    def _outcome(self, table: pa.Table, result: pa.Table) -> Transformed:
        problem = result.column("problem")
        clean = pc.is_null(problem)
        kept = result.filter(pc.and_(clean, result.column("keep")))
        left_out = result.filter(pc.and_(clean, pc.invert(result.column("keep"))))
        rejected, stops = self._rejections(table, result.filter(pc.invert(clean)))
        warnings = {
            name: int(pc.sum(kept.column(f"w{place}")).as_py() or 0)
            for place, name in enumerate(self.program.warnings)
        }
        return Transformed(
            records=self._records(kept),
            rejected=rejected,
            warnings={name: count for name, count in warnings.items() if count},
            stops=stops,
            left_out=_keys(left_out),
        )

    def _records(self, kept: pa.Table) -> pa.Table:
        columns = []
        for place, column in enumerate(self.program.outputs):
            values = kept.column(f"o{place}")
            if place in self.program.canonical_json:
                values = pa.chunked_array(
                    [[None if v is None else canonical_json(v) for v in values.to_pylist()]],
                    pa.string(),
                )
            columns.append(values.cast(column.neutral.arrow))
        columns += [kept.column("lk"), kept.column("rk")]
        columns += [
            kept.column(column.sql).cast(column.neutral.arrow) for column in self.program.carried
        ]
        return pa.table([*columns, kept.column("row")], schema=_numbered(self.program))

    def _rejections(
        self, table: pa.Table, wrong: pa.Table
    ) -> tuple[list[RecordRejection], list[RecordRejection]]:
        rejected: list[RecordRejection] = []
        stops: list[RecordRejection] = []
        if not wrong.num_rows:
            return rejected, stops
        base = table.column("row")[0].as_py()
        rows = [row - base for row in wrong.column("row").to_pylist()]
        records = self._texts(table.take(pa.array(rows, pa.int64())))
        explained = 0
        heads = wrong.select(["problem", "detail", "lk", "rk"]).to_pylist()
        for head, row in zip(heads, rows, strict=True):
            spec = self.program.problems[head["problem"]]
            detail = head["detail"]
            if spec.code == EXPRESSION_FAILED and explained < EXPLAINED_FAILURES:
                explained += 1
                detail = self._explain(table.slice(row, 1))
            rejection = replace(
                _rejection(spec, head["lk"], head["rk"], detail, records[base + row]),
                row=base + row,
            )
            (stops if spec.stop else rejected).append(rejection)
        return rejected, stops

    def _texts(self, table: pa.Table) -> dict[int, dict[str, str | None]]:
        """The left records as canonical texts, by `row`."""
        image = image_sql([(name, column, neutral) for name, column, neutral in self.inputs])
        result = self._query(table, f"SELECT row, {image} AS image FROM input")
        return {
            row: json.loads(text)
            for row, text in zip(*(column.to_pylist() for column in result.columns), strict=True)
        }

    def _explain(self, table: pa.Table) -> str:
        try:
            self._query(table, self.program.fast_sql)
        except duckdb.Error as error:
            return _reason(error)
        return "no value"

    def _failed(self, table: pa.Table, reason: str) -> Transformed:
        rejected = [
            RecordRejection(
                left_key=self.program.left_key_of(record),
                right_key=None,
                code=EXPRESSION_FAILED,
                message=f"an expression failed: {reason}",
                record=record,
                row=row,
            )
            for row, record in self._texts(table).items()
        ]
        return nothing_but(self.program, rejected)


def nothing_but(program: TransformProgram, rejected: list[RecordRejection]) -> Transformed:
    """The outcome of numbered rows that are all kept out."""
    keys = KEYS_SCHEMA.append(_ROW_FIELD)
    return Transformed(_numbered(program).empty_table(), rejected, {}, [], keys.empty_table())


def without_numbers(outcome: Transformed) -> Transformed:
    """The outcome of a batch whose rows the caller has not numbered."""
    left_out = outcome.left_out.drop_columns(ROW)
    return Transformed(
        records=outcome.records.drop_columns(ROW),
        rejected=[replace(rejection, row=None) for rejection in outcome.rejected],
        warnings=outcome.warnings,
        stops=[replace(stop, row=None) for stop in outcome.stops],
        left_out=left_out.filter(pc.is_valid(left_out.column(LEFT_KEY))),
    )


def left_texts(batch: pa.RecordBatch, program: TransformProgram) -> list[dict[str, str | None]]:
    """The left records of a batch as canonical texts."""
    fields = {column.name: column.neutral for column in program.inputs}
    images = encode_images(pa.Table.from_batches([batch]), fields)
    return [json.loads(image) for image in images]


def merged(parts: list[Transformed]) -> Transformed:
    """The outcome of several parts of one batch."""
    warnings: dict[str, int] = {}
    for part in parts:
        for name, count in part.warnings.items():
            warnings[name] = warnings.get(name, 0) + count
    return Transformed(
        records=pa.concat_tables([part.records for part in parts]),
        rejected=[rejection for part in parts for rejection in part.rejected],
        warnings=warnings,
        stops=[stop for part in parts for stop in part.stops],
        left_out=pa.concat_tables([part.left_out for part in parts]),
    )


def _counted(rows: int) -> pa.Array:
    """The numbers from 0 on."""
    ones = pa.repeat(pa.scalar(1, pa.int64()), rows)
    return pc.cumulative_sum(ones, start=pa.scalar(-1, pa.int64()))


def _input_columns(program: TransformProgram) -> list[tuple[str, str, NeutralType]]:
    return [(column.name, column.sql, column.neutral) for column in program.inputs]


def _numbered(program: TransformProgram) -> pa.Schema:
    return program.records_schema.append(_ROW_FIELD)


def _keys(table: pa.Table) -> pa.Table:
    schema = KEYS_SCHEMA.append(_ROW_FIELD)
    return table.select(["lk", "rk", "row"]).rename_columns(schema.names).cast(schema)


def _rejection(
    spec: ProblemSpec,
    left_key: str | None,
    right_key: str | None,
    detail: str | None,
    record: dict[str, str | None],
) -> RecordRejection:
    return RecordRejection(
        left_key=left_key,
        right_key=right_key,
        code=spec.code,
        message=spec.message.replace("{value}", detail if detail is not None else "no value"),
        field=spec.field,
        check=spec.check,
        record=record,
    )


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text.split(" Error: ", 1)[-1][:200]
