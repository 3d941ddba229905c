"""Plan twice a million records of twelve fields and report what it took (run as a script)."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from apps.engine.planning import Planner
from apps.engine.spec import RuleSpec
from tests.engine.specs import dataset, mapped
from tests.memory import peak_mib

ROWS, STEP = 1_000_000, 50_000
TYPES = {
    "id": "integer", "s0": "text(40)", "s1": "text(40)", "s2": "text(40)", "s3": "text(40)",
    "j": "integer", "d": "decimal(12,2)", "f": "float", "ts": "timestamp", "tz": "timestamptz",
    "dt": "date", "b": "boolean",
}  # fmt: skip


def batches(*, right: bool):
    """Records by batch; on the right, every sixteenth differs in `j`."""
    for start in range(0, ROWS, STEP):
        number = pa.array(range(start, start + STEP), pa.int64())
        text = pc.binary_join_element_wise(
            pa.array(["value number"] * STEP), number.cast(pa.string()), " "
        )
        sixteenth = pc.equal(pc.bit_wise_and(number, 15), 0)
        yield {
            "id": number,
            **{f"s{place}": text for place in range(4)},
            "j": pc.if_else(sixteenth, pc.add(number, 1), number) if right else number,
            "d": number.cast(pa.decimal128(20, 0)).cast(pa.decimal128(12, 2)),
            "f": pc.multiply(number.cast(pa.float64()), 1.1),
            "ts": number.cast(pa.timestamp("us")),
            "tz": number.cast(pa.timestamp("us", tz="UTC")),
            "dt": pc.bit_wise_and(number, 8191).cast(pa.int32()).cast(pa.date32()),
            "b": pc.equal(pc.bit_wise_and(number, 1), 0),
        }


def keys(number: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('["', number.cast(pa.string()), '"]', "")


def main(spill: Path) -> dict[str, float]:
    side = dataset("s", **TYPES)
    start = time.perf_counter()
    report: dict[str, float] = {}
    with Planner(
        mapped(side, side, *TYPES),
        RuleSpec(),
        complete=True,
        memory_limit_mb=512,
        spill_directory=spill,
    ) as plan:
        for columns in batches(right=False):
            key = keys(columns["id"])
            plan.add_left(pa.table({**columns, "__left_key": key, "__right_key": key}))
        for columns in batches(right=True):
            plan.add_right(pa.table(columns))
        half = keys(pa.array(range(ROWS // 2), pa.int64()))
        plan.add_links(pa.table({"left_key": half, "right_key": half}))
        report["collect_seconds"] = time.perf_counter() - start
        start = time.perf_counter()
        report["updates"] = plan.plan().updates
        report["plan_seconds"] = time.perf_counter() - start
        start = time.perf_counter()
        report["changes"] = sum(table.num_rows for table in plan.changes())
        report["unlinked"] = sum(table.num_rows for table in plan.unchanged())
        report["hand_out_seconds"] = time.perf_counter() - start
    report["processor_seconds"] = time.process_time()
    report["max_rss_mb"] = peak_mib()
    return report


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
