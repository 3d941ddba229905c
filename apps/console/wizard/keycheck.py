"""Whether fields identify a record: counts of records, repeated and missing keys, examples.

Only the key fields are read, as Arrow batches; DuckDB groups them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from apps.connectors.base import ReadRequest
from apps.engine.database import fetch, open_database
from apps.mappings.masking import MASKED, personal_fields
from apps.sources.models import Dataset
from apps.sources.selectors import connector_for

MOST_RECORDS = 2_000_000


@dataclass(frozen=True, slots=True)
class KeyReport:
    """What was counted on one side."""

    dataset: str
    fields: tuple[str, ...]
    total: int
    distinct: int
    missing: int
    repeated: int
    examples: tuple[tuple[str, int], ...]
    complete: bool

    @property
    def is_unique(self) -> bool:
        return self.repeated == 0 and self.missing == 0


def report_key(dataset: Dataset, fields: Sequence[str]) -> KeyReport:
    """Read the key fields and count. Raises the connector's errors."""
    request = ReadRequest(dataset=dataset.schema(), fields=tuple(fields), limit=MOST_RECORDS)
    batches = [batch.records for batch in connector_for(dataset.source).read(request)]
    table = pa.Table.from_batches(batches) if batches else pa.table({name: [] for name in fields})
    table = table.rename_columns([f"k{i}" for i in range(len(fields))])
    report = _count(dataset.name, tuple(fields), table)
    if personal_fields([dataset.pk]).get(dataset.pk, frozenset()) & set(fields):
        return replace(report, examples=tuple((MASKED, n) for _, n in report.examples))
    return report


def _count(name: str, fields: tuple[str, ...], table: pa.Table) -> KeyReport:
    columns = table.column_names
    absent = " OR ".join(f"{column} IS NULL" for column in columns)
    keys = ", ".join(columns)
    text = " || ', ' || ".join(f"CAST({column} AS VARCHAR)" for column in columns)
    with open_database() as database:
        database.register("input", table)
        groups = f"SELECT {keys}, count(*) AS n FROM input WHERE NOT ({absent}) GROUP BY ALL"  # noqa: S608  # nosec B608  # quoted names
        counts = fetch(
            database,
            "SELECT count(*) AS keys, coalesce(sum(CASE WHEN n > 1 THEN 1 ELSE 0 END), 0) "  # noqa: S608  # nosec B608  # quoted names
            f"AS repeated FROM ({groups})",
        ).to_pylist()[0]
        missing = fetch(database, f"SELECT count(*) AS n FROM input WHERE {absent}")  # noqa: S608  # nosec B608  # quoted names
        examples = fetch(
            database,
            f"SELECT {text} AS example, n FROM ({groups}) WHERE n > 1 ORDER BY n DESC LIMIT 5",  # noqa: S608  # nosec B608  # quoted names
        ).to_pylist()
    return KeyReport(
        dataset=name,
        fields=fields,
        total=table.num_rows,
        distinct=int(counts["keys"]),
        missing=int(missing.to_pylist()[0]["n"]),
        repeated=int(counts["repeated"]),
        examples=tuple((str(row["example"]), int(row["n"])) for row in examples),
        complete=table.num_rows < MOST_RECORDS,
    )
